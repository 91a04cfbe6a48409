//! The engine's errors.

use std::path::PathBuf;

use crate::{
    engine::memory::{MemoryNeed, Remedy},
    language::{llama::LlamaError, prompt::PromptError},
    model::container::ContainerError,
    system::{panics::Panic, units},
    vision::{VisionError, image::ImageError},
};

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EngineError {
    /// The model file.
    #[error("{}", path.display())]
    Container {
        path: PathBuf,
        source: ContainerError,
    },
    /// A picture.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A bug in this program, hit while one of several requests was computed.
    #[error(transparent)]
    Panic(#[from] Panic),
    /// The tower's tensors.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The decoder.
    #[error(transparent)]
    Llama(#[from] LlamaError),
    /// The question.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The requested context is larger than the model supports.
    #[error("context: expected 1 to {max} tokens with this model, found {asked}")]
    ContextTooLong { asked: usize, max: usize },
    /// Tiles were requested of a model that has none.
    #[error(
        "tiles: this model resizes every picture to {size}x{size} pixels; expected a model that cuts pictures into \
         tiles (4khd or 2.5)"
    )]
    NoTiles { size: usize },
    /// An invalid number of tiles.
    #[error(
        "tiles: expected 1 to {} per picture, found {found}",
        super::MAX_HD_NUM
    )]
    HdNum { found: u32 },
    /// Frames for a model that does not see strips of frames, or none at all.
    #[error("frames: expected {expected}, found {found}")]
    Frames {
        expected: &'static str,
        found: String,
    },
    /// A long context was requested of a model without a way to extend its own.
    #[error(
        "context: expected at most {max} tokens, because this model has no dynamic rotary scaling, found {asked}"
    )]
    CannotExtend { asked: usize, max: usize },
    /// Beam search together with options that it does not support.
    #[error(
        "beam search: expected 1 to {} beams for one request at a time, greedy and without \
         repetition penalty or grammar, found {found}",
        super::MAX_BEAMS
    )]
    Beams { found: String },
    /// The prompt does not fit.
    #[error(
        "the prompt takes {n_prompt} tokens ({n_image} of them pictures) and the answer at least \
         one, but the context holds {n_ctx}"
    )]
    PromptTooLong {
        n_prompt: usize,
        n_image: usize,
        n_ctx: usize,
        max: usize,
    },
    /// A logit is NaN or infinite, which intact weights do not produce.
    #[error("the model computed NaN or infinite logits; its weights are damaged")]
    NotFinite,
    /// The run needs more memory than is available.
    #[error(
        "not enough memory: {} needed ({} weights, {} context, {} scratch), {} available",
        units::human(need.total()),
        units::human(need.all_weights()),
        units::human(need.kv_cache),
        units::human(need.rest()),
        units::human(*available)
    )]
    Memory {
        need: Box<MemoryNeed>,
        available: u64,
        /// Changes of the options, each sufficient alone.
        remedies: Vec<Remedy>,
        /// A preset of `xc2-convert` that would be sufficient.
        smaller_model: Option<Remedy>,
    },
}
