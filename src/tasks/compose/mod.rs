//! Free-form text-image composition: an article with the right pictures in the right places.
//!
//! ```text
//! Brief, pictures ─▶ article ─▶ positions ─┬─ pictures given: selection ─────────────────────▶ Composition
//!                                          └─ library: caption ─▶ search ─▶ selection ───────▶  │
//!                                                                                 Markdown, HTML ◀┘
//! ```
//!
//! Every stage is a prompt of the published model ([`Prompts`], files a person can read and
//! replace), an answer, and a reading of it ([`reply`]). What the model gets wrong has a stated
//! way out, which is told in [`Composition::notes`].
//!
//! | module | what it knows |
//! |---|---|
//! | [`prompts`], [`brief`] | what is asked |
//! | [`responder`] | who answers |
//! | [`reply`], [`repetition`] | what an answer means |
//! | [`composer`] | the way through the stages |
//! | [`edit`] | changes to a finished article |
//! | [`library`] | pictures with captions, and the search among them |
//! | [`composition`], [`output`] | the result, and the files made of it |

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

/// Why there is no article.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ComposeError {
    /// The model cannot be asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The library of pictures.
    #[error(transparent)]
    Library(#[from] library::LibraryError),
    /// The article has no text.
    #[error("the model wrote nothing")]
    Nothing,
    /// The caller had enough.
    #[error("interrupted")]
    Interrupted,
    /// A section that there is not.
    #[error("section {n}: the article has sections 0 to {last}")]
    NoSection { n: usize, last: usize },
    /// A place without a picture.
    #[error("section {n} has no picture; those with one: {with}")]
    NoPicture { n: usize, with: String },
    /// Nothing to take in its place.
    #[error("section {n}: there is no other picture to choose")]
    NoOther { n: usize },
}
