//! The decoder's input: token ids and pictures, in order.

use super::{PloraMask, PloraPolicy};

/// Neighbouring positions of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Token ids.
    Tokens(Vec<i32>),
    /// A picture: the rows of its projected embeddings.
    Image {
        /// The index of the picture in the request, from zero.
        index: usize,
        /// Number of rows.
        n_tokens: usize,
    },
}

impl Run {
    /// Number of positions.
    pub fn len(&self) -> usize {
        match self {
            Self::Tokens(ids) => ids.len(),
            Self::Image { n_tokens, .. } => *n_tokens,
        }
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A prompt as runs of tokens and pictures. Positions are numbered from zero, through text and pictures alike.
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

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of positions of pictures.
    pub fn n_image_tokens(&self) -> usize {
        self.runs
            .iter()
            .filter(|r| matches!(r, Run::Image { .. }))
            .map(Run::len)
            .sum()
    }

    /// The mask of this sequence under `policy`.
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
