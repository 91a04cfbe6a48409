//! Finds the packed linear layers of a checkpoint and puts each in the place of its dense weight.

use std::{collections::HashMap, path::Path};

use serde_json::Value;

use super::{
    CheckpointError, PackedFormat, PackedLinear, SourceTensor, packed::PackedParts, read_json,
};

/// AutoGPTQ's configuration, beside `config.json`.
const GPTQ_CONFIG: &str = "quantize_config.json";

/// Replaces the tensors of each packed layer with one tensor under the name of its dense weight. Returns the layout.
///
/// # Errors
/// If the layout is unsupported, or tensors of a layer are missing or do not fit together.
pub(super) fn join(
    tensors: &mut HashMap<String, SourceTensor>,
    config: &Value,
    dir: &Path,
) -> Result<Option<PackedFormat>, CheckpointError> {
    let names = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".qweight"));
    let mut layers: Vec<String> = names.map(str::to_owned).collect();
    layers.sort();
    let Some(first) = layers.first() else {
        return Ok(None);
    };
    let settings = Settings::read(config, dir)?;
    if !settings.is_known_method() {
        return Ok(None); // refused by name, with the model
    }
    let format = settings.format(&parts(tensors, first)?)?;
    for layer in &layers {
        let linear = PackedLinear::new(format, &parts(tensors, layer)?)?;
        drop_zero_bias(tensors, layer)?;
        let qweight = tensors.remove(&format!("{layer}.qweight"));
        let qweight = qweight.expect("its name was found");
        for part in ["qzeros", "scales", "g_idx"] {
            tensors.remove(&format!("{layer}.{part}"));
        }
        // AutoGPTQ wraps the layer in a module named `linear`.
        let dense = layer.strip_suffix(".linear").unwrap_or(layer);
        let name = format!("{dense}.weight");
        let tensor = SourceTensor::packed_linear(name.clone(), linear, &qweight);
        tensors.insert(name, tensor);
    }
    Ok(Some(format))
}

fn parts<'a>(
    tensors: &'a HashMap<String, SourceTensor>,
    layer: &str,
) -> Result<PackedParts<'a>, CheckpointError> {
    let get = |part: &str| {
        let name = format!("{layer}.{part}");
        let tensor = tensors.get(&name);
        tensor.ok_or(CheckpointError::MissingTensor { name })
    };
    Ok(PackedParts {
        qweight: get("qweight")?,
        qzeros: get("qzeros")?,
        scales: get("scales")?,
        g_idx: tensors.get(&format!("{layer}.g_idx")),
    })
}

/// AutoGPTQ gives every layer a bias, of zeros if the original had none.
fn drop_zero_bias(
    tensors: &mut HashMap<String, SourceTensor>,
    layer: &str,
) -> Result<(), CheckpointError> {
    let Some(bias) = tensors.remove(&format!("{layer}.bias")) else {
        return Ok(());
    };
    match bias.to_f32()?.iter().find(|value| **value != 0.0) {
        None => Ok(()),
        Some(found) => Err(CheckpointError::Packed {
            name: format!("tensor `{}`", bias.name),
            expected: "zeros, because the decoder has no biases".to_owned(),
            found: found.to_string(),
        }),
    }
}

/// How a checkpoint was quantized, by its configuration.
struct Settings {
    /// Name of the file.
    file: &'static str,
    values: Value,
}

impl Settings {
    fn read(config: &Value, dir: &Path) -> Result<Self, CheckpointError> {
        match read_json(&dir.join(GPTQ_CONFIG)) {
            Ok(values) => Ok(Self {
                file: GPTQ_CONFIG,
                values,
            }),
            Err(CheckpointError::MissingFile { .. }) => Ok(Self {
                file: "config.json: `quantization_config`",
                values: config
                    .get("quantization_config")
                    .cloned()
                    .unwrap_or_default(),
            }),
            Err(error) => Err(error),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        let text = self.values.get(key)?.as_str()?;
        Some(text.to_ascii_lowercase())
    }

    fn is_known_method(&self) -> bool {
        let method = self.text("quant_method");
        method.is_none_or(|method| method == "gptq" || method == "awq")
    }

    /// The layout. The shapes tell GPTQ from AWQ; the configuration must not contradict.
    fn format(&self, parts: &PackedParts<'_>) -> Result<PackedFormat, CheckpointError> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(CheckpointError::Packed {
                name: format!("{}: `{key}`", self.file),
                expected: expected.to_owned(),
                found,
            })
        };
        let bits = self.values.get("bits").or(self.values.get("w_bit"));
        if let Some(bits) = bits.filter(|bits| bits.as_u64() != Some(4)) {
            return refuse("bits", "4", bits.to_string());
        }
        let is_gptq =
            parts.g_idx.is_some() || parts.qweight.shape.get(1) == parts.scales.shape.get(1);
        if !is_gptq {
            return match self.text("version") {
                Some(version) if version != "gemm" => refuse("version", "`gemm`", version),
                _ => Ok(PackedFormat::Awq),
            };
        }
        match self.text("checkpoint_format").as_deref() {
            None | Some("gptq") => Ok(PackedFormat::Gptq {
                stored_minus_one: true,
            }),
            Some("gptq_v2") => Ok(PackedFormat::Gptq {
                stored_minus_one: false,
            }),
            Some(other) => refuse("checkpoint_format", "`gptq` or `gptq_v2`", other.to_owned()),
        }
    }
}
