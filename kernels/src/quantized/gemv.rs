//! What the GEMV kernels share. They multiply a few rows of activations by weights as they are in
//! memory, several outputs at a time.
#![allow(unsafe_code)]

use super::kernel::QuantizedGemv;
#[cfg(target_arch = "x86_64")]
use crate::tile::L2;
use crate::tile::{L1, PrefetchStream};

/// Computes `N` outputs of `R` rows. The pointers are to the outputs' weights.
pub type OutputsFn<const N: usize, const R: usize> =
    unsafe fn(&QuantizedGemv, [*const u8; N]) -> [[f32; N]; R];

/// Computes all outputs of `R` rows, `N` at a time.
///
/// # Safety
/// As [`QuantizedGemvFn`](super::kernel::QuantizedGemvFn), and `some` is for the format of the
/// weights.
pub unsafe fn by_outputs<const N: usize, const R: usize>(
    rows: &QuantizedGemv,
    some: OutputsFn<N, R>,
) {
    let n_out = rows.n_out;
    for from in (0..n_out).step_by(N) {
        // The last group is moved back to be whole, so it computes some outputs a second time.
        let first = from.min(n_out.saturating_sub(N));
        let outputs: [*const u8; N] = std::array::from_fn(|i| {
            let output = (first + i).min(n_out - 1);
            // SAFETY: within the outputs.
            unsafe { rows.weights.add(output * rows.row_bytes) }
        });
        // SAFETY: the caller's promise.
        let sums = unsafe { some(rows, outputs) };
        let n = N.min(n_out - first);
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: these outputs of each row are valid for writes, by the caller's promise.
            unsafe {
                let out = rows.out.add(r * rows.stride + first);
                out.copy_from_nonoverlapping(sums.as_ptr(), n);
            }
        }
    }
}

/// A `QuantizedGemvFn` from an `OutputsFn`.
macro_rules! gemv_of {
    ($($some:tt)+) => {{
        unsafe fn all(rows: &QuantizedGemv) {
            // SAFETY: the caller's promise.
            unsafe { $crate::quantized::gemv::by_outputs(rows, $($some)+) }
        }
        all
    }};
}
pub(super) use gemv_of;

/// The same from a function that computes `N` outputs of one row.
macro_rules! gemv_of_one_row {
    ($some:ident) => {
        $crate::quantized::gemv::gemv_of!(|row, outputs| [$some(row, outputs)])
    };
}
pub(super) use gemv_of_one_row;

/// Prefetches the weights of the next outputs into the L1 cache while these are computed. There is
/// room for those of two outputs. Rows are consecutive in memory.
#[inline(always)]
pub fn next_outputs<const N: usize>(
    outputs: &[*const u8; N],
    row_bytes: usize,
) -> PrefetchStream<L1> {
    PrefetchStream::from(outputs[0].wrapping_add(N * row_bytes))
}

/// The same into the L2 cache. In L1 the weights of many outputs would evict data in use, and be
/// evicted themselves before they are needed.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn next_outputs_l2<const N: usize>(
    outputs: &[*const u8; N],
    row_bytes: usize,
) -> PrefetchStream<L2> {
    PrefetchStream::from(outputs[0].wrapping_add(N * row_bytes))
}

/// The six-bit scales and minima of a block's eight runs, one per byte.
///
/// # Safety
/// The pointer is to a block of Q4_K or Q5_K.
#[inline(always)]
pub unsafe fn scales_and_minima(block: *const u8) -> (i64, i64) {
    // SAFETY: a block begins with four words.
    let word = |i: usize| unsafe { block.add(4 * i).cast::<u32>().read_unaligned() };
    let (x, y, z) = (word(1), word(2), word(3));
    let high = |x: u32| (x >> 2) & 0x3030_3030;
    let pack = |low: u32, high: u32| (i64::from(high) << 32) | i64::from(low);
    let scales = pack(x & 0x3f3f_3f3f, (z & 0x0f0f_0f0f) | high(x));
    let minima = pack(y & 0x3f3f_3f3f, ((z >> 4) & 0x0f0f_0f0f) | high(y));
    (scales, minima)
}
