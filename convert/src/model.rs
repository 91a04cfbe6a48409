//! Recognises which model of the family a checkpoint is, and its sizes.
//!
//! Tensors take precedence over `config.json`, whose `model_type` and `architectures` vary between copies of the
//! same model. Sizes come from shapes. Values that only the configuration has (heads, rotary base, epsilon) are
//! read from there and compared with the shapes where possible.

use xc2_edge::model::{
    MERGE, Tiling,
    container::{Family, Task},
};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, SourceTensor},
    config::{self, Config},
    family::{refuse_inexpressible, refuse_relatives},
};

/// Why a checkpoint cannot be converted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ModelError {
    /// A file or tensor is invalid.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model of another family.
    #[error("not an InternLM-XComposer2 checkpoint: expected {expected}, found {found}")]
    OtherFamily {
        expected: &'static str,
        found: String,
    },
    /// A related model that is not supported.
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
    /// A family was given that the tensors contradict.
    #[error(
        "--family {asked}: expected no such option, because the tensors are those of a {found} model"
    )]
    Family {
        asked: &'static str,
        found: &'static str,
    },
    /// The task needs adapters that the checkpoint does not have.
    #[error("--mode {mode}: expected tensors such as `{expected}`, found none")]
    NoAdapters {
        mode: &'static str,
        expected: String,
    },
    /// Embeddings were resized without the output matrix, or the other way round.
    #[error(
        "tensor `output.weight`: expected {n_vocab} rows, as many as `model.tok_embeddings.weight` \
         has, found {n_output}"
    )]
    OutputRows { n_vocab: usize, n_output: usize },
    /// The model needs something that the decoder does not compute.
    #[error("{what}: not supported by the decoder; answers would be wrong without it")]
    Inexpressible { what: String },
}

impl ModelError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Checkpoint(e) => e.hint(),
            Self::OtherFamily { .. } => Some(
                "this converter reads internlm-xcomposer2-7b, -vl-7b, -vl-1_8b, -4khd-7b, internlm-xcomposer2d5-7b, \
                 and fine-tunes of them",
            ),
            Self::Unsupported { hint, .. } => Some(hint),
            Self::Config { .. } => {
                Some("`config.json` and the weights may come from different models")
            }
            Self::OutputRows { .. } => Some(
                "resize both in transformers (`resize_token_embeddings`), or use the checkpoint from before \
                 the resize",
            ),
            Self::NoAdapters { .. } => Some(
                "only internlm-xcomposer2d5-7b and its 4-bit version have adapters for articles and web pages",
            ),
            Self::Inexpressible { .. } | Self::Family { .. } => None,
        }
    }
}

/// A recognised model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Comprehension or composition.
    pub family: Family,
    /// The language model.
    pub decoder: Decoder,
    /// The vision tower.
    pub vision: Vision,
    /// The task whose adapters are merged into the decoder.
    pub task: Task,
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
    /// The longest context that the rotary embedding was trained for.
    pub n_ctx_train: usize,
    /// The longest sequence that the published code accepts.
    pub max_length: usize,
    /// Factor of dynamic rotary scaling beyond `n_ctx_train`.
    pub rope_dynamic_factor: Option<f32>,
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
    /// Patches along an edge in the stored position table, which may be for another size.
    pub stored_grid: usize,
    /// How pictures are cut into tiles.
    pub tiling: Option<Tiling>,
}

impl Vision {
    /// Patches along an edge of a picture.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Width of the projector's input.
    pub fn n_projector_in(&self) -> usize {
        match self.tiling {
            None => self.n_embd,
            Some(_) => MERGE * MERGE * self.n_embd,
        }
    }
}

/// Upper limit of plausible layer numbers.
const MAX_LAYERS: usize = 10_000;
/// Prefix of the tower's tensors.
pub const TOWER: &str = "vit.vision_tower.vision_model.";
/// Head width of the tower: the same in all sizes of CLIP.
const VISION_D_HEAD: usize = 64;
/// Grid of the CLIP model that the towers were initialised from; its table may be stored unresized.
pub(crate) const CLIP_GRID: usize = 24;
/// Picture size of the composition model; the comprehension models use 490. The checkpoints do not differ
/// otherwise.
const COMPOSITION_IMAGE: usize = 224;
/// Upper limit of picture sizes for which a position table is resized: 16 times the patches of 490.
const MAX_IMAGE: usize = 1960;

