//! Reading and writing GGUF, version 3.
//!
//! ```text
//! "GGUF"  u32 version  u64 n_tensors  u64 n_metadata
//! metadata: string key, u32 type, value             (string = u64 length + UTF-8)
//! tensors:  string name, u32 n_dims, u64 dims[], u32 type, u64 offset
//! padding to the alignment; then the tensors' data, offsets counted from here
//! ```
//!
//! [`Header::parse`] reads a header from untrusted bytes and [`Header::encode`] writes it. [`GgufFile`] maps a whole
//! file and provides its tensors. This module does not interpret the keys.
//!
//! The reader is our own because a model file is untrusted input: every length is compared with the bytes left before
//! memory is allocated, and every tensor with the end of the file (`tests/it/hostile_gguf.rs`).

mod file;
mod header;
mod reader;
mod value;

pub use file::GgufFile;
pub use header::{Header, TensorInfo};
pub use value::{Metadata, Value, ValueType};

/// Alignment of tensor data, in bytes. GGUF allows others; only this default is read and written.
pub const ALIGNMENT: usize = 32;

/// An invalid GGUF file. Messages name the key, tensor or field, what was expected and what was found; the caller adds
/// the path.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GgufError {
    /// The file cannot be opened, read or mapped.
    #[error("cannot read the file")]
    Io(#[from] std::io::Error),
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: expected it to begin with `GGUF`, found {found}")]
    Magic { found: String },
    /// A version other than 3.
    #[error("GGUF version: expected 3, found {found}")]
    Version { found: u32 },
    /// The bytes end within a field, or a declared length exceeds them.
    #[error("{field}: {needed} bytes needed, {left} left: the file is truncated or damaged")]
    Truncated {
        field: String,
        needed: u64,
        left: u64,
    },
    /// A field has an invalid value.
    #[error("{field}: expected {expected}, found {found}")]
    Invalid {
        field: String,
        expected: String,
        found: String,
    },
    /// A required metadata key is missing.
    #[error("metadata key `{key}` is missing")]
    MissingKey { key: String },
    /// A required tensor is missing.
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
}

impl GgufError {
    /// [`Self::Invalid`] from anything that can be formatted.
    pub(crate) fn invalid(
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Invalid {
            field: field.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// `n` rounded up to the alignment.
pub fn align(n: usize) -> usize {
    n.next_multiple_of(ALIGNMENT)
}
