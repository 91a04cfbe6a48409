//! Checkpoints that are refused: related models that share names with the ones we convert, and models that the
//! decoder cannot express.

use crate::{checkpoint::Checkpoint, config::Config, model::ModelError};

/// The class in `auto_map`, or at least in `architectures`, of every supported model.
const CLASS: &str = "InternLMXComposer2ForCausalLM";
const UNQUANTIZED: &str =
    "convert the unquantized checkpoint; --q4_k makes a smaller file than this one";
const BASE: &str =
    "it does not answer questions about pictures; convert internlm-xcomposer2d5-7b instead";

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
    refuse_members(checkpoint)?;
    if first_named(checkpoint, "Plora_A").is_none() {
        return Err(ModelError::OtherFamily {
            expected: "Partial-LoRA tensors (`*.Plora_A.weight`)",
            found: "none".to_owned(),
        });
    }
    Ok(())
}

/// Quantized layouts that cannot be read, by the name in `quant_method`, and how people call them.
const QUANTIZED: [(&str, &str); 12] = [
    ("bitsandbytes", "bitsandbytes-quantized"),
    ("eetq", "EETQ-quantized"),
    ("hqq", "HQQ-quantized"),
    ("compressed-tensors", "compressed-tensors"),
    ("fp8", "FP8-quantized"),
    ("fbgemm_fp8", "FP8-quantized"),
    ("finegrained_fp8", "FP8-quantized"),
    ("quanto", "Quanto-quantized"),
    ("aqlm", "AQLM-quantized"),
    ("torchao", "TorchAO-quantized"),
    ("exl2", "EXL2-quantized"),
    ("marlin", "Marlin-quantized"),
];

/// Parts of the names of tensors that only these layouts have.
const QUANTIZED_NAMES: [(&str, &str); 6] = [
    (".absmax", "bitsandbytes-quantized"),
    (".quant_map", "bitsandbytes-quantized"),
    (".quant_state", "bitsandbytes-quantized"),
    (".SCB", "bitsandbytes-quantized"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_inv", "FP8-quantized"),
];

fn refuse_quantized(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
    let quantization = config.quantization_config.as_ref();
    let method = quantization.and_then(|q| q.get("quant_method")?.as_str());
    if let Some(method) = method {
        let known = QUANTIZED.iter().find(|(name, _)| *name == method);
        if let Some((_, member)) = known {
            return unsupported(member, &format!("quant_method: {method}"), UNQUANTIZED);
        }
    }
    for (pattern, member) in QUANTIZED_NAMES {
        if let Some(name) = first_named(checkpoint, pattern) {
            return unsupported(member, name, UNQUANTIZED);
        }
    }
    // Packed layers have been replaced with their weights.
    match first_named(checkpoint, ".qweight") {
        Some(name) => unsupported("quantized", name, UNQUANTIZED),
        None => Ok(()),
    }
}

/// Refuses members of the family that are not for chat or composition.
fn refuse_members(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    for pattern in ["mplora", "MPlora_"] {
        if let Some(name) = first_named(checkpoint, pattern) {
            return unsupported("OmniLive with memory (InternLM-XComposer2.5)", name, BASE);
        }
    }
    if let Some(name) = first_named(checkpoint, "v_head").or(first_named(checkpoint, "score.")) {
        return unsupported("reward model (InternLM-XComposer2.5-Reward)", name, BASE);
    }
    Ok(())
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
