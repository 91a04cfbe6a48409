//! Prefill and decode: the language model driven over [`Prompt`]s.
//!
//! The mask is lowered here. llama.cpp applies an adapter to every token of a batch, so each batch
//! holds positions of one mask bit only (and either tokens or embeddings), and the adapter is
//! switched between batches when the bit changes.
//!
//! A decoder remembers what its sequences hold ([`PromptKey`]), so whoever asks next can keep the part
//! that is the same.

pub use crate::language::llama::TextStream;

use std::ops::ControlFlow;

use ndarray::ArrayView2;

use crate::language::{
    llama::{Context, Input, LlamaError, Outputs, Positions},
    prompt::{PloraMask, Prompt, PromptKey, Run, Sequence},
};

/// A stretch of a sequence that one batch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// Which run of the sequence.
    run: usize,
    /// First position within the run.
    begin: usize,
    /// Number of positions.
    len: usize,
    /// The mask bit of all of them.
    plora: bool,
}

/// Cuts what a sequence holds from position `from` on into batches: within one run, of one mask bit,
/// of at most `n_batch` positions.
///
/// # Panics
/// If the mask has another length than the sequence.
fn lower(sequence: &Sequence, mask: &PloraMask, from: usize, n_batch: usize) -> Vec<Step> {
    assert_eq!(mask.len(), sequence.len(), "the mask covers the sequence");
    let mut steps = Vec::new();
    let mut run_begin = 0;
    for (run, len) in sequence.runs().iter().map(Run::len).enumerate() {
        let mut begin = from.saturating_sub(run_begin).min(len);
        while begin < len {
            let (plora, same) = mask.run_at(run_begin + begin);
            let n = same.min(len - begin).min(n_batch);
            steps.push(Step {
                run,
                begin,
                len: n,
                plora,
            });
            begin += n;
        }
        run_begin += len;
    }
    steps
}

/// The decoder at work on one sequence or several.
#[derive(Debug)]
pub struct Decoder {
    context: Context,
    /// The key of each sequence.
    prompt_keys: Vec<PromptKey>,
}

/// Logits of the positions of a batch: the position of the first, and the rows one by one.
pub type OnLogits<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// The projected embeddings of the pictures of a prompt, `[n_tokens, n_embd]` each, in standard
/// layout; `None` for those whose positions are all held.
pub type Embeddings<'a> = [Option<ArrayView2<'a, f32>>];

/// A token to be appended to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The sequence.
    pub seq: usize,
    /// The token.
    pub id: i32,
}

impl Decoder {
    /// Starts with `n_seq` empty sequences.
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

    /// Positions that sequence `seq` holds.
    pub fn n_past(&self, seq: usize) -> usize {
        self.prompt_keys[seq].len()
    }

    /// How often the adapter was switched so far.
    pub fn n_switches(&self) -> usize {
        self.context.n_switches()
    }

    /// Lets sequence `seq` forget everything from `position` on.
    pub fn truncate(&mut self, seq: usize, position: usize) {
        self.context.truncate(seq, position);
        self.prompt_keys[seq].truncate(position);
    }

    /// Lets sequence `to` hold the first `n` positions of `from` and nothing else, without computing
    /// or copying them.
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

    /// Lets sequence `seq` hold what [`Self::save`] gave of a sequence with this trace.
    ///
    /// # Errors
    /// If llama.cpp refuses; the sequence is empty then.
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

    /// Computes what sequence `seq` does not hold of a prompt that it holds the begin of, and leaves
    /// the logits of the last position for [`Self::logits`]. `progress` is told the number of
    /// positions that are there after every batch, and may break off: `Break` comes back then, and
    /// there are no logits.
    ///
    /// # Errors
    /// If llama.cpp refuses a batch; the sequence holds what was computed before.
    ///
    /// # Panics
    /// If the sequence holds something else than the prompt's begin, or all of it, or an embedding
    /// is missing.
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

    /// As [`Self::prefill`], with the logits of every position computed.
    ///
    /// # Errors
    /// If llama.cpp refuses a batch.
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
        let n_held = self.n_past(seq);
        let same = self.prompt_keys[seq].common_prefix(&prompt.prompt_key);
        assert!(same == n_held && same < prompt.len(), "the begin is held");
        lower(
            &prompt.sequence,
            &prompt.mask,
            n_held,
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
        let range = step.begin..step.begin + step.len;
        let input = match &prompt.sequence.runs()[step.run] {
            Run::Tokens(ids) => Input::Tokens(&ids[range]),
            Run::Image { index, .. } => {
                let rows = images[*index].as_ref().expect("embeddings to compute");
                let n_embd = rows.ncols();
                let values = rows.to_slice().expect("embeddings lie row by row");
                Input::Embeddings(&values[range.start * n_embd..range.end * n_embd])
            }
        };
        let position = self.n_past(seq);
        self.decode(&[seq], input, Positions::Run { seq, position }, outputs)?;
        self.prompt_keys[seq].extend_from(&prompt.prompt_key, position, position + step.len);
        Ok(())
    }

