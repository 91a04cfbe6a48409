//! Which member of the family a checkpoint is, and its sizes.
//!
//! Tensors are asked first, `config.json` second: its `model_type` and `architectures` vary
//! between copies of the same model. Sizes come from shapes; what only the configuration knows
//! (heads, rotary base, epsilon) is read from there and checked against the shapes where it can be.

use serde::Deserialize;
use xc2_edge::container::Family;

use crate::checkpoint::{Checkpoint, CheckpointError, SourceTensor};

/// Why a checkpoint cannot be converted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ModelError {
    /// A file or tensor is not what it should be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model of another family altogether.
    #[error("not an InternLM-XComposer2 checkpoint: expected {expected}, found {found}")]
    OtherFamily {
        expected: &'static str,
        found: String,
    },
    /// A relative that is not supported.
    #[error("{member} checkpoints are not supported yet (recognised by {evidence})")]
    Unsupported {
        member: &'static str,
        evidence: String,
        hint: &'static str,
    },
    /// A value in `config.json` that is missing or contradicts the tensors.
    #[error("config.json: `{key}`: expected {expected}, found {found}")]
    Config {
        key: &'static str,
        expected: String,
        found: String,
    },
    /// The model needs something that the decoder does not compute.
    #[error("{what}: the decoder cannot express it; it would give wrong answers without")]
    Inexpressible { what: String },
}

impl ModelError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Checkpoint(e) => e.hint(),
            Self::OtherFamily { .. } => Some(
                "this converter reads internlm-xcomposer2-7b, -vl-7b, -vl-1_8b and fine-tunes of them",
            ),
            Self::Unsupported { hint, .. } => Some(hint),
            Self::Config { .. } => {
                Some("`config.json` and the weights may come from different models")
            }
            Self::Inexpressible { .. } => None,
        }
    }
}

/// A checkpoint understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Comprehension or composition.
    pub family: Family,
    /// The language model.
    pub decoder: Decoder,
    /// The vision tower.
    pub vision: Vision,
    /// Width of the projector's hidden layer.
    pub n_projector: usize,
    /// Whether the output matrix is the embedding matrix.
    pub tied_embeddings: bool,
}

/// Sizes and constants of the language model.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Decoder {
    pub n_vocab: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub d_head: usize,
    pub n_ff: usize,
    pub rope_freq_base: f32,
    pub rms_eps: f32,
    /// The longest context that the rotary embedding was made for.
    pub n_ctx_train: usize,
    /// The longest sequence that the published code lets through.
    pub max_length: usize,
}

impl Decoder {
    /// Rows of the fused query, key and value matrix.
    pub fn n_qkv(&self) -> usize {
        (self.n_head + 2 * self.n_head_kv) * self.d_head
    }
}

/// Sizes of the vision tower.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Vision {
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_ff: usize,
    pub patch_size: usize,
    pub image_size: usize,
    /// Patches along an edge in the stored position table, which may be made for another size.
    pub stored_grid: usize,
}

impl Vision {
    /// Patches along an edge of a picture.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// Prefix of the tower's tensors.
pub const TOWER: &str = "vit.vision_tower.vision_model.";
/// Width of a head of the tower: CLIP's, in all sizes.
const VISION_D_HEAD: usize = 64;
/// The grid of the CLIP that the towers were started from; its table may be stored unresized.
const CLIP_GRID: usize = 24;
/// The composition model sees pictures of this size, the comprehension models of 490; the
/// checkpoints differ in nothing else.
const COMPOSITION_IMAGE: usize = 224;

/// What is used of `config.json`; everything may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    auto_map: serde_json::Map<String, serde_json::Value>,
    architectures: Vec<String>,
    bias: bool,
    attention_bias: bool,
    hidden_act: Option<String>,
    rope_scaling: Option<serde_json::Value>,
    rope_theta: Option<f32>,
    rms_norm_eps: Option<f32>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    img_size: Option<usize>,
    max_length: Option<usize>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: bool,
    quantization_config: Option<serde_json::Value>,
}

impl Model {
    /// Recognises the model of a checkpoint. `family` overrules the guess from the image size.
    ///
    /// # Errors
    /// If it is not one that can be converted: which it is, or what contradicts what.
    pub fn detect(checkpoint: &Checkpoint, family: Option<Family>) -> Result<Self, ModelError> {
        let config = Config::deserialize(checkpoint.config()).map_err(|source| {
            let path = checkpoint.dir().join("config.json");
            CheckpointError::Json { path, source }
        })?;
        refuse_relatives(checkpoint, &config)?;
        refuse_inexpressible(checkpoint, &config)?;
        let vision = read_vision(checkpoint, &config)?;
        let decoder = read_decoder(checkpoint, &config)?;
        let by_size = if vision.image_size == COMPOSITION_IMAGE {
            Family::Composition
        } else {
            Family::Vl
        };
        Ok(Self {
            family: family.unwrap_or(by_size),
            decoder,
            vision,
            n_projector: matrix(checkpoint, "vision_proj.0.weight")?.0,
            tied_embeddings: config.tie_word_embeddings
                && checkpoint.get("output.weight").is_none(),
        })
    }
}

