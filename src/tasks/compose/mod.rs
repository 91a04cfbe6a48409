//! Free-form text-image composition: an article with pictures in fitting places.
//!
//! ```text
//! Brief, pictures ─▶ article ─▶ positions ─┬─ pictures given: selection ─────────────────────▶ Composition
//!                                          └─ library: caption ─▶ search ─▶ selection ───────▶  │
//!                                                                                 Markdown, HTML ◀┘
//! ```
//!
//! Each stage fills a prompt of the published model ([`Prompts`], files that users can replace), gets an answer
//! and parses it ([`reply`]). Every unusable answer has a fallback, which [`Composition::notes`] reports.
//!
//! | module | contents |
//! |---|---|
//! | [`prompts`], [`brief`] | the prompts and the user's request |
//! | [`chat_model`] | the model that answers |
//! | [`reply`], [`repetition`] | parsing of answers |
//! | [`composer`], [`place`] | the stages in order |
//! | [`edit`] | edits of a finished article |
//! | [`library`] | captioned pictures and their full-text search |
//! | [`composition`], [`output`] | the result and its file formats |

pub mod body;
pub mod brief;
pub mod chat_model;
pub mod composer;
pub mod composition;
pub mod edit;
mod fit;
pub mod library;
pub mod output;
pub mod pattern;
pub mod place;
pub mod prompts;
pub mod repetition;
pub mod reply;
mod watch;

pub use brief::Brief;
pub use chat_model::{ChatModel, EngineChatModel};
pub use composer::{ComposeOptions, Composer, Count};
pub use composition::{Composition, Placed, Stage, StageRecord};
pub use library::Library;
pub use prompts::{Language, Prompts};
pub use watch::Watch;

use crate::engine::EngineError;

/// Why a composition failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ComposeError {
    /// The model failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The library of pictures failed.
    #[error(transparent)]
    Library(#[from] library::LibraryError),
    /// The article has no text.
    #[error("the model wrote nothing")]
    Nothing,
    /// The caller stopped it.
    #[error("interrupted")]
    Interrupted,
    /// There is no such section.
    #[error("section {n}: the article has sections 0 to {last}")]
    NoSection { n: usize, last: usize },
    /// The section has no picture.
    #[error("section {n} has no picture; those with one: {with}")]
    NoPicture { n: usize, with: String },
    /// There is no other picture.
    #[error("section {n}: there is no other picture to choose")]
    NoOther { n: usize },
}
