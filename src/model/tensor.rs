//! A tensor as stored in a file: name, type, shape, and a reference-counted slice of bytes.
//!
//! A tensor of a model file is a slice of the memory map and keeps the map alive. Rows are dequantized on demand, so a
//! model costs no memory beyond the pages that are touched.

use std::ops::Range;

use bytes::Bytes;

use crate::model::quant::{GgmlType, dequantize};

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
    pub data: Bytes,
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

/// A source of tensors by name, such as a GGUF file.
pub trait TensorSource {
    /// The tensor with this name, if there is one.
    fn tensor(&self, name: &str) -> Option<Tensor>;
}
