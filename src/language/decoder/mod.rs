//! Prefill and decode of [`Prompt`]s with llama.cpp.
//!
//! The Partial-LoRA mask becomes batches here. llama.cpp applies an adapter to every token of a batch, so each batch
//! has positions of one mask bit only (and either tokens or embeddings), and the adapter is switched between batches
//! when the bit changes.
//!
//! A decoder records the [`PromptKey`] of each sequence, so that the next request can reuse the common prefix.

use std::ops::ControlFlow;

use ndarray::ArrayView2;

pub use crate::language::llama::TextStream;
use crate::language::{
    llama::{Context, Input, LlamaError, Outputs, Positions},
    prompt::{PloraMask, Prompt, PromptKey, Run, Sequence},
};

/// The positions that one batch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// The index of the run.
    run: usize,
    /// First position within the run.
    start: usize,
    /// Number of positions.
    len: usize,
    /// The mask bit of all of them.
    plora: bool,
}

/// Splits a sequence from position `from` on into batches of at most `n_batch` positions, each within one run and of
/// one mask bit.
///
/// # Panics
/// If the mask and the sequence differ in length.
fn split_into_batches(
    sequence: &Sequence,
    mask: &PloraMask,
    from: usize,
    n_batch: usize,
) -> Vec<Step> {
    assert_eq!(mask.len(), sequence.len(), "the mask covers the sequence");
    let mut steps = Vec::new();
    let mut run_start = 0;
    for (run, len) in sequence.runs().iter().map(Run::len).enumerate() {
        let mut start = from.saturating_sub(run_start).min(len);
        while start < len {
            let (plora, same) = mask.run_at(run_start + start);
            let n = same.min(len - start).min(n_batch);
            steps.push(Step {
                run,
                start,
                len: n,
                plora,
            });
            start += n;
        }
        run_start += len;
    }
    steps
}

/// A llama.cpp context with the keys of its sequences.
#[derive(Debug)]
pub struct Decoder {
    context: Context,
    /// The key of each sequence.
    prompt_keys: Vec<PromptKey>,
}

/// Receives the logits of each position: the position, and `[n_vocab]`.
pub type OnLogits<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// The projected embeddings of a prompt's pictures, `[n_tokens, n_embd]` each, in standard layout; `None` for pictures
/// whose positions need not be computed.
pub type Embeddings<'a> = [Option<ArrayView2<'a, f32>>];

/// A token to append to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The sequence.
    pub seq: usize,
    /// The token.
    pub id: i32,
}

impl Decoder {
    /// A decoder with `n_seq` empty sequences.
    pub fn new(context: Context, n_seq: usize) -> Self {
        let prompt_keys = vec![PromptKey::default(); n_seq];
        Self {
            context,
            prompt_keys,
        }
    }

    /// The key of the positions that sequence `seq` has computed.
    pub fn prompt_key(&self, seq: usize) -> &PromptKey {
        &self.prompt_keys[seq]
    }

    /// The length of sequence `seq`.
    pub fn n_past(&self, seq: usize) -> usize {
        self.prompt_keys[seq].len()
    }

    /// How often the adapter was switched.
    pub fn n_switches(&self) -> usize {
        self.context.n_switches()
    }

    /// Removes the positions of sequence `seq` from `position` on.
    pub fn truncate(&mut self, seq: usize, position: usize) {
        self.context.truncate(seq, position);
        self.prompt_keys[seq].truncate(position);
    }

    /// Replaces sequence `to` with the first `n` positions of `from`. They are shared, neither computed nor copied.
    pub fn share(&mut self, from: usize, to: usize, n: usize) {
        self.truncate(to, 0);
        self.context.share(from, to, n);
        let [from, to] = self
            .prompt_keys
            .get_disjoint_mut([from, to])
            .expect("two sequences");
        to.extend_from(from, 0, n);
    }

    /// The keys and values of sequence `seq`, for [`Self::restore`].
    pub fn save(&mut self, seq: usize) -> Vec<u8> {
        self.context.save(seq)
    }

