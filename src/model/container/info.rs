//! The metadata of a model, typed and checked.

use super::{ContainerError, keys};
use crate::model::{
    Tiling, VisionConfig,
    gguf::{GgufError, Metadata},
};

/// Kind of model. It decides the default system text and what the model was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Comprehension: captions, questions, chat (`internlm-xcomposer2-vl-*`).
    Vl,
    /// Text-image composition (`internlm-xcomposer2-7b`).
    Composition,
    /// Comprehension at high resolution (`internlm-xcomposer2-4khd-7b`).
    Khd4,
    /// Comprehension at high resolution, several pictures, videos, articles (`internlm-xcomposer2d5-7b`).
    V2d5,
}

impl Family {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Vl, Self::Composition, Self::Khd4, Self::V2d5];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vl => "vl",
            Self::Composition => "composition",
            Self::Khd4 => "4khd",
            Self::V2d5 => "2.5",
        }
    }

    /// The family with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }
}

/// A task of the 2.5 models. They have adapters on all tokens for some tasks, which the converter merges into the
/// decoder's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// Comprehension: no further adapter.
    #[default]
    Base,
    /// Articles: `lora_sft` and `lora_dpo`.
    Write,
    /// Web pages: `lora_web`.
    Web,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 3] = [Self::Base, Self::Write, Self::Web];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Write => "write",
            Self::Web => "web",
        }
    }

    /// The task with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// Normalisation of pixels for the tower.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Channel means (RGB, values in 0..1).
    pub image_mean: [f32; 3],
    /// Channel standard deviations.
    pub image_std: [f32; 3],
}

/// Where `<s>` is inserted in a prompt with pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BosRule {
    /// Before every non-empty piece of text, as the published `chat()` does.
    EverySegment,
    /// Once, at the start, as the evaluation and composition code does.
    Once,
}

impl BosRule {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::EverySegment => "every_segment",
            Self::Once => "once",
        }
    }

    /// The rule with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::EverySegment, Self::Once]
            .into_iter()
            .find(|r| r.name() == name)
    }
}

/// Where pictures without placeholders are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmarkedImage {
    /// At the start of the query.
    #[default]
    Query,
    /// A single picture before the whole prompt, after `<s>`; several at the start of the query, numbered. As
    /// InternLM-XComposer2.5.
    Prompt,
}

impl UnmarkedImage {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Prompt => "prompt",
        }
    }

    /// The place with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Query, Self::Prompt]
            .into_iter()
            .find(|r| r.name() == name)
    }
}

/// The prompt format that the model was trained with.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptInfo {
    /// Default system text; empty for none.
    pub system: String,
    /// Placeholder of a picture in a query.
    pub image_marker: String,
    /// Token that opens a turn.
    pub turn_start: i32,
    /// Token that ends a turn; a stop token.
    pub turn_end: i32,
    /// `<s>`.
    pub bos: i32,
    /// `</s>`; a stop token.
    pub eos: i32,
    /// Where `<s>` is inserted.
    pub bos_rule: BosRule,
    /// Where pictures without placeholders are placed.
    pub unmarked_image: UnmarkedImage,
}

/// Dimensions of the decoder, read from its view.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct DecoderInfo {
    pub n_vocab: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub n_ff: usize,
    /// Longest context that the rotary embedding was trained for.
    pub n_ctx_train: usize,
    /// Base of the rotary embedding.
    pub rope_freq_base: f32,
}

