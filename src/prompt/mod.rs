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

mod mask;
mod sequence;
mod template;

pub use mask::{PloraMask, PloraPolicy};
pub use sequence::{Run, Sequence};
pub use template::{Chat, PromptLayout, Template};

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
