//! Compares a model, stage by stage, with recorded outputs of the original PyTorch implementation.
//!
//! A golden directory has a `.json` and a `.safetensors` file for each conversation, and under `images/` for each
//! picture (format: `tests/reference/README.md`). The stages run the same code that answers questions. Only the
//! decoder uses its most exact arithmetic (KV cache in `f32`, no flash attention), so that the remaining error is
//! that of the weights.

mod compare;
mod conversation;
mod golden;
mod picture;
mod picture_source;
mod precision;
mod tower_input;

pub use compare::{Deviation, Stage};
pub use golden::{GoldenDir, GoldenError};
pub use precision::Precision;

use crate::{
    engine::{Engine, EngineError, EngineOptions},
    language::llama::{KvType, LlamaError},
    model::container::Task,
    vision::image::{ImageError, Orientation, Transparency},
};

/// Why a verification failed to run. A stage out of tolerance is a result, not an error.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VerifyError {
    /// Error in the golden data.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// Error of the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Error in a picture.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Error of the decoder.
    #[error(transparent)]
    Llama(#[from] LlamaError),
}

/// All stages of a picture or a conversation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// Name of the picture or conversation.
    pub subject: String,
    /// Stages in the order of computation.
    pub stages: Vec<Stage>,
    /// Whether this is a single record of the golden directory, not a result over several records.
    pub is_record: bool,
}

impl Outcome {
    /// The first stage that is out of tolerance.
    pub fn first_departure(&self) -> Option<&Stage> {
        self.stages.iter().find(|s| !s.ok)
    }
}

/// The engine options that [`verify`] requires.
pub fn engine_options() -> EngineOptions {
    EngineOptions {
        kv_type: KvType::F32,
        flash_attn: false,
        // As in the original implementation.
        orientation: Orientation::Ignore,
        transparency: Transparency::Drop,
        ..EngineOptions::default()
    }
}

/// A conversation that was recorded with other adapters than the model has.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// The mode in which it was recorded.
    pub mode: String,
}

/// Runs all records in `golden` that fit the model and passes each outcome to `on_outcome`. Returns the conversations
/// that were recorded in another mode.
///
/// # Errors
/// If the golden data cannot be read or the model cannot be run.
pub fn verify(
    engine: &Engine,
    golden: &GoldenDir,
    mut on_outcome: impl FnMut(Outcome),
) -> Result<Vec<LeftOut>, VerifyError> {
    let precision = Precision::of(engine.container());
    for record in golden.pictures()? {
        on_outcome(picture::check(engine, golden, &record, &precision)?);
    }
    let mut conversations = conversation::Conversations::new(engine, golden, precision)?;
    let task = engine.container().info().task.name();
    let mut left_out = Vec::new();
    for record in golden.conversations()? {
        let mode = record
            .case
            .infer_mode
            .as_deref()
            .unwrap_or(Task::Base.name());
        if mode == task {
            on_outcome(conversations.check(&record)?);
        } else {
            left_out.push(LeftOut {
                name: record.case.name.clone(),
                mode: mode.to_owned(),
            });
        }
    }
    if let Some(together) = conversations.together() {
        on_outcome(together);
    }
    Ok(left_out)
}
