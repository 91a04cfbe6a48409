//! A tensor in a weight file, read a few rows at a time.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use xc2_edge::model::quant::{GgmlType, dequantize};

use super::{CheckpointError, PackedFormat, PackedLinear};

/// An element type in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// A float that converts to `f32` without loss: [`GgmlType::F32`], `F16` or `BF16`.
    Float(GgmlType),
    /// 32-bit words: the packed numbers of 4-bit layouts.
    Int32,
    /// A linear layer in a 4-bit layout, which is read as `f32`.
    Packed(PackedFormat),
    /// Any other type, by its name in the checkpoint. Such tensors may exist (`position_ids`), but cannot be used.
    Other(String),
}

impl Dtype {
    /// Bytes per element, if the type is supported.
    pub fn item_bytes(&self) -> Option<usize> {
        match self {
            Self::Float(ty) => Some(ty.block_bytes()),
            Self::Int32 => Some(4),
            Self::Packed(_) | Self::Other(_) => None,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Float(ty) => ty.fmt(f),
            Self::Int32 => f.pad("i32"),
            Self::Packed(format) => f.pad(format.name()),
            Self::Other(name) => f.pad(name),
        }
    }
}

/// An open weight file.
#[derive(Debug)]
pub struct Shard {
    /// Its path.
    pub path: PathBuf,
    pub(super) file: File,
}

/// A tensor in a weight file: where its elements are; none are read yet.
///
/// Elements are read by position (`pread`), not through a memory map: mapped pages count as memory of the
/// process, and a file that is truncated meanwhile gives an error instead of a signal. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    /// Name in the checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first, as in PyTorch.
    pub shape: Vec<usize>,
    /// Distance, in elements, of neighbours along each dimension.
    strides: Vec<usize>,
    /// Of the first element, in bytes from the start of the file.
    offset: u64,
    shard: Arc<Shard>,
    /// The layer, if it is packed.
    packed: Option<Arc<PackedLinear>>,
}

/// Elements further apart than this are read one by one; closer ones together with the gaps between them.
const MAX_GAP: usize = 32;

impl SourceTensor {
    /// A tensor whose elements are known to be within the file.
    pub(super) fn new(
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: u64,
        shard: Arc<Shard>,
    ) -> Self {
        debug_assert_eq!(shape.len(), strides.len());
        Self {
            name,
            dtype,
            shape,
            strides,
            offset,
            shard,
            packed: None,
        }
    }

    /// A packed linear layer under the name of its dense weight.
    pub(super) fn packed_linear(name: String, linear: Arc<PackedLinear>, of: &Self) -> Self {
        let shape = linear.shape().to_vec();
        Self {
            name,
            dtype: Dtype::Packed(linear.format()),
            strides: row_major(&shape),
            shape,
            offset: of.offset,
            shard: of.shard.clone(),
            packed: Some(linear),
        }
    }

    /// The layer, if it is packed.
    pub fn packed(&self) -> Option<&PackedLinear> {
        self.packed.as_deref()
    }

    /// The file that holds it.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Number of rows: the first dimension, or 1 if there is only one dimension.
    pub fn n_rows(&self) -> usize {
        if self.shape.len() < 2 {
            1
        } else {
            self.shape[0]
        }
    }

