//! The decoder's state after a prompt, from which the logits of any answer can be computed.

use super::EngineError;
use crate::language::decoder::Decoder;

/// A decoder that has computed a prompt.
pub struct PromptState {
    pub(super) decoder: Decoder,
    pub(super) n_prompt: usize,
    pub(super) n_ctx: usize,
    /// The logits of the prompt's last position, `[n_vocab]`.
    pub(super) logits: Vec<f32>,
    /// Whether Partial-LoRA applies to tokens of an answer.
    pub(super) plora: bool,
}

impl PromptState {
    /// Computes the logits along an answer of `ids` (teacher forcing): row `i` is `[n_vocab]` after `i` of them,
    /// row 0 that of the prompt. Gives `ids.len() + 1` rows, or fewer if the context ends before.
    ///
    /// # Errors
    /// If llama.cpp fails, or a logit is NaN or infinite.
    pub fn force_tokens(
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
