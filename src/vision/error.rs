//! Errors of the vision tower.

use thiserror::Error;

use crate::model::{VisionConfigError, quant::GgmlType};

/// A vision tower that cannot be built.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VisionError {
    /// A hyper-parameter is out of range or contradicts another.
    #[error(transparent)]
    Config(#[from] VisionConfigError),
    /// The model has no tensor of this name.
    #[error("tensor `{name}`: expected {expected:?}, found none")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// Its required shape, GGUF order.
        expected: Vec<usize>,
    },
    /// A tensor's shape disagrees with the metadata.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its required shape, GGUF order.
        expected: Vec<usize>,
        /// Its shape, GGUF order.
        found: Vec<usize>,
    },
    /// The type of a tensor cannot hold it or is not numeric.
    #[error("tensor `{name}`: expected {expected}, found {found}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// The allowed types.
        expected: &'static str,
        /// Its type.
        found: GgmlType,
    },
    /// The data of a tensor are longer or shorter than its shape and type require.
    #[error("tensor `{name}`: expected {expected} bytes, found {found}")]
    Data {
        /// Name of the tensor.
        name: String,
        /// Bytes that its shape and type require.
        expected: usize,
        /// Bytes in the file.
        found: usize,
    },
}
