//! Checkpoints that are refused: related models that share names with the ones we convert, and models that the
//! decoder cannot express.

use crate::{
    checkpoint::{Checkpoint, SourceTensor},
    config::Config,
    model::{CLIP_GRID, ModelError, TOWER},
};

/// The class in `auto_map`, or at least in `architectures`, of every supported model.
const CLASS: &str = "InternLMXComposer2ForCausalLM";
const UNQUANTIZED: &str =
    "convert the unquantized checkpoint; --q4_k makes a smaller file than this one";
const FIXED_SIZE: &str = "convert internlm-xcomposer2-vl-7b or -vl-1_8b instead";

/// Refuses related models that share names with the ones we convert.
pub(crate) fn refuse_relatives(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
    refuse_quantized(checkpoint, config)?;
    let mut mapped = config.auto_map.values();
    let mapped = mapped.any(|v| v.to_string().contains(CLASS));
    if !mapped && !config.architectures.iter().any(|a| a == CLASS) {
        return Err(ModelError::OtherFamily {
            expected: "`InternLMXComposer2ForCausalLM` in `auto_map` or `architectures` of config.json",
            found: format!("{:?}", config.architectures),
        });
    }
    refuse_larger(checkpoint)?;
    if first_named(checkpoint, "Plora_A").is_none() {
        return Err(ModelError::OtherFamily {
            expected: "Partial-LoRA tensors (`*.Plora_A.weight`)",
            found: "none".to_owned(),
        });
    }
    Ok(())
}

fn refuse_quantized(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
    let quantization = config.quantization_config.as_ref();
    let method = quantization.and_then(|q| q.get("quant_method")?.as_str());
    if method == Some("awq") {
        return unsupported("AWQ-quantized", "quant_method: awq", UNQUANTIZED);
    }
    match first_named(checkpoint, ".qweight") {
        Some(name) => unsupported("GPTQ-quantized", name, UNQUANTIZED),
        None => Ok(()),
    }
}

/// Refuses models of the family that cut pictures into tiles, or take videos.
fn refuse_larger(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    for pattern in ["video_mem_proj.", "mplora", "MPlora_"] {
        if let Some(name) = first_named(checkpoint, pattern) {
            return unsupported("OmniLive (InternLM-XComposer2.5)", name, FIXED_SIZE);
        }
    }
    let separators = ["plora_glb_GN", "plora_sub_GN"];
    let Some(separator) = separators.into_iter().find(|n| checkpoint.get(n).is_some()) else {
        return Ok(());
    };
    let positions = checkpoint.get(&format!("{TOWER}embeddings.position_embedding.weight"));
    let member = match positions.map(SourceTensor::n_rows) {
        Some(n) if n == CLIP_GRID * CLIP_GRID + 1 => "InternLM-XComposer2-4KHD",
        _ => "InternLM-XComposer2.5",
    };
    unsupported(member, separator, FIXED_SIZE)
}

fn unsupported(member: &'static str, evidence: &str, hint: &'static str) -> Result<(), ModelError> {
    Err(ModelError::Unsupported {
        member,
        evidence: format!("`{evidence}`"),
        hint,
    })
}

/// The first tensor, in alphabetical order, whose name contains `pattern`.
fn first_named<'a>(checkpoint: &'a Checkpoint, pattern: &str) -> Option<&'a str> {
    let names = checkpoint.tensors().map(|t| &t.name[..]);
    names.filter(|n| n.contains(pattern)).min()
}

/// Refuses features that llama.cpp's `internlm2` graph lacks.
pub(crate) fn refuse_inexpressible(
    checkpoint: &Checkpoint,
    config: &Config,
) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ModelError::Inexpressible { what });
    if config.bias || config.attention_bias {
        return refuse(
            "config.json: `bias: true` (biases in the decoder's linear layers)".to_owned(),
        );
    }
    let is_bias = |n: &&String| n.starts_with("model.layers.") && n.ends_with(".bias");
    if let Some(name) = checkpoint.tensors().map(|t| &t.name).filter(is_bias).min() {
        return refuse(format!("tensor `{name}` (a bias in the decoder)"));
    }
    if let Some(act) = config.hidden_act.as_ref().filter(|a| *a != "silu") {
        return refuse(format!(
            "config.json: `hidden_act: {act}` (expected `silu`)"
        ));
    }
    let Some(scaling) = config.rope_scaling.as_ref().filter(|s| !s.is_null()) else {
        return Ok(());
    };
    // "dynamic" only has an effect beyond `max_position_embeddings`, which contexts never exceed.
    let kind = scaling.get("type").or(scaling.get("rope_type"));
    match kind.and_then(|k| k.as_str()) {
        Some("dynamic" | "default") => Ok(()),
        _ => refuse(format!("config.json: `rope_scaling: {scaling}`")),
    }
}