    /// Elements of a row: all dimensions after the first.
    pub fn row_len(&self) -> usize {
        let skip = usize::from(self.shape.len() >= 2);
        self.shape[skip..].iter().product()
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the checkpoint; 0 if the type is not supported.
    pub fn n_bytes(&self) -> usize {
        match &self.packed {
            Some(packed) => packed.n_bytes(),
            None => self.n_elements() * self.dtype.item_bytes().unwrap_or(0),
        }
    }

    /// Reads the rows in `range` into `out`, `[range.len(), row_len]`, as `f32`.
    ///
    /// `bytes` is a reusable buffer.
    ///
    /// # Errors
    /// If the elements are not floats, or reading fails.
    ///
    /// # Panics
    /// If the range exceeds the tensor or `out` has the wrong size.
    pub fn read_rows(
        &self,
        range: Range<usize>,
        bytes: &mut Vec<u8>,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        if let Some(packed) = &self.packed {
            return packed.read_rows(range, out);
        }
        let Dtype::Float(ty) = self.dtype else {
            return Err(CheckpointError::Dtype {
                name: self.name.clone(),
                found: self.dtype.to_string(),
            });
        };
        assert!(range.end <= self.n_rows(), "rows of `{}`", self.name);
        assert_eq!(out.len(), range.len() * self.row_len());
        if out.is_empty() {
            return Ok(());
        }
        if self.is_contiguous() {
            return self.read_run(range.start * self.row_len(), ty, bytes, out);
        }
        self.gather(range, ty, bytes, out)
    }

    /// Reads 32-bit words: the `columns` of the `rows` of a matrix, or of a vector, which is one row.
    ///
    /// # Errors
    /// If the elements are not 32-bit integers, or reading fails.
    pub(super) fn read_words(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<u32>, CheckpointError> {
        if self.dtype != Dtype::Int32 {
            return Err(CheckpointError::Packed {
                name: self.name.clone(),
                expected: "32-bit integers".to_owned(),
                found: self.dtype.to_string(),
            });
        }
        assert!(
            rows.end <= self.n_rows() && columns.end <= self.row_len(),
            "words of `{}`",
            self.name
        );
        let (row, column) = match self.strides[..] {
            [row, column] => (row, column),
            _ => (0, self.strides.first().copied().unwrap_or(1)),
        };
        let mut words = Vec::with_capacity(rows.len() * columns.len());
        let mut bytes = Vec::new();
        let mut read = |at: usize, n: usize| {
            bytes.resize(4 * n, 0);
            let offset = self.offset + 4 * at as u64;
            let read = self.shard.file.read_exact_at(&mut bytes, offset);
            read.map_err(CheckpointError::io(&self.shard.path))?;
            words.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|word| u32::from_le_bytes(*word)),
            );
            Ok(())
        };
        for r in rows {
            if column == 1 {
                read(r * row + columns.start, columns.len())?;
            } else {
                columns
                    .clone()
                    .try_for_each(|c| read(r * row + c * column, 1))?;
            }
        }
        Ok(words)
    }

    /// The whole tensor as `f32`; for small tensors.
    ///
    /// # Errors
    /// As [`Self::read_rows`].
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        let mut out = vec![0.0; self.n_elements()];
        self.read_rows(0..self.n_rows(), &mut Vec::new(), &mut out)?;
        Ok(out)
    }

    /// Whether the elements are contiguous in row-major order. Strides of dimensions of length 1 are ignored.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&len, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if len != 1 && stride != expected {
                return false;
            }
            expected *= len;
        }
        true
    }

    /// Reads contiguous elements, starting `at` elements after the tensor's first.
    fn read_run(
        &self,
        at: usize,
        ty: GgmlType,
        bytes: &mut Vec<u8>,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let item = ty.block_bytes();
        bytes.resize(out.len() * item, 0);
        let offset = self.offset + (at * item) as u64;
        let read = self.shard.file.read_exact_at(bytes, offset);
        read.map_err(CheckpointError::io(&self.shard.path))?;
        dequantize(ty, bytes, out);
        Ok(())
    }

    /// Reads a view with gaps or with dimensions in another order: reads runs along the dimension with the
    /// smallest stride, and counts through all others.
    fn gather(
        &self,
        rows: Range<usize>,
        ty: GgmlType,
        bytes: &mut Vec<u8>,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let mut shape = self.shape.clone();
        let first = rows.start * if shape.len() >= 2 { self.strides[0] } else { 0 };
        if shape.len() >= 2 {
            shape[0] = rows.len();
        }
        let mut out_strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            out_strides[i - 1] = out_strides[i] * shape[i];
        }
        let candidates = (0..shape.len()).filter(|&i| shape[i] > 1);
        let along = candidates.min_by_key(|&i| self.strides[i]).unwrap_or(0);
        let (run_len, gap) = (shape[along], self.strides[along]);
        let mut index = vec![0; shape.len()];
        let mut run = Vec::new();
        loop {
            let dot = |strides: &[usize]| -> usize {
                index
                    .iter()
                    .zip(strides)
                    .map(|(i, stride)| i * stride)
                    .sum()
            };
            let (source, target) = (first + dot(&self.strides), dot(&out_strides));
            if gap <= MAX_GAP {
                run.resize((run_len - 1) * gap + 1, 0.0);
                self.read_run(source, ty, bytes, &mut run)?;
                for i in 0..run_len {
                    out[target + i * out_strides[along]] = run[i * gap];
                }
            } else {
                for i in 0..run_len {
                    let at = target + i * out_strides[along];
                    self.read_run(source + i * gap, ty, bytes, &mut out[at..=at])?;
                }
            }
            if !advance(&mut index, &shape, along) {
                return Ok(());
            }
        }
    }
}

