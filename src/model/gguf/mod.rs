//! GGUF version 3: the header of a file, read and written.
//!
//! ```text
//! "GGUF"  u32 version  u64 n_tensors  u64 n_metadata
//! metadata: string key, u32 type, value             (string = u64 length + UTF-8)
//! tensors:  string name, u32 n_dims, u64 dims[], u32 type, u64 offset
//! padding to the alignment; then the tensors' data, offsets counted from here
//! ```
//!
//! [`Header`] is this as a value: [`Header::parse`] reads it from untrusted bytes and
//! [`Header::encode`] writes it. [`GgufFile`] maps a whole file and hands out its tensors. What the
//! keys mean is not known here.
//!
//! The reader is our own because a model file is untrusted input: every length is held against the
//! bytes that are left before anything is allocated, and every tensor against the end of the file
//! (`tests/hostile_gguf.rs`).

mod file;
mod header;
mod reader;
mod value;

pub use file::GgufFile;
pub use header::{Header, TensorInfo};
pub use value::{Metadata, Value, ValueType};

/// Alignment of tensor data, in bytes. GGUF allows others; we write and read its default only.
pub const ALIGNMENT: usize = 32;

/// What is wrong with a GGUF file. Messages name the key, tensor or field, what was expected and
/// what was found; the path is added by whoever opened the file.
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
    /// A field has a value that it cannot have.
    #[error("{field}: expected {expected}, found {found}")]
    Invalid {
        field: String,
        expected: String,
        found: String,
    },
    /// A metadata key that must be there is not.
    #[error("metadata key `{key}` is missing")]
    MissingKey { key: String },
    /// A tensor that must be there is not.
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
}

impl GgufError {
    /// A field with an impossible value.
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
