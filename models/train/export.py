"""The trained model as a Hugging Face directory in the layout of internlm-xcomposer2-vl-7b, in float16."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .model import Config, XComposer2

MODEL, CONFIG = (
    "modeling_internlm_xcomposer2.InternLMXComposer2ForCausalLM",
    "configuration_internlm_xcomposer2.InternLMXcomposer2Config",
)
NAMES = dict(bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>")
IDS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=2)


def config_json(c):
    """config.json, with the keys of the published one."""
    return dict(
        architectures=["InternLMXComposer2ForCausalLM"],
        auto_map=dict(AutoConfig=CONFIG, AutoModel=MODEL, AutoModelForCausalLM=MODEL),
        bias=False,
        **IDS,
        hidden_act="silu",
        hidden_size=c.n_embd,
        img_size=c.image_size,
        initializer_range=0.02,
        intermediate_size=c.n_ff,
        max_length=c.n_ctx,
        max_position_embeddings=c.n_ctx,
        model_type="internlmxcomposer2",
        num_attention_heads=c.n_head,
        num_hidden_layers=c.n_layer,
        num_key_value_heads=c.n_head_kv,
        rms_norm_eps=c.eps,
        rope_scaling=None,
        rope_theta=int(c.rope_theta),
        tie_word_embeddings=False,
        torch_dtype="float16",
        use_cache=False,
        vocab_size=c.n_vocab,
    )


def tokenizer_json():
    """tokenizer_config.json"""
    auto = dict(AutoTokenizer=["tokenization_internlm_xcomposer2.InternLMXComposer2Tokenizer", None])
    return dict(
        auto_map=auto,
        **NAMES,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        tokenizer_class="InternLMXComposer2Tokenizer",
    )


def export(model, folder):
    """Writes everything but the tokenizer, which is made before."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().contiguous().cpu() for name, value in model.state_dict().items()}
    assert all(torch.isfinite(value).all() for value in tensors.values())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    files = {
        "config.json": config_json(model.c),
        "tokenizer_config.json": tokenizer_json(),
        "special_tokens_map.json": NAMES,
        "generation_config.json": dict(_from_model_config=True, **IDS, max_length=model.c.n_ctx, use_cache=False),
    }
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n")


def load(folder, device="cpu"):
    """The exported model, in float32."""
    state = load_file(Path(folder) / "model.safetensors")
    rank = state["model.layers.0.attention.wo.Plora_A.weight"].shape[0]
    model = XComposer2(dataclasses.replace(Config(), rank=rank))
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model.to(device).eval()