/// Increments `index` within `shape`, except dimension `skip`; returns false after the last index.
fn advance(index: &mut [usize], shape: &[usize], skip: usize) -> bool {
    for i in (0..shape.len()).rev().filter(|&i| i != skip) {
        index[i] += 1;
        if index[i] < shape[i] {
            return true;
        }
        index[i] = 0;
    }
    false
}

/// Strides of a contiguous tensor.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A tensor over a file that holds the numbers 0, 1, 2, ... as `f32`.
    fn view(shape: &[usize], strides: &[usize], first: u64) -> SourceTensor {
        let mut file = tempfile::tempfile().unwrap();
        for i in 0..1000u16 {
            file.write_all(&f32::from(i).to_le_bytes()).unwrap();
        }
        let path = PathBuf::from("numbers");
        let shard = Arc::new(Shard { path, file });
        let dtype = Dtype::Float(GgmlType::F32);
        SourceTensor::new(
            "t".to_owned(),
            dtype,
            shape.to_vec(),
            strides.to_vec(),
            first * 4,
            shard,
        )
    }

    fn rows(tensor: &SourceTensor, range: Range<usize>) -> Vec<f32> {
        let mut out = vec![-1.0; range.len() * tensor.row_len()];
        tensor.read_rows(range, &mut Vec::new(), &mut out).unwrap();
        out
    }

    #[test]
    fn contiguous_rows_are_read_from_their_offset() {
        assert_eq!(
            rows(&view(&[3, 2], &[2, 1], 10), 1..3),
            [12., 13., 14., 15.]
        );
        assert_eq!(rows(&view(&[4], &[1], 5), 0..1), [5., 6., 7., 8.]);
    }

    #[test]
    fn a_transposed_view_is_read_in_its_own_order() {
        // Storage [2, 3] seen as [3, 2].
        let tensor = view(&[3, 2], &[1, 3], 0);
        assert_eq!(tensor.to_f32().unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(rows(&tensor, 1..2), [1., 4.]);
    }

    #[test]
    fn views_with_gaps_steps_and_repeats_are_gathered() {
        assert_eq!(
            view(&[2, 2], &[10, 1], 3).to_f32().unwrap(),
            [3., 4., 13., 14.]
        );
        assert_eq!(view(&[3], &[2], 1).to_f32().unwrap(), [1., 3., 5.]);
        assert_eq!(
            view(&[2, 2], &[0, 1], 7).to_f32().unwrap(),
            [7., 8., 7., 8.]
        );
        assert_eq!(
            view(&[2, 2], &[100, 50], 0).to_f32().unwrap(),
            [0., 50., 100., 150.]
        );
    }

    #[test]
    fn any_permutation_of_dimensions_equals_indexing() {
        let (a, b, c) = (2, 3, 4);
        for [i, j, k] in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let (dims, steps) = ([a, b, c], [b * c, c, 1]);
            let tensor = view(
                &[dims[i], dims[j], dims[k]],
                &[steps[i], steps[j], steps[k]],
                0,
            );
            let mut expected = Vec::new();
            for x in 0..dims[i] {
                for y in 0..dims[j] {
                    for z in 0..dims[k] {
                        expected.push((x * steps[i] + y * steps[j] + z * steps[k]) as f32);
                    }
                }
            }
            assert_eq!(tensor.to_f32().unwrap(), expected, "{i}{j}{k}");
        }
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let tensor = view(&[2000], &[1], 0);
        assert!(matches!(tensor.to_f32(), Err(CheckpointError::Io { .. })));
    }
}
