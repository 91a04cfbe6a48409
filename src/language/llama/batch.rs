//! A batch: the input of one [`super::Context::decode`].

use llama_cpp_sys_2 as sys;

/// The input of a batch: tokens or embeddings, never both, because the adapter is on or off for a whole batch.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Token ids.
    Tokens(&'a [i32]),
    /// Rows of embeddings, `[n, n_embd]`.
    Embeddings(&'a [f32]),
}

/// The sequences and positions of the tokens of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Consecutive positions of sequence `seq`.
    Run {
        /// The sequence.
        seq: usize,
        /// The position of the first token.
        position: usize,
    },
    /// Sequence and position of each token.
    Each(&'a [(usize, usize)]),
}

impl Positions<'_> {
    /// The position of the first token, for error messages.
    pub(super) fn first_position(&self) -> usize {
        match self {
            Self::Run { position, .. } => *position,
            Self::Each(each) => each.first().map_or(0, |(_, position)| *position),
        }
    }
}

/// The tokens of a batch whose logits are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outputs {
    None,
    Last,
    All,
}

/// The arrays that llama.cpp reads.
pub(super) struct Batch<'a> {
    input: Input<'a>,
    positions: Vec<i32>,
    seqs: Vec<i32>,
    /// Pointers to one element of `seqs` each.
    seq_pointers: Vec<*mut i32>,
    seq_counts: Vec<i32>,
    output_flags: Vec<i8>,
}

impl<'a> Batch<'a> {
    /// # Panics
    /// If embeddings are not whole rows of `n_embd`, or the numbers of positions and tokens differ.
    pub fn new(
        input: Input<'a>,
        positions: Positions<'_>,
        outputs: Outputs,
        n_embd: usize,
    ) -> Self {
        let n = match input {
            Input::Tokens(ids) => ids.len(),
            Input::Embeddings(rows) => {
                assert!(rows.len().is_multiple_of(n_embd), "whole rows");
                rows.len() / n_embd
            }
        };
        let (seqs, positions): (Vec<i32>, Vec<i32>) = match positions {
            Positions::Run { seq, position } => (position..position + n)
                .map(|p| (seq as i32, p as i32))
                .unzip(),
            Positions::Each(each) => each.iter().map(|&(s, p)| (s as i32, p as i32)).unzip(),
        };
        assert_eq!(seqs.len(), n, "as many positions as tokens");
        let mut output_flags = vec![i8::from(outputs == Outputs::All); n];
        if let Some(last) = output_flags.last_mut() {
            *last = i8::from(outputs != Outputs::None);
        }
        Self {
            input,
            positions,
            seqs,
            seq_pointers: Vec::new(),
            seq_counts: vec![1; n],
            output_flags,
        }
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// The C structure; its pointers are valid as long as `self` is neither changed nor dropped. Every array has
    /// [`Self::len`] elements; those of `embd` are rows of `n_embd` floats.
    pub fn as_raw(&mut self) -> sys::llama_batch {
        self.seq_pointers = self.seqs.iter_mut().map(std::ptr::from_mut).collect();
        let (token, embd) = match self.input {
            Input::Tokens(ids) => (ids.as_ptr(), std::ptr::null()),
            Input::Embeddings(rows) => (std::ptr::null(), rows.as_ptr()),
        };
        sys::llama_batch {
            n_tokens: self.len() as i32,
            token: token.cast_mut(),
            embd: embd.cast_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.seq_counts.as_mut_ptr(),
            seq_id: self.seq_pointers.as_mut_ptr(),
            logits: self.output_flags.as_mut_ptr(),
        }
    }
}
