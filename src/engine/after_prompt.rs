//! The place right after a prompt, from which any answer can be followed.

use super::EngineError;
use crate::language::decoder::Decoder;

/// A computed prompt.
pub struct AfterPrompt {
    pub(super) decoder: Decoder,
    pub(super) n_prompt: usize,
    pub(super) n_ctx: usize,
    /// The logits of the prompt's last position, `[n_vocab]`.
    pub(super) logits: Vec<f32>,
    /// Whether tokens of an answer see Partial-LoRA.
    pub(super) plora: bool,
}

impl AfterPrompt {
    /// The logits on the way along `ids`: row 0 is that before the first of them, row `i` that
    /// after `i` of them. Fewer than `ids` and one more where the context ends.
    ///
    /// # Errors
    /// If llama.cpp refuses, or logits are no numbers.
    pub fn follow(
        &mut self,
        ids: &[i32],
        mut on_logits: impl FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        self.decoder.truncate(0, self.n_prompt);
        on_logits(0, &self.logits);
        for (i, id) in ids.iter().take(self.n_ctx - self.n_prompt).enumerate() {
            self.decoder.step(0, *id, self.plora)?;
            let row = self.decoder.logits();
            if !row.iter().all(|l| l.is_finite()) {
                return Err(EngineError::NotFinite);
            }
            on_logits(i + 1, row);
        }
        Ok(())
    }
}
