//! The model file: one GGUF that contains two more.
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
//! A view is an ordinary GGUF that starts in the middle of the file: llama.cpp opens it through a `FILE` positioned at
//! its offset, and maps the decoder from there. An inner header counts tensor offsets from its own end; they must
//! match the offsets of the outer list. [`Layout`] ensures this when writing, and [`Container::open`] checks it before
//! llama.cpp reads anything. The whole format: `docs/formats.md`.

mod checksum;
mod info;
pub mod keys;
mod layout;
mod open;
mod view;

pub use checksum::{CHECKSUM_LEN, Checksum};
pub use info::{
    BosRule, DecoderInfo, Family, ImageInfo, ModelInfo, PromptInfo, Task, UnmarkedImage,
};
pub use layout::{Layout, Section, View};
pub use open::Container;

use crate::model::gguf::GgufError;

/// A model file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ContainerError {
    /// The file is not a well-formed GGUF, or a required key or tensor is missing.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file is another kind of GGUF.
    #[error(
        "not a model of xc2-convert: expected `general.architecture` {}, found `{found}`",
        keys::ARCHITECTURE
    )]
    NotOurs { found: String },
    /// A later version of the converter wrote the file.
    #[error("container version: expected {}, found {found}", keys::VERSION)]
    Version { found: usize },
    /// A view's header is damaged.
    #[error("view `{view}`")]
    View {
        view: &'static str,
        source: GgufError,
    },
    /// A view lists other tensors than the outer header.
    #[error("view `{view}`: expected the file's next tensor to be {expected}, found {found}")]
    ViewMismatch {
        view: &'static str,
        expected: String,
        found: String,
    },
    /// The data do not match their checksum.
    #[error(
        "checksum of the data: expected {expected}, found {found}: the file is damaged; \
         copy or convert it again"
    )]
    Checksum { expected: String, found: String },
}
