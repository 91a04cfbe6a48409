//! What can be wrong with a vision tower.

use thiserror::Error;

use crate::model::{VisionConfigError, quant::GgmlType};

/// A vision tower that cannot be built.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VisionError {
    /// A number of the model's metadata is out of range or contradicts another.
    #[error(transparent)]
    Config(#[from] VisionConfigError),
    /// The model has no tensor of this name.
    #[error("tensor `{name}`: expected {expected:?}, found none")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// The shape it must have, GGUF order.
        expected: Vec<usize>,
    },
    /// A tensor's shape disagrees with the metadata.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// The shape it must have, GGUF order.
        expected: Vec<usize>,
        /// The shape it has, GGUF order.
        found: Vec<usize>,
    },
    /// A tensor's type cannot hold it, or is not a type of numbers.
    #[error("tensor `{name}`: expected {expected}, found {found}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// The types it may have.
        expected: &'static str,
        /// The type it has.
        found: GgmlType,
    },
    /// A tensor has more or fewer bytes than its shape and type say.
    #[error("tensor `{name}`: expected {expected} bytes, found {found}")]
    Data {
        /// Name of the tensor.
        name: String,
        /// Bytes that its shape and type need.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
}