/// Tells apart the relatives that share names with the models that we convert.
fn refuse_relatives(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
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
fn refuse_inexpressible(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
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

fn read_decoder(checkpoint: &Checkpoint, config: &Config) -> Result<Decoder, ModelError> {
    let (n_vocab, n_embd) = matrix(checkpoint, "model.tok_embeddings.weight")?;
    let (n_ff, _) = matrix(checkpoint, "model.layers.0.feed_forward.w1.weight")?;
    let n_layer = count_layers(checkpoint, "model.layers.");
    agree("hidden_size", config.hidden_size, n_embd)?;
    agree("intermediate_size", config.intermediate_size, n_ff)?;
    agree("num_hidden_layers", config.num_hidden_layers, n_layer)?;
    let n_head = required("num_attention_heads", config.num_attention_heads)?;
    let n_head_kv = config.num_key_value_heads.unwrap_or(n_head);
    let divides = |n: usize, d: usize| d > 0 && n.is_multiple_of(d);
    if !divides(n_embd, n_head) || (n_embd / n_head) % 2 != 0 {
        let expected = format!("a number that divides {n_embd} into even parts");
        return Err(config_error("num_attention_heads", expected, n_head));
    }
    if !divides(n_head, n_head_kv) {
        let expected = format!("a number that divides {n_head} heads");
        return Err(config_error("num_key_value_heads", expected, n_head_kv));
    }
    let d_head = n_embd / n_head;
    agree("head_dim", config.head_dim, d_head)?;
    let n_ctx_train = required("max_position_embeddings", config.max_position_embeddings)?;
    let decoder = Decoder {
        n_vocab,
        n_embd,
        n_layer,
        n_head,
        n_head_kv,
        d_head,
        n_ff,
        rope_freq_base: required("rope_theta", config.rope_theta)?,
        rms_eps: required("rms_norm_eps", config.rms_norm_eps)?,
        n_ctx_train,
        max_length: config.max_length.unwrap_or(n_ctx_train),
    };
    // The heads are the configuration's word; this is where the tensors can contradict it.
    let wqkv = checkpoint.require("model.layers.0.attention.wqkv.weight")?;
    let expected = vec![decoder.n_qkv(), n_embd];
    if wqkv.shape == expected {
        Ok(decoder)
    } else {
        Err(shape_error(wqkv, expected).into())
    }
}

fn read_vision(checkpoint: &Checkpoint, config: &Config) -> Result<Vision, ModelError> {
    let name = |rest: &str| format!("{TOWER}{rest}");
    let positions = name("embeddings.position_embedding.weight");
    let (n_positions, n_embd) = matrix(checkpoint, &positions)?;
    let kernel = checkpoint.require(&name("embeddings.patch_embedding.weight"))?;
    let patch_size = match kernel.shape[..] {
        [_, 3, height, width] if height == width && height > 0 => height,
        _ => return Err(shape_error(kernel, vec![n_embd, 3, 14, 14]).into()),
    };
    let grid = (n_positions.max(1) - 1).isqrt();
    if grid == 0 || grid * grid + 1 != n_positions {
        let nearest = grid.max(1) * grid.max(1) + 1;
        let table = checkpoint.require(&positions)?;
        return Err(shape_error(table, vec![nearest, n_embd]).into());
    }
    let image_size = config.img_size.unwrap_or(grid * patch_size);
    let resizable = grid == CLIP_GRID && image_size > 0 && image_size.is_multiple_of(patch_size);
    if image_size != grid * patch_size && !resizable {
        let expected = format!(
            "{} (a position table of {grid} x {grid} patches)",
            grid * patch_size
        );
        return Err(config_error("img_size", expected, image_size));
    }
    if n_embd == 0 || n_embd % VISION_D_HEAD != 0 {
        let kernel_shape = vec![
            n_embd.next_multiple_of(VISION_D_HEAD),
            3,
            patch_size,
            patch_size,
        ];
        return Err(shape_error(kernel, kernel_shape).into());
    }
    Ok(Vision {
        n_embd,
        n_layer: count_layers(checkpoint, &name("encoder.layers.")),
        n_head: n_embd / VISION_D_HEAD,
        n_ff: matrix(checkpoint, &name("encoder.layers.0.mlp.fc1.weight"))?.0,
        patch_size,
        image_size,
        stored_grid: grid,
    })
}

/// One more than the largest number that follows `prefix`; a gap shows as a missing tensor later.
fn count_layers(checkpoint: &Checkpoint, prefix: &str) -> usize {
    let number = |t: &SourceTensor| {
        t.name
            .strip_prefix(prefix)?
            .split('.')
            .next()?
            .parse::<usize>()
            .ok()
    };
    // A name such as `layers.4000000000` must not make a list of that length.
    let numbers = checkpoint
        .tensors()
        .filter_map(number)
        .filter(|n| *n < 10_000);
    numbers.max().map_or(0, |n| n + 1)
}

/// Rows and columns of a matrix.
fn matrix(checkpoint: &Checkpoint, name: &str) -> Result<(usize, usize), CheckpointError> {
    let tensor = checkpoint.require(name)?;
    match tensor.shape[..] {
        [rows, cols] if rows > 0 && cols > 0 => Ok((rows, cols)),
        _ => Err(shape_error(
            tensor,
            vec![tensor.n_rows().max(1), tensor.row_len().max(1)],
        )),
    }
}

fn shape_error(tensor: &SourceTensor, expected: Vec<usize>) -> CheckpointError {
    CheckpointError::Shape {
        name: tensor.name.clone(),
        expected,
        found: tensor.shape.clone(),
    }
}

fn required<T>(key: &'static str, value: Option<T>) -> Result<T, ModelError> {
    value.ok_or_else(|| config_error(key, "a number".to_owned(), "none"))
}

fn agree(key: &'static str, value: Option<usize>, in_tensors: usize) -> Result<(), ModelError> {
    match value {
        Some(value) if value != in_tensors => Err(config_error(
            key,
            format!("{in_tensors}, as the tensors have it"),
            value,
        )),
        _ => Ok(()),
    }
}

fn config_error(key: &'static str, expected: String, found: impl std::fmt::Display) -> ModelError {
    ModelError::Config {
        key,
        expected,
        found: found.to_string(),
    }
}