impl Model {
    /// Recognises the model of a checkpoint. `family` overrides the guess from the image size.
    ///
    /// # Errors
    /// If it cannot be converted: says which model it is, or which values contradict each other.
    pub fn detect(
        checkpoint: &Checkpoint,
        family: Option<Family>,
        task: Task,
    ) -> Result<Self, ModelError> {
        let config = Config::read(checkpoint)?;
        refuse_relatives(checkpoint, &config)?;
        refuse_inexpressible(checkpoint, &config)?;
        let vision = read_vision(checkpoint, &config)?;
        let decoder = read_decoder(checkpoint, &config)?;
        let recognised = match vision.tiling {
            Some(Tiling::Khd4) => Family::Khd4,
            Some(Tiling::V2d5) => Family::V2d5,
            None if vision.image_size == COMPOSITION_IMAGE => Family::Composition,
            None => Family::Vl,
        };
        if let (Some(family), Some(_)) = (family, vision.tiling) {
            return Err(ModelError::Family {
                asked: family.name(),
                found: recognised.name(),
            });
        }
        Ok(Self {
            family: family.unwrap_or(recognised),
            task,
            decoder,
            vision,
            n_projector: matrix(checkpoint, "vision_proj.0.weight")?.0,
            tied_embeddings: config.tie_word_embeddings
                && checkpoint.get("output.weight").is_none(),
        })
    }
}

fn read_decoder(checkpoint: &Checkpoint, config: &Config) -> Result<Decoder, ModelError> {
    let (n_vocab, n_embd) = matrix(checkpoint, "model.tok_embeddings.weight")?;
    check_output_rows(checkpoint, n_vocab, n_embd)?;
    let (n_ff, _) = matrix(checkpoint, "model.layers.0.feed_forward.w1.weight")?;
    let n_layer = count_layers(checkpoint, "model.layers.");
    config::agree("hidden_size", config.hidden_size, n_embd)?;
    config::agree("intermediate_size", config.intermediate_size, n_ff)?;
    config::agree("num_hidden_layers", config.num_hidden_layers, n_layer)?;
    let (n_head, n_head_kv) = read_heads(checkpoint, config, n_embd)?;
    let longest = config.max_position_embeddings;
    let n_ctx_train = config::context("max_position_embeddings", longest)?;
    let max_length = config.max_length.unwrap_or(n_ctx_train).min(n_ctx_train);
    Ok(Decoder {
        n_vocab,
        n_embd,
        n_layer,
        n_head,
        n_head_kv,
        d_head: n_embd / n_head,
        n_ff,
        rope_freq_base: config::positive("rope_theta", config.rope_theta)?,
        rms_eps: config::positive("rms_norm_eps", config.rms_norm_eps)?,
        n_ctx_train,
        max_length: config::context("max_length", Some(max_length))?,
        rope_dynamic_factor: config.dynamic_factor()?,
    })
}

/// Checks that the output matrix has as many rows as the embeddings.
fn check_output_rows(
    checkpoint: &Checkpoint,
    n_vocab: usize,
    n_embd: usize,
) -> Result<(), ModelError> {
    match checkpoint.get("output.weight").map(|t| &t.shape[..]) {
        Some(&[n_output, cols]) if n_output != n_vocab && cols == n_embd => {
            Err(ModelError::OutputRows { n_vocab, n_output })
        }
        _ => Ok(()), // missing or of another shape: refused later with the other tensors
    }
}

/// Numbers of query heads and of key and value heads, from the configuration; the rows of `wqkv` must agree.
fn read_heads(
    checkpoint: &Checkpoint,
    config: &Config,
    n_embd: usize,
) -> Result<(usize, usize), ModelError> {
    let divides = |n: usize, d: usize| d > 0 && n.is_multiple_of(d);
    let n_head = config.num_attention_heads.unwrap_or(0);
    if !divides(n_embd, n_head) || !(n_embd / n_head).is_multiple_of(2) {
        let expected = format!("a number that divides {n_embd} into even parts");
        return Err(config::error("num_attention_heads", expected, n_head));
    }
    let n_head_kv = config.num_key_value_heads.unwrap_or(n_head);
    if !divides(n_head, n_head_kv) {
        let expected = format!("a number that divides {n_head} heads");
        return Err(config::error("num_key_value_heads", expected, n_head_kv));
    }
    let d_head = n_embd / n_head;
    if let Some(found) = config.head_dim.filter(|found| *found != d_head) {
        let what = format!(
            "config.json: `head_dim: {found}` (expected {d_head}, a width of {n_embd} \
             in {n_head} heads)"
        );
        return Err(ModelError::Inexpressible { what });
    }
    let wqkv = checkpoint.require("model.layers.0.attention.wqkv.weight")?;
    let expected = vec![(n_head + 2 * n_head_kv) * d_head, n_embd];
    if wqkv.shape == expected {
        Ok((n_head, n_head_kv))
    } else {
        Err(shape_error(wqkv, expected).into())
    }
}