    /// Restores sequence `seq` from the bytes that [`Self::save`] returned for a sequence with this key.
    ///
    /// # Errors
    /// If llama.cpp rejects the bytes; the sequence is empty then.
    pub fn restore(
        &mut self,
        seq: usize,
        bytes: &[u8],
        prompt_key: &PromptKey,
    ) -> Result<(), LlamaError> {
        self.prompt_keys[seq].truncate(0);
        self.context.restore(seq, bytes, prompt_key.len())?;
        self.prompt_keys[seq] = prompt_key.clone();
        Ok(())
    }

    /// Computes the rest of a prompt; sequence `seq` already holds a prefix of it. [`Self::logits`] has the logits of
    /// the last position afterwards. `progress` receives the sequence's length after every batch. If it returns
    /// `Break`, so does this function, and there are no logits.
    ///
    /// # Errors
    /// If llama.cpp fails; the sequence keeps the batches computed before.
    ///
    /// # Panics
    /// If the sequence is not a proper prefix of the prompt, or an embedding is missing.
    pub fn prefill(
        &mut self,
        seq: usize,
        prompt: &Prompt,
        images: &Embeddings<'_>,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LlamaError> {
        let steps = self.steps(seq, prompt);
        for (i, step) in steps.iter().enumerate() {
            let is_last = i + 1 == steps.len();
            let outputs = if is_last {
                Outputs::Last
            } else {
                Outputs::None
            };
            self.compute(seq, prompt, step, images, outputs)?;
            if progress(self.n_past(seq)).is_break() && !is_last {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// As [`Self::prefill`], but computes the logits of every position.
    ///
    /// # Errors
    /// If llama.cpp fails.
    pub fn prefill_observed(
        &mut self,
        seq: usize,
        prompt: &Prompt,
        images: &Embeddings<'_>,
        on_logits: OnLogits<'_>,
    ) -> Result<(), LlamaError> {
        for step in self.steps(seq, prompt) {
            let position = self.n_past(seq);
            self.compute(seq, prompt, &step, images, Outputs::All)?;
            for i in 0..step.len {
                on_logits(position + i, self.context.logits(i));
            }
        }
        Ok(())
    }

    fn steps(&self, seq: usize, prompt: &Prompt) -> Vec<Step> {
        let n_past = self.n_past(seq);
        let n_common = self.prompt_keys[seq].common_prefix(&prompt.prompt_key);
        assert!(
            n_common == n_past && n_common < prompt.len(),
            "the sequence is a proper prefix of the prompt"
        );
        split_into_batches(
            &prompt.sequence,
            &prompt.mask,
            n_past,
            self.context.n_batch(),
        )
    }

    fn compute(
        &mut self,
        seq: usize,
        prompt: &Prompt,
        step: &Step,
        images: &Embeddings<'_>,
        outputs: Outputs,
    ) -> Result<(), LlamaError> {
        self.context.switch_adapter(step.plora)?;
        let range = step.start..step.start + step.len;
        let input = match &prompt.sequence.runs()[step.run] {
            Run::Tokens(ids) => Input::Tokens(&ids[range]),
            Run::Image { index, .. } => {
                let rows = images[*index].as_ref().expect("the embeddings are given");
                let n_embd = rows.ncols();
                let values = rows.to_slice().expect("they are in standard layout");
                Input::Embeddings(&values[range.start * n_embd..range.end * n_embd])
            }
        };
        let position = self.n_past(seq);
        self.decode(&[seq], input, Positions::Run { seq, position }, outputs)?;
        self.prompt_keys[seq].extend_from(&prompt.prompt_key, position, position + step.len);
        Ok(())
    }

    /// Decodes one token in sequence `seq`, with the adapter on or off. [`Self::logits`] has its logits afterwards.
    ///
    /// # Errors
    /// If llama.cpp fails, for example because the context is full.
    pub fn step(&mut self, seq: usize, id: i32, plora: bool) -> Result<(), LlamaError> {
        self.step_all(&[Next { seq, id }], plora)
    }

    /// Decodes one token in each of several sequences in one batch, which reads all weights once. [`Self::logits_of`]
    /// has the logits of `nexts[i]` afterwards.
    ///
    /// # Errors
    /// If llama.cpp fails; the sequences are unchanged then.
    pub fn step_all(&mut self, nexts: &[Next], plora: bool) -> Result<(), LlamaError> {
        self.context.switch_adapter(plora)?;
        let ids: Vec<i32> = nexts.iter().map(|n| n.id).collect();
        let positions: Vec<_> = nexts.iter().map(|n| (n.seq, self.n_past(n.seq))).collect();
        let seqs: Vec<usize> = nexts.iter().map(|n| n.seq).collect();
        let positions = Positions::Each(&positions);
        self.decode(&seqs, Input::Tokens(&ids), positions, Outputs::All)?;
        for next in nexts {
            self.prompt_keys[next.seq].push(next.id, plora);
        }
        Ok(())
    }

    /// Computes a batch. If llama.cpp fails, `seqs` are truncated to their previous lengths.
    fn decode(
        &mut self,
        seqs: &[usize],
        input: Input<'_>,
        positions: Positions<'_>,
        outputs: Outputs,
    ) -> Result<(), LlamaError> {
        let result = self.context.decode(input, positions, outputs);
        if result.is_err() {
            for seq in seqs {
                self.context.truncate(*seq, self.prompt_keys[*seq].len());
            }
        }
        result
    }

    /// The logits of the last computed position, `[n_vocab]`.
    pub fn logits(&mut self) -> &[f32] {
        self.context.last_logits()
    }

    /// The logits after `nexts[i]` of the last [`Self::step_all`], `[n_vocab]`.
    pub fn logits_of(&mut self, i: usize) -> &[f32] {
        self.context.logits(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::prompt::PloraPolicy;

    fn sequence() -> Sequence {
        let mut sequence = Sequence::default();
        sequence.push_tokens(&[1, 2, 3]);
        sequence.push_image(0, 5);
        sequence.push_image(1, 2);
        sequence.push_tokens(&[4]);
        sequence
    }

    fn batches(mask: &PloraMask, n_batch: usize) -> Vec<(usize, usize, usize, bool)> {
        let steps = split_into_batches(&sequence(), mask, 0, n_batch);
        steps
            .into_iter()
            .map(|s| (s.run, s.start, s.len, s.plora))
            .collect()
    }

    #[test]
    fn a_batch_has_one_kind_of_input_and_one_mask_bit() {
        let mask = sequence().plora_mask(PloraPolicy::Images);
        let expected = [
            (0, 0, 3, false),
            (1, 0, 5, true),
            (2, 0, 2, true),
            (3, 0, 1, false),
        ];
        assert_eq!(batches(&mask, 64), expected);
    }

    #[test]
    fn any_mask_can_be_split_into_batches() {
        let bits = [
            true, false, false, true, true, false, true, true, true, false, true,
        ];
        let mask: PloraMask = bits.into_iter().collect();
        let steps = batches(&mask, 2);
        let mut unrolled = Vec::new();
        for (_, _, len, bit) in &steps {
            assert!(*len <= 2);
            unrolled.extend(std::iter::repeat_n(*bit, *len));
        }
        assert_eq!(unrolled, bits);
    }

    #[test]
    fn cached_positions_are_left_out() {
        let mask = sequence().plora_mask(PloraPolicy::Images);
        let from = |at| {
            let steps = split_into_batches(&sequence(), &mask, at, 64);
            let tuple = |s: Step| (s.run, s.start, s.len, s.plora);
            steps.into_iter().map(tuple).collect::<Vec<_>>()
        };
        let rest = [(2, 0, 2, true), (3, 0, 1, false)];
        assert_eq!(from(2)[..2], [(0, 2, 1, false), (1, 0, 5, true)]);
        assert_eq!(from(6)[..], [&[(1, 3, 2, true)], &rest[..]].concat());
        assert_eq!(from(8), rest);
        assert_eq!(from(11), []);
    }

    #[test]
    fn the_control_policies_have_uniform_masks() {
        for (policy, bit) in [
            (PloraPolicy::Nowhere, false),
            (PloraPolicy::Everywhere, true),
        ] {
            assert_eq!(sequence().plora_mask(policy), PloraMask::uniform(11, bit));
        }
    }
}