impl DecoderInfo {
    /// Reads the dimensions from a decoder view and checks that they are consistent.
    ///
    /// # Errors
    /// If a key is missing, or a head count does not divide what it splits.
    pub(super) fn read(meta: &Metadata) -> Result<Self, GgufError> {
        let info = Self {
            n_vocab: positive(meta, keys::LLM_VOCAB_SIZE)?,
            n_embd: positive(meta, keys::LLM_EMBEDDING_LENGTH)?,
            n_layer: positive(meta, keys::LLM_BLOCK_COUNT)?,
            n_head: positive(meta, keys::LLM_HEAD_COUNT)?,
            n_head_kv: positive(meta, keys::LLM_HEAD_COUNT_KV)?,
            n_ff: positive(meta, keys::LLM_FEED_FORWARD_LENGTH)?,
            n_ctx_train: positive(meta, keys::LLM_CONTEXT_LENGTH)?,
            rope_freq_base: meta.f32(keys::LLM_ROPE_FREQ_BASE)?,
        };
        // Rotary embeddings rotate pairs of dimensions, so a head has an even number of them.
        divides(keys::LLM_HEAD_COUNT, 2 * info.n_head, info.n_embd)?;
        divides(keys::LLM_HEAD_COUNT_KV, info.n_head_kv, info.n_head)?;
        Ok(info)
    }

    /// Elements of the KV cache per position.
    pub fn kv_elements_per_position(&self) -> usize {
        let d_head = self.n_embd / self.n_head;
        2 * self.n_layer * self.n_head_kv * d_head
    }
}

/// Everything that a runtime needs besides the tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Human-readable name of the model.
    pub name: String,
    /// What the model was trained for.
    pub family: Family,
    /// The task whose adapters are merged into the decoder.
    pub task: Task,
    /// Factor of dynamic rotary scaling beyond the trained context, if the model has it.
    pub rope_dynamic_factor: Option<f32>,
    /// Normalisation of pictures.
    pub image: ImageInfo,
    /// Hyper-parameters of the tower and the projector.
    pub vision: VisionConfig,
    /// Prompt format.
    pub prompt: PromptInfo,
    /// Decoder dimensions.
    pub decoder: DecoderInfo,
    /// Longest sequence that the model was trained for, in tokens.
    pub context_length: usize,
    /// Name, version and options of the converter that wrote the file.
    pub converter: String,
    /// Name of the checkpoint.
    pub source: String,
    /// The 4-bit layout of the checkpoint whose numbers the decoder holds exactly.
    pub source_quantization: Option<String>,
}

impl ModelInfo {
    /// Reads and checks the metadata of the outer header and of the decoder view.
    ///
    /// # Errors
    /// If a key is missing or has an invalid value.
    pub fn read(outer: &Metadata, decoder: &Metadata) -> Result<Self, ContainerError> {
        let family = named(
            outer,
            keys::XC2_FAMILY,
            "`vl`, `composition`, `4khd` or `2.5`",
            Family::from_name,
        )?;
        let image = read_image(outer)?;
        let decoder = DecoderInfo::read(decoder)?;
        let options = outer.str(keys::XC2_OPTIONS)?;
        Ok(Self {
            name: outer.str(keys::GENERAL_NAME)?.to_owned(),
            family,
            task: optional(
                outer,
                keys::XC2_TASK,
                "`base`, `write` or `web`",
                Task::from_name,
            )?
            .unwrap_or_default(),
            rope_dynamic_factor: read_rope_factor(outer)?,
            image,
            vision: read_vision(outer)?,
            prompt: read_prompt(outer, decoder.n_vocab)?,
            decoder,
            context_length: positive(outer, keys::XC2_CONTEXT_LENGTH)?,
            converter: format!("{} {options}", outer.str(keys::XC2_CONVERTER)?),
            source: outer.str(keys::XC2_SOURCE_NAME)?.to_owned(),
            source_quantization: match outer.get(keys::XC2_SOURCE_QUANTIZATION) {
                None => None,
                Some(_) => Some(outer.str(keys::XC2_SOURCE_QUANTIZATION)?.to_owned()),
            },
        })
    }

    /// The longest context that a runtime may use without changing the rotary embedding, in tokens.
    pub fn max_context(&self) -> usize {
        self.context_length.min(self.decoder.n_ctx_train)
    }

