//! Prefill and decode: the language model driven over a [`Sequence`] under a [`PloraMask`].
//!
//! The mask is lowered here. llama.cpp applies an adapter to every token of a batch, so each batch
//! holds positions of one mask bit only (and either tokens or embeddings), and the adapter is
//! switched between batches when the bit changes.

mod stream;

pub use stream::TextStream;

use ndarray::ArrayView2;

use crate::{
    llama::{Context, Input, LlamaError, Outputs},
    prompt::{PloraMask, Run, Sequence},
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

/// Cuts a sequence into batches: within one run, of one mask bit, of at most `n_batch` positions.
///
/// # Panics
/// If the mask has another length than the sequence.
fn lower(sequence: &Sequence, mask: &PloraMask, n_batch: usize) -> Vec<Step> {
    assert_eq!(mask.len(), sequence.len(), "the mask covers the sequence");
    let mut steps = Vec::new();
    let mut position = 0;
    for (run, len) in sequence.runs().iter().map(Run::len).enumerate() {
        let mut begin = 0;
        while begin < len {
            let (plora, same) = mask.run_at(position);
            let n = same.min(len - begin).min(n_batch);
            steps.push(Step {
                run,
                begin,
                len: n,
                plora,
            });
            begin += n;
            position += n;
        }
    }
    steps
}

/// The decoder at work on one sequence.
#[derive(Debug)]
pub struct Decoder {
    context: Context,
    n_past: usize,
}

/// Logits of the positions of a batch: the position of the first, and the rows one by one.
pub type OnLogits<'a> = &'a mut dyn FnMut(usize, &[f32]);

impl Decoder {
    /// Starts with an empty sequence.
    pub fn new(context: Context) -> Self {
        Self { context, n_past: 0 }
    }

    /// Positions computed so far.
    pub fn n_past(&self) -> usize {
        self.n_past
    }

    /// How often the adapter was switched so far.
    pub fn n_switches(&self) -> usize {
        self.context.n_switches()
    }

    /// Forgets everything from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.context.truncate(position);
        self.n_past = self.n_past.min(position);
    }

    /// Computes a prompt and leaves the logits of its last position for [`Self::logits`].
    ///
    /// `images[i]` are the projected embeddings of picture `i`, `[n_tokens, n_embd]`, in standard
    /// layout. `progress` is told the number of positions done after every batch.
    ///
    /// # Errors
    /// If llama.cpp refuses a batch.
    pub fn prefill(
        &mut self,
        sequence: &Sequence,
        mask: &PloraMask,
        images: &[ArrayView2<'_, f32>],
        mut progress: impl FnMut(usize),
    ) -> Result<(), LlamaError> {
        let steps = lower(sequence, mask, self.context.n_batch());
        for (i, step) in steps.iter().enumerate() {
            let outputs = if i + 1 == steps.len() {
                Outputs::Last
            } else {
                Outputs::None
            };
            self.compute(sequence, step, images, outputs)?;
            progress(self.n_past);
        }
        Ok(())
    }

    /// As [`Self::prefill`], with the logits of every position.
    ///
    /// # Errors
    /// If llama.cpp refuses a batch.
    pub fn prefill_observed(
        &mut self,
        sequence: &Sequence,
        mask: &PloraMask,
        images: &[ArrayView2<'_, f32>],
        on_logits: OnLogits<'_>,
    ) -> Result<(), LlamaError> {
        for step in lower(sequence, mask, self.context.n_batch()) {
            let position = self.n_past;
            self.compute(sequence, &step, images, Outputs::All)?;
            for i in 0..step.len {
                on_logits(position + i, self.context.logits(i));
            }
        }
        Ok(())
    }

    fn compute(
        &mut self,
        sequence: &Sequence,
        step: &Step,
        images: &[ArrayView2<'_, f32>],
        outputs: Outputs,
    ) -> Result<(), LlamaError> {
        self.context.switch_adapter(step.plora)?;
        let range = step.begin..step.begin + step.len;
        let input = match &sequence.runs()[step.run] {
            Run::Tokens(ids) => Input::Tokens(&ids[range]),
            Run::Image { index, .. } => {
                let rows = &images[*index];
                let n_embd = rows.ncols();
                let values = rows.to_slice().expect("embeddings lie row by row");
                Input::Embeddings(&values[range.start * n_embd..range.end * n_embd])
            }
        };
        self.context.decode(input, self.n_past, outputs)?;
        self.n_past += step.len;
        Ok(())
    }

    /// Appends one token, with the adapter on or off, and leaves its logits.
    ///
    /// # Errors
    /// If llama.cpp refuses, for example because the context is full.
    pub fn step(&mut self, id: i32, plora: bool) -> Result<(), LlamaError> {
        self.context.switch_adapter(plora)?;
        self.context
            .decode(Input::Tokens(&[id]), self.n_past, Outputs::Last)?;
        self.n_past += 1;
        Ok(())
    }

    /// The logits of the last position, `[n_vocab]`.
    pub fn logits(&mut self) -> &[f32] {
        self.context.last_logits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::PloraPolicy;

    fn sequence() -> Sequence {
        let mut sequence = Sequence::default();
        sequence.push_tokens(&[1, 2, 3]);
        sequence.push_image(0, 5);
        sequence.push_image(1, 2);
        sequence.push_tokens(&[4]);
        sequence
    }

    fn lowered(mask: &PloraMask, n_batch: usize) -> Vec<(usize, usize, usize, bool)> {
        let steps = lower(&sequence(), mask, n_batch);
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
    fn the_controls_have_uniform_masks() {
        for (policy, bit) in [
            (PloraPolicy::Nowhere, false),
            (PloraPolicy::Everywhere, true),
        ] {
            assert_eq!(sequence().plora_mask(policy), PloraMask::uniform(11, bit));
        }
    }
}
