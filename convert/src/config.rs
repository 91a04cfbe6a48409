//! The fields of `config.json` that we use, and checks of their values.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    model::ModelError,
};

/// The fields of `config.json` that we use; all are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    #[serde(deserialize_with = "null_is_absent")]
    pub auto_map: serde_json::Map<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_absent")]
    pub architectures: Vec<String>,
    #[serde(deserialize_with = "null_is_absent")]
    pub bias: bool,
    #[serde(deserialize_with = "null_is_absent")]
    pub attention_bias: bool,
    pub hidden_act: Option<String>,
    pub rope_scaling: Option<serde_json::Value>,
    pub rope_theta: Option<f32>,
    pub rms_norm_eps: Option<f32>,
    pub hidden_size: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub img_size: Option<usize>,
    pub max_length: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    #[serde(deserialize_with = "null_is_absent")]
    pub tie_word_embeddings: bool,
    pub quantization_config: Option<serde_json::Value>,
}

impl Config {
    /// Reads the checkpoint's configuration.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let config = checkpoint.config();
        Self::deserialize(config).map_err(|source| {
            let path = checkpoint.dir().join("config.json");
            match first_bad_key(config) {
                Some((key, source)) => CheckpointError::JsonValue { path, key, source },
                None => CheckpointError::Json { path, source },
            }
        })
    }
}

impl Config {
    /// The factor of dynamic rotary scaling, if there is one.
    pub fn dynamic_factor(&self) -> Result<Option<f32>, ModelError> {
        let Some(scaling) = &self.rope_scaling else {
            return Ok(None);
        };
        let kind = scaling.get("type").or(scaling.get("rope_type"));
        if kind.and_then(|k| k.as_str()) != Some("dynamic") {
            return Ok(None);
        }
        let factor = scaling
            .get("factor")
            .and_then(serde_json::Value::as_f64)
            .unwrap_or(1.0) as f32;
        match factor {
            factor if factor.is_finite() && factor >= 1.0 => Ok(Some(factor)),
            factor => Err(error(
                "rope_scaling.factor",
                "a number of at least 1",
                factor,
            )),
        }
    }
}

/// Some programs write `null` for "not set".
fn null_is_absent<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// The first key whose value has the wrong type. The parser does not say which, so each is tried alone.
fn first_bad_key(config: &serde_json::Value) -> Option<(String, serde_json::Error)> {
    config.as_object()?.iter().find_map(|(key, value)| {
        let alone = serde_json::json!({ key: value });
        let error = Config::deserialize(&alone).err()?;
        Some((key.clone(), error))
    })
}

/// Upper limit of plausible context lengths; larger numbers would only fail later.
const MAX_CONTEXT: usize = 1 << 24;

/// A required context length.
pub(crate) fn context(key: &'static str, value: Option<usize>) -> Result<usize, ModelError> {
    let in_range = value.filter(|n| (1..=MAX_CONTEXT).contains(n));
    in_range.ok_or_else(|| {
        let found = value.map_or("none".to_owned(), |n| n.to_string());
        error(key, format!("1 to {MAX_CONTEXT}"), found)
    })
}

/// A required positive constant of the model.
pub(crate) fn positive(key: &'static str, value: Option<f32>) -> Result<f32, ModelError> {
    let usable = value.filter(|x| x.is_finite() && *x > 0.0);
    usable.ok_or_else(|| {
        let found = value.map_or("none".to_owned(), |x| x.to_string());
        error(key, "a positive number", found)
    })
}

/// Checks that a size equals the one in the tensors.
pub(crate) fn agree(
    key: &'static str,
    value: Option<usize>,
    in_tensors: usize,
) -> Result<(), ModelError> {
    match value {
        Some(value) if value != in_tensors => {
            let expected = format!("{in_tensors}, as in the tensors");
            Err(error(key, expected, value))
        }
        _ => Ok(()),
    }
}

/// The error for an invalid value.
pub(crate) fn error(
    key: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> ModelError {
    ModelError::Config {
        key,
        expected: expected.into(),
        found: found.to_string(),
    }
}