    /// The base of the rotary embedding for a session of up to `planned` positions. Beyond the trained context it
    /// grows by dynamic NTK scaling, from the first position on; `None` if the model has no such scaling.
    ///
    /// The original enlarges the base at every token beyond the trained context, while cached keys keep the one they
    /// were computed with. One base per session is what its formula gives for a prompt of that length.
    pub fn rope_base(&self, planned: usize) -> Option<f32> {
        let d = &self.decoder;
        if planned <= d.n_ctx_train {
            return Some(d.rope_freq_base);
        }
        let factor = f64::from(self.rope_dynamic_factor?);
        let d_head = (d.n_embd / d.n_head) as f64;
        let growth = factor * planned as f64 / d.n_ctx_train as f64 - (factor - 1.0);
        let scale = growth.powf(d_head / (d_head - 2.0));
        Some((f64::from(d.rope_freq_base) * scale) as f32)
    }
}

fn read_image(outer: &Metadata) -> Result<ImageInfo, GgufError> {
    let rgb = |key: &str, expected: &str, ok: fn(f32) -> bool| {
        let values = outer.rgb(key)?;
        if values.into_iter().all(ok) {
            return Ok(values);
        }
        Err(GgufError::invalid(
            format!("metadata key `{key}`"),
            expected,
            format!("{values:?}"),
        ))
    };
    Ok(ImageInfo {
        image_mean: rgb(keys::CLIP_IMAGE_MEAN, "finite numbers", f32::is_finite)?,
        image_std: rgb(keys::CLIP_IMAGE_STD, "positive numbers", |v| {
            v.is_normal() && v > 0.0
        })?,
    })
}

fn read_prompt(outer: &Metadata, n_vocab: usize) -> Result<PromptInfo, GgufError> {
    let id = |key: &str| {
        let id = outer.usize(key)?;
        let in_range = i32::try_from(id).ok().filter(|_| id < n_vocab);
        in_range.ok_or_else(|| {
            GgufError::invalid(
                format!("metadata key `{key}`"),
                format!("an id below {n_vocab}"),
                id,
            )
        })
    };
    if outer.str(keys::PROMPT_IMAGE_MARKER)?.is_empty() {
        let field = format!("metadata key `{}`", keys::PROMPT_IMAGE_MARKER);
        return Err(GgufError::invalid(field, "some text", "none"));
    }
    let rule = "`every_segment` or `once`";
    Ok(PromptInfo {
        system: outer.str(keys::PROMPT_SYSTEM)?.to_owned(),
        image_marker: outer.str(keys::PROMPT_IMAGE_MARKER)?.to_owned(),
        turn_start: id(keys::PROMPT_TURN_START)?,
        turn_end: id(keys::PROMPT_TURN_END)?,
        bos: id(keys::PROMPT_BOS)?,
        eos: id(keys::PROMPT_EOS)?,
        bos_rule: named(outer, keys::PROMPT_BOS_RULE, rule, BosRule::from_name)?,
        unmarked_image: optional(
            outer,
            keys::PROMPT_UNMARKED_IMAGE,
            "`query` or `prompt`",
            UnmarkedImage::from_name,
        )?
        .unwrap_or_default(),
    })
}

fn read_vision(outer: &Metadata) -> Result<VisionConfig, GgufError> {
    Ok(VisionConfig {
        image_size: positive(outer, keys::CLIP_IMAGE_SIZE)?,
        patch_size: positive(outer, keys::CLIP_PATCH_SIZE)?,
        n_embd: positive(outer, keys::CLIP_EMBEDDING_LENGTH)?,
        n_head: positive(outer, keys::CLIP_HEAD_COUNT)?,
        n_ff: positive(outer, keys::CLIP_FEED_FORWARD_LENGTH)?,
        n_layer: positive(outer, keys::CLIP_BLOCK_COUNT)?,
        layer_norm_eps: outer.f32(keys::CLIP_LAYER_NORM_EPS)?,
        n_embd_text: positive(outer, keys::CLIP_PROJECTION_DIM)?,
        tiling: optional(
            outer,
            keys::XC2_TILING,
            "`4khd` or `2.5`",
            Tiling::from_name,
        )?,
    })
}