    /// Appends one token to sequence `seq`, with the adapter on or off, and leaves its logits.
    ///
    /// # Errors
    /// If llama.cpp refuses, for example because the context is full.
    pub fn step(&mut self, seq: usize, id: i32, plora: bool) -> Result<(), LlamaError> {
        self.step_all(&[Next { seq, id }], plora)
    }

    /// Appends one token to each of some sequences in one batch, and leaves the logits of `nexts[i]`
    /// for [`Self::logits_of`]. All weights are read once, however many sequences go on.
    ///
    /// # Errors
    /// If llama.cpp refuses; nothing was appended then.
    pub fn step_all(&mut self, nexts: &[Next], plora: bool) -> Result<(), LlamaError> {
        self.context.switch_adapter(plora)?;
        let ids: Vec<i32> = nexts.iter().map(|n| n.id).collect();
        let places: Vec<_> = nexts.iter().map(|n| (n.seq, self.n_past(n.seq))).collect();
        let seqs: Vec<usize> = nexts.iter().map(|n| n.seq).collect();
        let places = Positions::Each(&places);
        self.decode(&seqs, Input::Tokens(&ids), places, Outputs::All)?;
        for next in nexts {
            self.prompt_keys[next.seq].push(next.id, plora);
        }
        Ok(())
    }

    /// Computes a batch; if llama.cpp fails, `seqs` are cut back to what they held.
    fn decode(
        &mut self,
        seqs: &[usize],
        input: Input<'_>,
        places: Positions<'_>,
        outputs: Outputs,
    ) -> Result<(), LlamaError> {
        let result = self.context.decode(input, places, outputs);
        if result.is_err() {
            for seq in seqs {
                self.context.truncate(*seq, self.prompt_keys[*seq].len());
            }
        }
        result
    }

    /// The logits of the last position computed, `[n_vocab]`.
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

    fn lowered(mask: &PloraMask, n_batch: usize) -> Vec<(usize, usize, usize, bool)> {
        let steps = lower(&sequence(), mask, 0, n_batch);
        steps
            .into_iter()
            .map(|s| (s.run, s.begin, s.len, s.plora))
            .collect()
    }

    #[test]
    fn batches_hold_one_kind_of_input_and_one_bit() {
        let mask = sequence().plora_mask(PloraPolicy::Images);
        let expected = [
            (0, 0, 3, false),
            (1, 0, 5, true),
            (2, 0, 2, true),
            (3, 0, 1, false),
        ];
        assert_eq!(lowered(&mask, 64), expected);
    }

    #[test]
    fn any_mask_can_be_lowered() {
        let bits = [
            true, false, false, true, true, false, true, true, true, false, true,
        ];
        let mask: PloraMask = bits.into_iter().collect();
        let steps = lowered(&mask, 2);
        let mut unrolled = Vec::new();
        for (_, _, len, bit) in &steps {
            assert!(*len <= 2);
            unrolled.extend(std::iter::repeat_n(*bit, *len));
        }
        assert_eq!(unrolled, bits);
    }

    #[test]
    fn what_is_held_is_left_out() {
        let mask = sequence().plora_mask(PloraPolicy::Images);
        let from = |at| {
            let steps = lower(&sequence(), &mask, at, 64);
            let tuple = |s: Step| (s.run, s.begin, s.len, s.plora);
            steps.into_iter().map(tuple).collect::<Vec<_>>()
        };
        let rest = [(2, 0, 2, true), (3, 0, 1, false)];
        assert_eq!(from(2)[..2], [(0, 2, 1, false), (1, 0, 5, true)]);
        assert_eq!(from(6)[..], [&[(1, 3, 2, true)], &rest[..]].concat());
        assert_eq!(from(8), rest);
        assert_eq!(from(11), []);
    }

    #[test]
    fn the_controls_have_uniform_masks() {
        for (policy, bit) in [
            (PloraPolicy::Nowhere, false),
            (PloraPolicy::Everywhere, true),
        ] {
            assert_eq!(sequence().plora_mask(policy), PloraMask::uniform(11, bit));
        }
    }
}
