//! What is refused, by name: relatives that share names with the models that we convert, and
//! models that the decoder cannot express.

use crate::{
    checkpoint::Checkpoint,
    config::Config,
    model::{CLIP_GRID, ModelError, TOWER},
};

/// Tells apart the relatives that share names with the models that we convert.
pub(crate) fn refuse_relatives(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
    let unsupported = |member, evidence: &str, hint| {
        Err(ModelError::Unsupported {
            member,
            evidence: format!("`{evidence}`"),
            hint,
        })
    };
    const UNQUANTIZED: &str =
        "convert the unquantized checkpoint; --q4_k makes a smaller file than this one";
    let method = config
        .quantization_config
        .as_ref()
        .and_then(|q| q.get("quant_method"));
    if method.and_then(|m| m.as_str()) == Some("awq") {
        return unsupported("AWQ-quantized", "quant_method: awq", UNQUANTIZED);
    }
    let named = |pattern: &str| {
        checkpoint
            .tensors()
            .map(|t| &t.name)
            .filter(|n| n.contains(pattern))
            .min()
    };
    if let Some(name) = named(".qweight") {
        return unsupported("GPTQ-quantized", name, UNQUANTIZED);
    }
    const CLASS: &str = "InternLMXComposer2ForCausalLM";
    let mapped = config
        .auto_map
        .values()
        .any(|v| v.to_string().contains(CLASS));
    if !mapped && !config.architectures.iter().any(|a| a == CLASS) {
        return Err(ModelError::OtherFamily {
            expected: "`InternLMXComposer2ForCausalLM` in `auto_map` or `architectures` of config.json",
            found: format!("{:?}", config.architectures),
        });
    }
    const FIXED_SIZE: &str = "convert internlm-xcomposer2-vl-7b or -vl-1_8b instead";
    for pattern in ["video_mem_proj.", "mplora", "MPlora_"] {
        if let Some(name) = named(pattern) {
            return unsupported("OmniLive (InternLM-XComposer2.5)", name, FIXED_SIZE);
        }
    }
    if checkpoint.get("plora_glb_GN").is_some() || checkpoint.get("plora_sub_GN").is_some() {
        let positions = format!("{TOWER}embeddings.position_embedding.weight");
        let four_k = checkpoint
            .get(&positions)
            .is_some_and(|t| t.n_rows() == CLIP_GRID * CLIP_GRID + 1);
        let member = if four_k {
            "InternLM-XComposer2-4KHD"
        } else {
            "InternLM-XComposer2.5"
        };
        return unsupported(member, "plora_glb_GN", FIXED_SIZE);
    }
    if named("Plora_A").is_none() {
        return Err(ModelError::OtherFamily {
            expected: "Partial-LoRA tensors (`*.Plora_A.weight`)",
            found: "none".to_owned(),
        });
    }
    Ok(())
}

/// Refuses what llama.cpp's `internlm2` graph leaves out.
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
    // "dynamic" acts beyond `max_position_embeddings` only, which contexts never exceed.
    let kind = scaling.get("type").or(scaling.get("rope_type"));
    match kind.and_then(|k| k.as_str()) {
        Some("dynamic" | "default") => Ok(()),
        _ => refuse(format!("config.json: `rope_scaling: {scaling}`")),
    }
}