fn read_rope_factor(outer: &Metadata) -> Result<Option<f32>, GgufError> {
    let key = keys::XC2_ROPE_DYNAMIC_FACTOR;
    if outer.get(key).is_none() {
        return Ok(None);
    }
    match outer.f32(key)? {
        factor if factor.is_finite() && factor >= 1.0 => Ok(Some(factor)),
        factor => Err(GgufError::invalid(
            format!("metadata key `{key}`"),
            "a number of at least 1",
            factor,
        )),
    }
}

/// Reads a number from which sizes are computed: positive, and so small that products of a few do not overflow.
fn positive(meta: &Metadata, key: &str) -> Result<usize, GgufError> {
    const LIMIT: usize = 1 << 24;
    match meta.usize(key)? {
        n @ 1..=LIMIT => Ok(n),
        n => Err(GgufError::invalid(
            format!("metadata key `{key}`"),
            format!("1 to {LIMIT}"),
            n,
        )),
    }
}

fn divides(key: &str, divisor: usize, n: usize) -> Result<(), GgufError> {
    if n.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(GgufError::invalid(
        format!("metadata key `{key}`"),
        format!("a divisor of {n}"),
        divisor,
    ))
}

fn named<T>(
    meta: &Metadata,
    key: &str,
    expected: &str,
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<T, GgufError> {
    let name = meta.str(key)?;
    from_name(name)
        .ok_or_else(|| GgufError::invalid(format!("metadata key `{key}`"), expected, name))
}

/// As [`named`], or `None` without the key.
fn optional<T>(
    meta: &Metadata,
    key: &str,
    expected: &str,
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, GgufError> {
    match meta.get(key) {
        None => Ok(None),
        Some(_) => named(meta, key, expected, from_name).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(n_ctx_train: usize, rope_dynamic_factor: Option<f32>) -> ModelInfo {
        ModelInfo {
            name: String::new(),
            family: Family::V2d5,
            task: Task::Base,
            rope_dynamic_factor,
            image: ImageInfo {
                image_mean: [0.5; 3],
                image_std: [0.5; 3],
            },
            vision: VisionConfig {
                image_size: 560,
                patch_size: 14,
                n_embd: 1024,
                n_head: 16,
                n_ff: 4096,
                n_layer: 24,
                layer_norm_eps: 1e-5,
                n_embd_text: 4096,
                tiling: Some(Tiling::V2d5),
            },
            prompt: PromptInfo {
                system: String::new(),
                image_marker: "<ImageHere>".to_owned(),
                turn_start: 92543,
                turn_end: 92542,
                bos: 1,
                eos: 2,
                bos_rule: BosRule::Once,
                unmarked_image: UnmarkedImage::Prompt,
            },
            decoder: DecoderInfo {
                n_vocab: 92544,
                n_embd: 4096,
                n_layer: 32,
                n_head: 32,
                n_head_kv: 8,
                n_ff: 14336,
                n_ctx_train,
                rope_freq_base: 1e6,
            },
            context_length: 16384,
            converter: String::new(),
            source: String::new(),
            source_quantization: None,
        }
    }

    #[test]
    fn the_rotary_base_grows_beyond_the_trained_context_as_the_original_computes_it() {
        let info = info(24576, Some(2.0));
        assert_eq!(info.rope_base(24576), Some(1e6));
        for (planned, expected) in [
            (24577, 1_000_082.7),
            (32768, 1_680_235.5),
            (49152, 3_052_773.7),
            (98304, 7_219_586.0),
        ] {
            let base = f64::from(info.rope_base(planned).unwrap());
            assert!((base / expected - 1.0).abs() < 1e-6, "{planned}: {base}");
        }
    }

    #[test]
    fn a_model_without_dynamic_scaling_has_no_base_beyond_its_context() {
        let info = info(32768, None);
        assert_eq!(info.rope_base(32768), Some(1e6));
        assert_eq!(info.rope_base(32769), None);
    }
}
