//! A batch: what [`super::Context::decode`] computes at once.

use llama_cpp_sys_2 as sys;

/// What a batch holds: never both, since the adapter is on for all of a batch or for none of it.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Token ids.
    Tokens(&'a [i32]),
    /// Rows of embeddings, `[n, n_embd]`.
    Embeddings(&'a [f32]),
}

/// Where the tokens of a batch stand.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// One after another in sequence `seq`, the first at `position`.
    Run {
        /// The sequence.
        seq: usize,
        /// The position of the first.
        position: usize,
    },
    /// Each by itself: sequence and position.
    Each(&'a [(usize, usize)]),
}

impl Positions<'_> {
    /// The position of the first token, for messages.
    pub(super) fn first_position(&self) -> usize {
        match self {
            Self::Run { position, .. } => *position,
            Self::Each(places) => places.first().map_or(0, |place| place.1),
        }
    }
}

/// For which tokens of a batch logits are wanted.
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
    wanted: Vec<i8>,
}

impl<'a> Batch<'a> {
    /// # Panics
    /// If embeddings are no whole rows of `n_embd`, or there are not as many places as tokens.
    pub fn new(input: Input<'a>, places: Positions<'_>, outputs: Outputs, n_embd: usize) -> Self {
        let n = match input {
            Input::Tokens(ids) => ids.len(),
            Input::Embeddings(rows) => {
                assert!(rows.len().is_multiple_of(n_embd), "whole rows");
                rows.len() / n_embd
            }
        };
        let (seqs, positions): (Vec<i32>, Vec<i32>) = match places {
            Positions::Run { seq, position } => (position..position + n)
                .map(|p| (seq as i32, p as i32))
                .unzip(),
            Positions::Each(each) => each.iter().map(|&(s, p)| (s as i32, p as i32)).unzip(),
        };
        assert_eq!(seqs.len(), n, "a place for every token");
        let mut wanted = vec![i8::from(outputs == Outputs::All); n];
        if let Some(last) = wanted.last_mut() {
            *last = i8::from(outputs != Outputs::None);
        }
        Self {
            input,
            positions,
            seqs,
            seq_pointers: Vec::new(),
            seq_counts: vec![1; n],
            wanted,
        }
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// The C structure; its pointers are good as long as `self` is neither changed nor dropped.
    /// Every array has [`Self::len`] elements, rows of `n_embd` floats for `embd`.
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
            logits: self.wanted.as_mut_ptr(),
        }
    }
}
