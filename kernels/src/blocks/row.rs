//! What kernels for one row of activations have in common: weights are read as they lie in memory, the
//! rows of some outputs side by side.
#![allow(unsafe_code)]

use super::kernel::Row;
use crate::tile::prefetch_at;

/// Computes so many outputs of a row, whose weights begin there.
pub type SomeOutputs<const N: usize> = unsafe fn(&Row, [*const u8; N]) -> [f32; N];

/// Computes all outputs of a row, `N` at a time.
///
/// # Safety
/// As [`RowFunction`](super::kernel::RowFunction), for `some` that computes the format's outputs.
pub unsafe fn by_outputs<const N: usize>(row: &Row, out: &mut [f32], some: SomeOutputs<N>) {
    let whole = out.len() / N * N;
    for (i, out) in out.chunks_mut(N).enumerate() {
        // The last few are computed with others that are there already.
        let first = if i * N < whole {
            i * N
        } else {
            row.n_out.saturating_sub(N)
        };
        let skip = i * N - first;
        let rows: [*const u8; N] = std::array::from_fn(|j| {
            let output = (first + j).min(row.n_out - 1);
            // SAFETY: within the outputs.
            unsafe { row.weights.add(output * row.row_bytes) }
        });
        // SAFETY: the caller vouches for the CPU and the rows.
        let sums = unsafe { some(row, rows) };
        let n = out.len();
        out.copy_from_slice(&sums[skip..skip + n]);
    }
}

/// A `RowFunction` of a `SomeOutputs`.
macro_rules! all_outputs {
    ($some:ident) => {{
        unsafe fn all(row: &Row, out: &mut [f32]) {
            // SAFETY: handed on.
            unsafe { $crate::blocks::row::by_outputs(row, out, $some) }
        }
        all
    }};
}
pub(super) use all_outputs;

/// Asks for the same bytes of the outputs that follow those `N`: rows lie one behind the other, so this is
/// what is next, each line once.
#[inline(always)]
pub fn ask_ahead<const N: usize>(at: *const u8, bytes: usize, row_bytes: usize) {
    prefetch_at(at.wrapping_add(N * row_bytes), bytes);
}

/// Six-bit scales and minima of a block's eight runs, a byte each.
///
/// # Safety
/// A block of Q4_K or Q5_K begins there.
#[inline(always)]
pub unsafe fn scales_and_minima(block: *const u8) -> (i64, i64) {
    // SAFETY: it begins with four words.
    let word = |i: usize| unsafe { block.add(4 * i).cast::<u32>().read_unaligned() };
    let (x, y, z) = (word(1), word(2), word(3));
    let high = |x: u32| (x >> 2) & 0x3030_3030;
    let pack = |low: u32, high: u32| (i64::from(high) << 32) | i64::from(low);
    let scales = pack(x & 0x3f3f_3f3f, (z & 0x0f0f_0f0f) | high(x));
    let minima = pack(y & 0x3f3f_3f3f, ((z >> 4) & 0x0f0f_0f0f) | high(y));
    (scales, minima)
}
