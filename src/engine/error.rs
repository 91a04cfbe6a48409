//! Why there is no answer.

use crate::system::units;
use std::path::PathBuf;

use crate::{
    engine::{memory::MemoryNeed, memory::Remedy},
    language::{llama::LlamaError, prompt::PromptError},
    model::container::ContainerError,
    system::panics::Panic,
    vision::VisionError,
    vision::image::ImageError,
};

/// Why there is no answer.
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
    /// A mistake in this program, met in the work on one of many requests.
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
    /// The model was made for shorter texts than asked for.
    #[error("context: expected 1 to {max} tokens with this model, found {asked}")]
    ContextTooLong { asked: usize, max: usize },
    /// Beam search with something that it does not go with.
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
    /// The arithmetic broke down, which good weights do not let happen.
    #[error("the model computed logits that are no numbers; its weights are damaged")]
    NotFinite,
    /// The machine is too small.
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
        /// Options each of which is enough.
        remedies: Vec<Remedy>,
        /// A preset of `xc2-convert` that is.
        smaller_model: Option<Remedy>,
    },
}
