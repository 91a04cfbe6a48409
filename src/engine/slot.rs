//! A slot of the batch scheduler: one of several running answers.

use std::ops::ControlFlow;

use super::{
    Answer, EngineError,
    generation::Generation,
    prepared::{Prepared, Usage},
};
use crate::engine::{cache::CacheCounts, metrics::Timings};

/// A running answer.
pub(super) struct Slot<'a> {
    /// The index of its request.
    pub index: usize,
    /// The maximum number of positions of prompt and answer.
    pub n_ctx: usize,
    /// The token to decode next.
    pub id: i32,
    /// Whether the adapter applies to its tokens.
    pub plora: bool,
    pub timings: Timings,
    counts: CacheCounts,
    generation: Generation<'a>,
    n_prompt: usize,
    n_image: usize,
}

impl<'a> Slot<'a> {
    pub fn new(
        index: usize,
        prepared: &Prepared<'_>,
        generation: Generation<'a>,
        n_ctx: usize,
        Usage { timings, counts }: Usage,
    ) -> Self {
        let sequence = &prepared.prompt.sequence;
        Self {
            index,
            n_ctx,
            id: 0,
            plora: prepared.request.plora.generated(),
            timings,
            counts,
            generation,
            n_prompt: sequence.len(),
            n_image: sequence.n_image_tokens(),
        }
    }

    /// Samples a token from `logits`. Returns the answer, or its error, if it is finished.
    pub fn next_token(&mut self, logits: &[f32]) -> Option<Result<Answer, EngineError>> {
        let is_full = self.n_prompt + self.generation.ids.len() == self.n_ctx;
        match self.generation.next(logits, is_full, &mut ()) {
            Ok(ControlFlow::Continue(id)) => {
                self.id = id;
                None
            }
            Ok(ControlFlow::Break(stop)) => Some(Ok(Answer {
                text: std::mem::take(&mut self.generation.text),
                ids: std::mem::take(&mut self.generation.ids),
                n_prompt: self.n_prompt,
                n_image: self.n_image,
                stop,
                timings: Timings {
                    first_token: self.generation.first_token_seconds,
                    ..self.timings
                },
                cache: self.counts,
            })),
            Err(error) => Some(Err(error)),
        }
    }
}
