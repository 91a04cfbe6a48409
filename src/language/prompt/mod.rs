//! From a conversation to the decoder's sequence.
//!
//! ```text
//! Chat ──Template──▶ Piece (id | text | picture) ──tokenizer──▶ Sequence (runs of tokens, pictures)
//!                                                                   │
//!                                                                   └──▶ PloraMask (true on pictures)
//! ```
//!
//! Control tokens are inserted as ids, never parsed from text, so typed text can neither start nor end a turn.

mod key;
mod mask;
mod sequence;
mod template;

pub use key::{PictureId, PromptKey};
pub use mask::{PloraMask, PloraPolicy};
pub use sequence::{Run, Sequence};
pub use template::{Chat, PromptLayout, Template};

/// A sequence with its mask and its key, ready for the decoder.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Tokens and pictures.
    pub sequence: Sequence,
    /// The positions that the adapter applies to.
    pub mask: PloraMask,
    /// The content of each position, for comparison with other prompts.
    pub prompt_key: PromptKey,
}

impl Prompt {
    /// `sequence` with the mask of `policy`; `pictures[i]` is the identity of picture `i`.
    pub fn new(sequence: Sequence, policy: PloraPolicy, pictures: &[PictureId]) -> Self {
        let mask = sequence.plora_mask(policy);
        let prompt_key = PromptKey::new(&sequence, &mask, pictures);
        Self {
            sequence,
            mask,
            prompt_key,
        }
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.prompt_key.len()
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.prompt_key.is_empty()
    }

    /// The indices of the pictures with rows at or after `position`, in the order of the prompt.
    pub fn pictures_from(&self, position: usize) -> Vec<usize> {
        let mut end = 0;
        let indices = self.sequence.runs().iter().filter_map(|run| {
            end += run.len();
            match run {
                Run::Image { index, .. } if end > position => Some(*index),
                _ => None,
            }
        });
        indices.collect()
    }

    /// Whether the adapter applies to any position at or after `position`.
    pub fn plora_from(&self, position: usize) -> bool {
        let runs = self.mask.set_runs();
        runs.last().is_some_and(|(start, n)| start + n > position)
    }
}

/// What is wrong with a prompt.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PromptError {
    /// The numbers of markers and pictures differ.
    #[error(
        "expected one `{marker}` per picture or none, found {markers} `{marker}` for {images} \
         pictures"
    )]
    Markers {
        marker: String,
        markers: usize,
        images: usize,
    },
    /// The layout decides where pictures go, but the text has a marker.
    #[error("this layout puts pictures before the question; expected no `{marker}` in it")]
    MarkersNotTaken { marker: String },
    /// There is neither text nor a picture.
    #[error("the prompt is empty")]
    Empty,
}
