//! A tensor as stored in a file: name, type, shape, and a reference-counted slice of bytes.
//!
//! A tensor of a model file is a slice of the memory map and keeps the map alive. Rows are dequantized on demand, so a
//! model costs no memory beyond the pages that are touched.

use std::{
    ops::{Deref, Range},
    sync::Arc,
};

use bytes::Bytes;

use crate::model::{
    FileMap,
    quant::{GgmlType, dequantize},
};

/// A tensor in its stored type: rows of [`Self::n_cols`] elements, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name in the file, for error messages.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// Dimensions in GGUF order: `shape[0]` varies fastest, so a `[out, in]` matrix is `[in, out]`.
    pub shape: Vec<usize>,
    /// The data, `n_rows * row_bytes` long.
    pub data: TensorData,
}

impl Tensor {
    /// Length of a row: the fastest-varying dimension.
    pub fn n_cols(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Number of rows: the product of the other dimensions.
    pub fn n_rows(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.n_cols() * self.n_rows()
    }

    /// Dequantizes the rows in `range` into `out`, `[range.len(), n_cols]`.
    ///
    /// # Panics
    /// If the range exceeds the tensor or `out` has another size.
    pub fn rows_into(&self, range: Range<usize>, out: &mut [f32]) {
        let row_bytes = self
            .ty
            .row_bytes(self.n_cols())
            .expect("checked when the file was opened");
        let data = &self.data[range.start * row_bytes..range.end * row_bytes];
        dequantize(self.ty, data, out);
    }

    /// The whole tensor as `f32`, in file order.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n_elements()];
        self.rows_into(0..self.n_rows(), &mut out);
        out
    }
}

/// The bytes of a tensor: in memory, or a slice of a mapped file.
#[derive(Clone, Debug)]
pub struct TensorData {
    bytes: Bytes,
    map: Option<(Arc<FileMap>, Range<usize>)>,
}

impl TensorData {
    /// A slice of a mapped file: `bytes` are those in `range` of `map`.
    pub fn mapped(bytes: Bytes, map: Arc<FileMap>, range: Range<usize>) -> Self {
        let map = Some((map, range));
        Self { bytes, map }
    }

    /// Returns the memory of a mapped slice to the system; the next read loads it from the file. Does nothing for data
    /// in memory.
    pub fn release(&self) {
        if let Some((map, range)) = &self.map {
            map.release(range.clone());
        }
    }
}

impl PartialEq for TensorData {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl From<Bytes> for TensorData {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, map: None }
    }
}

impl Deref for TensorData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A source of tensors by name, such as a GGUF file.
pub trait TensorSource {
    /// The tensor with this name, if there is one.
    fn tensor(&self, name: &str) -> Option<Tensor>;
}
