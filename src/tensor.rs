//! A tensor as it lies in a file: name, type, shape, and a counted reference to its bytes.
//!
//! A tensor of a model file is a window into the memory map, which stays alive as long as any
//! window of it does. Nothing is expanded until somebody asks for rows, so a model costs no memory
//! beyond the pages that are touched.

use std::ops::Range;

use bytes::Bytes;

use crate::quant::{GgmlType, dequantize};

/// A tensor in its stored type. The data are whole rows of [`Self::n_cols`] elements, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name in the file, for messages.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// Dimensions in GGUF order: `shape[0]` runs fastest, so a `[out, in]` matrix is `[in, out]`.
    pub shape: Vec<usize>,
    /// The data, `n_rows * row_bytes` long.
    pub data: Bytes,
}

impl Tensor {
    /// Length of a row: the fastest dimension.
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

    /// Expands the rows in `range` into `out`, `[range.len(), n_cols]`.
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

/// Anything that has tensors by name: a GGUF file, or a map built in a test.
pub trait TensorSource {
    /// The tensor of that name, or `None`.
    fn tensor(&self, name: &str) -> Option<Tensor>;
}
