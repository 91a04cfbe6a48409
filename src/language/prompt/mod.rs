//! From a conversation to the sequence that the decoder sees.
//!
//! ```text
//! Chat ──Template──▶ Piece (id | text | picture) ──tokenizer──▶ Sequence (runs of tokens, pictures)
//!                                                                   │
//!                                                                   └──▶ PloraMask (true on pictures)
//! ```
//!
//! Control tokens come from ids and never from text, so nothing that a person types can end a turn
//! or begin one.

mod key;
mod mask;
mod sequence;
mod template;

pub use key::{PictureId, PromptKey};
pub use mask::{PloraMask, PloraPolicy};
pub use sequence::{Run, Sequence};
pub use template::{Chat, PromptLayout, Template};

/// A sequence with its mask and its trace, ready for the decoder.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Tokens and pictures.
    pub sequence: Sequence,
    /// Which positions see the adapter.
    pub mask: PloraMask,
    /// What tells it from other prompts.
    pub prompt_key: PromptKey,
}

impl Prompt {
    /// `sequence` under the mask of `policy`; `pictures[i]` is the identity of picture `i`.
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

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.prompt_key.is_empty()
    }

    /// Which pictures have rows at or after `position`, in the order of the prompt.
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

    /// Whether a position at or after `position` sees the adapter.
    pub fn plora_from(&self, position: usize) -> bool {
        let runs = self.mask.set_runs();
        runs.last().is_some_and(|(begin, n)| begin + n > position)
    }
}

/// What is wrong with a prompt.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PromptError {
    /// Markers and pictures do not pair up.
    #[error("the prompt has {markers} `{marker}` for {images} pictures: one each, or none at all")]
    Markers {
        marker: String,
        markers: usize,
        images: usize,
    },
    /// A marker where the layout has its own place for pictures.
    #[error("this layout puts pictures before the question; expected no `{marker}` in it")]
    MarkersNotTaken { marker: String },
    /// Nothing was asked.
    #[error("the prompt is empty")]
    Empty,
}
