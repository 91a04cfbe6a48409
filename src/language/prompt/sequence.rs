//! What the decoder is fed: token ids and pictures, in order.

use super::{PloraMask, PloraPolicy};

/// A stretch of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Token ids.
    Tokens(Vec<i32>),
    /// A picture: the rows of its projected embeddings.
    Image {
        /// Which of the pictures given, from zero.
        index: usize,
        /// Number of rows.
        n_tokens: usize,
    },
}

impl Run {
    /// Positions that the run takes.
    pub fn len(&self) -> usize {
        match self {
            Self::Tokens(ids) => ids.len(),
            Self::Image { n_tokens, .. } => *n_tokens,
        }
    }

    /// Whether the run takes none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A prompt as the decoder sees it. Positions count through text and pictures alike, from zero.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sequence {
    runs: Vec<Run>,
}

impl Sequence {
    /// Appends ids.
    pub fn push_tokens(&mut self, ids: &[i32]) {
        match self.runs.last_mut() {
            _ if ids.is_empty() => {}
            Some(Run::Tokens(last)) => last.extend(ids),
            _ => self.runs.push(Run::Tokens(ids.to_vec())),
        }
    }

    /// Appends picture `index`.
    pub fn push_image(&mut self, index: usize, n_tokens: usize) {
        self.runs.push(Run::Image { index, n_tokens });
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.runs.iter().map(Run::len).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of positions that pictures take.
    pub fn n_image_tokens(&self) -> usize {
        self.runs
            .iter()
            .filter(|r| matches!(r, Run::Image { .. }))
            .map(Run::len)
            .sum()
    }

    /// The mask that `policy` gives this sequence.
    pub fn plora_mask(&self, policy: PloraPolicy) -> PloraMask {
        let mut mask = PloraMask::default();
        for run in &self.runs {
            let bit = match policy {
                PloraPolicy::Images => matches!(run, Run::Image { .. }),
                PloraPolicy::Nowhere => false,
                PloraPolicy::Everywhere => true,
            };
            mask.extend(run.len(), bit);
        }
        mask
    }
}