fn read_vision(checkpoint: &Checkpoint, config: &Config) -> Result<Vision, ModelError> {
    let name = |rest: &str| format!("{TOWER}{rest}");
    let positions = name("embeddings.position_embedding.weight");
    let (n_positions, n_embd) = matrix(checkpoint, &positions)?;
    if !n_embd.is_multiple_of(VISION_D_HEAD) {
        let what = format!(
            "a vision tower of width {n_embd} (not a multiple of the head width {VISION_D_HEAD})"
        );
        return Err(ModelError::Inexpressible { what });
    }
    let kernel = checkpoint.require(&name("embeddings.patch_embedding.weight"))?;
    let patch_size = match kernel.shape[..] {
        [_, 3, height, width] if height == width && height > 0 => height,
        _ => return Err(shape_error(kernel, vec![n_embd, 3, 14, 14]).into()),
    };
    let grid = (n_positions - 1).isqrt();
    if grid == 0 || grid * grid + 1 != n_positions {
        let nearest = grid.max(1).pow(2) + 1;
        let table = checkpoint.require(&positions)?;
        return Err(shape_error(table, vec![nearest, n_embd]).into());
    }
    let tiling = read_tiling(checkpoint, n_positions, n_embd)?;
    Ok(Vision {
        n_embd,
        n_layer: count_layers(checkpoint, &name("encoder.layers.")),
        n_head: n_embd / VISION_D_HEAD,
        n_ff: matrix(checkpoint, &name("encoder.layers.0.mlp.fc1.weight"))?.0,
        patch_size,
        image_size: match tiling {
            None => read_image_size(config, grid, patch_size)?,
            Some(_) => grid * patch_size,
        },
        stored_grid: grid,
        tiling,
    })
}

/// The separators of models with tiles; despite the names, they are not part of Partial-LoRA.
pub const ROW_SEPARATOR: &str = "plora_sub_GN";
/// See [`ROW_SEPARATOR`].
pub const VIEW_SEPARATOR: &str = "plora_glb_GN";

/// How pictures are cut into tiles, by the separators and the size of the position table.
fn read_tiling(
    checkpoint: &Checkpoint,
    n_positions: usize,
    n_embd: usize,
) -> Result<Option<Tiling>, ModelError> {
    if [ROW_SEPARATOR, VIEW_SEPARATOR]
        .iter()
        .all(|name| checkpoint.get(name).is_none())
    {
        return Ok(None);
    }
    for name in [ROW_SEPARATOR, VIEW_SEPARATOR] {
        let separator = checkpoint.require(name)?;
        let n = MERGE * MERGE * n_embd;
        if separator.n_elements() != n {
            return Err(shape_error(separator, vec![1, 1, n]).into());
        }
    }
    match n_positions {
        KHD4_POSITIONS => Ok(Some(Tiling::Khd4)),
        V2D5_POSITIONS => Ok(Some(Tiling::V2d5)),
        found => Err(ModelError::Inexpressible {
            what: format!(
                "a model with tiles and a position table of {found} rows (expected {KHD4_POSITIONS} for \
                 InternLM-XComposer2-4KHD or {V2D5_POSITIONS} for 2.5)"
            ),
        }),
    }
}

/// Rows of the position table: of tiles of 336 and of 560 pixels.
const KHD4_POSITIONS: usize = 24 * 24 + 1;
const V2D5_POSITIONS: usize = 40 * 40 + 1;

/// The picture size: that of the position table or, if the table is CLIP's, the size in the configuration.
fn read_image_size(config: &Config, grid: usize, patch_size: usize) -> Result<usize, ModelError> {
    let stored = grid * patch_size;
    let wanted = config.img_size.unwrap_or(stored);
    let whole_patches = wanted > 0 && wanted.is_multiple_of(patch_size);
    if wanted == stored || (grid == CLIP_GRID && whole_patches && wanted <= MAX_IMAGE) {
        return Ok(wanted);
    }
    let expected = format!("{stored} (a position table of {grid} x {grid} patches)");
    Err(config::error("img_size", expected, wanted))
}

/// One more than the largest number after `prefix`; a gap is reported later as a missing tensor.
fn count_layers(checkpoint: &Checkpoint, prefix: &str) -> usize {
    let number = |t: &SourceTensor| {
        let (number, _) = t.name.strip_prefix(prefix)?.split_once('.')?;
        // A name such as `layers.4000000000` must not create a list of that length.
        number.parse().ok().filter(|n: &usize| *n < MAX_LAYERS)
    };
    let last = checkpoint.tensors().filter_map(number).max();
    last.map_or(0, |n| n + 1)
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
