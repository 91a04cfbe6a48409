//! Tasks about a drawn scene: captions, lists and questions, as in `models/train/tasks`.

use std::ops::Range;

use super::{
    BosHabit, Draw, EvalCase, PicturePlace, Scene, SystemText,
    question::{Topic, question},
};

/// Seeds of the test set: for reported results; never used for training.
pub const REPORTED: Range<u64> = 0..100_000;
/// Seeds of the validation set, used to choose the training recipe.
pub const TUNED: Range<u64> = 100_000..200_000;
/// First seed of the training set.
pub const FIRST_TRAINED: u64 = 1_000_000;

/// Marks the place of the picture in a query.
const MARKER: &str = "<ImageHere>";

const BRIEF: [&str; 12] = [
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
];
const DETAILED: [&str; 14] = [
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
];
const LISTED: [&str; 4] = [
    "List the objects in the image.",
    "List all objects.",
    "Make a list of the objects in this picture.",
    "Give me a numbered list of the shapes.",
];
const JSON: [&str; 3] = [
    "List the objects as JSON.",
    "Return the objects in JSON format.",
    "Output the objects of the picture as JSON.",
];
const CHINESE: [&str; 4] = [
    "请描述这张图片。",
    "用一句话描述这张图片。",
    "图中有什么？",
    "请用中文描述这张图片。",
];

/// A kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Task {
    CaptionBrief,
    CaptionDetailed,
    CaptionChinese,
    List,
    Json,
    Count,
    Color,
    Shape,
    Size,
    Place,
    Background,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 11] = [
        Self::CaptionBrief,
        Self::CaptionDetailed,
        Self::CaptionChinese,
        Self::List,
        Self::Json,
        Self::Count,
        Self::Color,
        Self::Shape,
        Self::Size,
        Self::Place,
        Self::Background,
    ];

    /// The name, as in the held-out prompts.
    pub fn name(self) -> &'static str {
        match self {
            Self::CaptionBrief => "caption_brief",
            Self::CaptionDetailed => "caption_detailed",
            Self::CaptionChinese => "caption_chinese",
            Self::List => "list",
            Self::Json => "json",
            Self::Count => "count",
            Self::Color => "color",
            Self::Shape => "shape",
            Self::Size => "size",
            Self::Place => "place",
            Self::Background => "background",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::CaptionBrief | Self::CaptionDetailed | Self::CaptionChinese => "captions",
            Self::List | Self::Json => "lists",
            _ => "questions",
        }
    }

    /// The case of a seed, the same as in the training's evaluation. Captions and lists are about the scene of the
    /// seed; a question is about the first drawn scene that it fits.
    pub fn case(self, seed: u64) -> EvalCase {
        let draw = &mut Draw::new(seed);
        let (scene, query, expected) = loop {
            let scene = Scene::draw(draw);
            if let Some((query, expected)) = self.ask(draw, &scene) {
                break (scene, query, expected);
            }
        };
        EvalCase {
            task: self.name().to_owned(),
            group: self.group().to_owned(),
            system: Some(SystemText::Default),
            bos: BosHabit::Each,
            pictures: PicturePlace::Body,
            history: Vec::new(),
            query: MARKER.to_owned() + &query,
            forced: String::new(),
            expected,
            greedy: None,
            margin: None,
            scenes: vec![scene],
        }
    }

    /// The question and its only right answer.
    fn ask(self, draw: &mut Draw, scene: &Scene) -> Option<(String, String)> {
        let topic = match self {
            Self::CaptionBrief => return Some((draw.pick(&BRIEF).into(), scene.brief())),
            Self::CaptionDetailed => return Some((draw.pick(&DETAILED).into(), scene.detailed())),
            Self::CaptionChinese => return Some((draw.pick(&CHINESE).into(), scene.chinese())),
            Self::List => return Some((draw.pick(&LISTED).into(), scene.listed())),
            Self::Json => return Some((draw.pick(&JSON).into(), scene.json())),
            Self::Count => Topic::Count,
            Self::Color => Topic::Color,
            Self::Shape => Topic::Shape,
            Self::Size => Topic::Size,
            Self::Place => Topic::Place,
            Self::Background => Topic::Background,
        };
        question(draw, scene, topic)
    }
}
