//! An output matrix that several threads write.
#![allow(unsafe_code)]

use ndarray::ArrayViewMut2;

use crate::tile::prefetch_at;

/// A pointer to an output `[n, n_out]`, of which several threads write disjoint parts.
#[derive(Clone, Copy, Debug)]
pub struct SharedOutput {
    to: *mut f32,
    /// Elements between the starts of two rows.
    stride: usize,
}

// SAFETY: all functions that write are unsafe and state what the caller must guarantee.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    /// An output whose rows start `stride` elements apart.
    pub fn new(to: *mut f32, stride: usize) -> Self {
        Self { to, stride }
    }

    /// The output `out`, whose rows are contiguous.
    ///
    /// # Panics
    /// If a row is not contiguous.
    pub(crate) fn of(out: &mut ArrayViewMut2<f32>) -> Self {
        let [stride, column] = [out.strides()[0], out.strides()[1]];
        assert!(column == 1 || out.ncols() <= 1, "rows must be contiguous");
        Self::new(out.as_mut_ptr(), stride.unsigned_abs())
    }

    /// The same from a column on.
    pub(crate) fn at_column(self, column: usize) -> Self {
        Self {
            to: self.to.wrapping_add(column),
            ..self
        }
    }

    /// Elements between the starts of two rows.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// A pointer to element `output` of `row`. It is valid wherever the output itself is.
    pub(crate) fn at(&self, row: usize, output: usize) -> *mut f32 {
        self.to.wrapping_add(row * self.stride + output)
    }

    /// Prefetches `n` elements of `row`, starting at `output`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: usize, output: usize, n: usize) {
        prefetch_at(self.at(row, output), n);
    }

    /// Adds `numbers` to `row`, starting at `output`.
    ///
    /// # Safety
    /// These elements are valid for reads and writes, and no other thread accesses them.
    #[inline(always)]
    pub(crate) unsafe fn add(&self, row: usize, output: usize, numbers: &[f32]) {
        // SAFETY: the caller's promise.
        let to = unsafe { std::slice::from_raw_parts_mut(self.at(row, output), numbers.len()) };
        to.iter_mut().zip(numbers).for_each(|(to, v)| *to += v);
    }

    /// Stores `numbers` in `row`, starting at `output`.
    ///
    /// # Safety
    /// These elements are valid for writes, and no other thread accesses them.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, row: usize, output: usize, numbers: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.at(row, output);
            to.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len());
        }
    }
}
