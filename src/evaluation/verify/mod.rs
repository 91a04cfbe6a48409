//! A model held, stage by stage, against recorded outputs of the original PyTorch code.
//!
//! A golden directory has one `.json` and `.safetensors` for each conversation, and under
//! `images/` one of each for every picture (its form: `tests/reference/README.md`). The stages run
//! through the very code that answers questions; only the arithmetic of the decoder is set to its
//! plainest (KV cache in `f32`, no fused attention), so that what remains is the weights' own error.

mod compare;
mod conversation;
mod golden;
mod picture;
mod precision;

pub use compare::{Deviation, Stage};
pub use golden::{GoldenDir, GoldenError};
pub use precision::Precision;

use crate::{
    engine::{Engine, EngineError, EngineOptions},
    language::llama::{KvType, LlamaError},
    vision::image::{ImageError, Orientation, Transparency},
};

/// Why a verification could not be carried out; a stage that departs is no error but a result.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VerifyError {
    /// The golden data.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// The model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A picture.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The decoder.
    #[error(transparent)]
    Llama(#[from] LlamaError),
}

/// All stages of a picture or a conversation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// The picture's or the conversation's name.
    pub subject: String,
    /// Its stages, in the order of computation.
    pub stages: Vec<Stage>,
    /// Whether this is a record of the golden directory, and not a judgement over several.
    pub is_record: bool,
}

impl Outcome {
    /// The first stage that is out of tolerance.
    pub fn first_departure(&self) -> Option<&Stage> {
        self.stages.iter().find(|s| !s.ok)
    }
}

/// The options that [`verify`] wants its engine loaded with.
pub fn engine_options() -> EngineOptions {
    EngineOptions {
        kv_type: KvType::F32,
        flash_attn: false,
        // As the original.
        orientation: Orientation::Ignore,
        transparency: Transparency::Drop,
        ..EngineOptions::default()
    }
}

/// Runs everything in `golden` and hands over each outcome as it is known.
///
/// # Errors
/// If the golden data cannot be read or the model cannot be run.
pub fn verify(
    engine: &Engine,
    golden: &GoldenDir,
    mut on_outcome: impl FnMut(Outcome),
) -> Result<(), VerifyError> {
    let precision = Precision::of(engine.container());
    for record in golden.pictures()? {
        on_outcome(picture::check(engine, golden, &record, &precision)?);
    }
    let mut conversations = conversation::Conversations::new(engine, golden, precision)?;
    for record in golden.conversations()? {
        on_outcome(conversations.check(&record)?);
    }
    if let Some(together) = conversations.together() {
        on_outcome(together);
    }
    Ok(())
}
