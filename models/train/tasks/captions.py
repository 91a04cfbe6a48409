"""Captions, lists and JSON of one picture."""

from .. import wording
from . import Ask

BRIEF = [
    "Describe this image briefly.",
    "Write a short caption for this image.",
    "Give a one-sentence caption for this picture.",
    "Caption this image.",
    "Describe the picture in one sentence.",
    "Provide a brief description of the image.",
    "Summarize the image in one sentence.",
    "Please write a caption for this picture.",
    "A short caption, please.",
    "Briefly describe this picture.",
    "What is in this picture, in one sentence?",
    "Describe the image briefly.",
]
DETAILED = [
    "Please describe this image in detail.",
    "Describe this image in detail.",
    "Describe the image in detail.",
    "Describe this image.",
    "What do you see in this picture?",
    "Give a detailed description of the picture.",
    "What is in the image?",
    "Describe the picture.",
    "Tell me everything about this image.",
    "Please describe the picture in detail.",
    "What does the image show?",
    "Describe the scene in detail.",
    "Please describe this image.",
    "What is shown in this image?",
]
LISTED = [
    "List the objects in the image.",
    "List all objects.",
    "Make a list of the objects in this picture.",
    "Give me a numbered list of the shapes.",
]
JSON = ["List the objects as JSON.", "Return the objects in JSON format.", "Output the objects of the picture as JSON."]
BRIEF_ZH = ["请描述这张图片。", "用一句话描述这张图片。", "图中有什么？", "请用中文描述这张图片。"]

# name -> (prompts, text of a scene, how often)
CAPTIONS = {
    "caption_brief": (BRIEF, wording.brief, 40),
    "caption_detailed": (DETAILED, wording.detailed, 36),
    "caption_chinese": (BRIEF_ZH, wording.brief_zh, 14),
    "list": (LISTED, wording.listed, 12),
    "json": (JSON, wording.as_json, 9),
}
NAMES, WEIGHTS = list(CAPTIONS), [c[2] for c in CAPTIONS.values()]


def ask(draw, scene, name=None):
    """A caption task about a scene."""
    prompts, tell, _ = CAPTIONS[name or NAMES[draw.weighted(WEIGHTS)]]
    return Ask(draw.pick(prompts), tell(scene), [scene])
