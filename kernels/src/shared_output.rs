//! A place for results that several threads write.
#![allow(unsafe_code)]

use crate::tile::prefetch_at;

/// Where results `[n, n_out]` go, for several threads that write parts of it.
#[derive(Clone, Copy, Debug)]
pub struct SharedOutput {
    to: *mut f32,
    /// Numbers from row to row.
    stride: usize,
}

// SAFETY: the functions that write are unsafe and say who may do it when.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    /// Rows that begin `stride` numbers apart.
    pub fn new(to: *mut f32, stride: usize) -> Self {
        Self { to, stride }
    }

    /// Numbers from row to row.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where the numbers of a row from an output on go. It may be used where they may be written.
    pub(crate) fn at(&self, row: usize, output: usize) -> *mut f32 {
        self.to.wrapping_add(row * self.stride + output)
    }

    /// Tells the cache that `n` numbers from a row and an output on will be put there.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: usize, output: usize, n: usize) {
        prefetch_at(self.at(row, output), n);
    }

    /// Puts numbers in place, from a row and an output on.
    ///
    /// # Safety
    /// They may be written there, and nobody else touches them.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, row: usize, output: usize, numbers: &[f32]) {
        // SAFETY: as above.
        unsafe {
            let to = self.at(row, output);
            to.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len());
        }
    }
}
