//! One of several running answers.

use std::ops::ControlFlow;

use super::{
    Answer, EngineError,
    generation::Generation,
    prepared::{Prepared, Use},
};
use crate::engine::{cache::CacheCounts, metrics::Timings};

/// An answer that is running beside others.
pub(super) struct Slot<'a> {
    /// The number of its request.
    pub index: usize,
    /// The most positions that it may take.
    pub n_ctx: usize,
    /// The token to be decoded next.
    pub id: i32,
    /// Whether its tokens see the adapter.
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
        Use { timings, counts }: Use,
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

    /// Takes the token that `logits` decide for. The answer, or why there is none, if it ends so.
    pub fn take(&mut self, logits: &[f32]) -> Option<Result<Answer, EngineError>> {
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
                    first_token: self.generation.first_token,
                    ..self.timings
                },
                cache: self.counts,
            })),
            Err(error) => Some(Err(error)),
        }
    }
}
