//! The model file: one GGUF that is also three.
//!
//! ```text
//! outer header      lists every tensor below, the two views included
//! v.*               vision tower
//! mm.*              projector
//! xc2.view.adapter  I8: the bytes of a complete GGUF header, padded to 32
//! blk.N.*.lora_a/b  Partial-LoRA, as that header lists them
//! xc2.view.decoder  I8: likewise, with the decoder's metadata and vocabulary
//! token_embd ...    the decoder's tensors, as that header lists them
//! ```
//!
//! A view is an ordinary GGUF that begins in the middle of the file: llama.cpp opens it through a
//! `FILE` that stands at its offset, and maps the decoder from there. For that the offsets which an
//! inner header counts from its own end must meet the offsets of the outer list; [`Layout`] makes
//! it so when writing, and [`Container::open`] checks it before anything is handed to llama.cpp.
//! The format in full: `docs/formats.md`.

mod checksum;
mod info;
pub mod keys;
mod layout;
mod open;
mod view;

pub use checksum::{CHECKSUM_LEN, Checksum};
pub use info::{BosRule, DecoderInfo, Family, ImageInfo, ModelInfo, PromptInfo};
pub use layout::{Layout, Section, View};
pub use open::Container;

use crate::model::gguf::GgufError;

/// What is wrong with a model file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ContainerError {
    /// It is not a well-formed GGUF file, or a key or tensor that every model has is missing.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A GGUF file of another kind.
    #[error(
        "not a model of xc2-convert: expected `general.architecture` {}, found `{found}`",
        keys::ARCHITECTURE
    )]
    NotOurs { found: String },
    /// Written by a later version of the converter.
    #[error("container version: expected {}, found {found}", keys::VERSION)]
    Version { found: usize },
    /// A view's header is damaged.
    #[error("view `{view}`")]
    View {
        view: &'static str,
        source: GgufError,
    },
    /// A view describes other tensors than the outer header.
    #[error("view `{view}`: expected the file's next tensor to be {expected}, found {found}")]
    ViewMismatch {
        view: &'static str,
        expected: String,
        found: String,
    },
    /// The data are not those that were written.
    #[error(
        "checksum of the data: expected {expected}, found {found}: the file is damaged; \
         copy or convert it again"
    )]
    Checksum { expected: String, found: String },
}
