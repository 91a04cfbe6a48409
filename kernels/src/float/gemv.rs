//! GEMV: up to eight rows of activations times weights as they are in memory.
//!
//! A single row that fits the L1 cache takes one output after the other, because the hardware
//! prefetches consecutive weights best. Otherwise several outputs are computed at a time, so that
//! activations are read once for all of them. In both cases the next outputs are prefetched;
//! without that, Intel's cores read at half the speed.
//!
//! Each result has 16 partial sums, one for every sixteenth input, for any number of rows and any
//! instruction set. So the result of a row does not depend on the other rows.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;

use half::{bf16, f16};

use super::Float16Slice;
use crate::tile::prefetch_l2;

/// The operands and the output of a GEMV.
#[derive(Clone, Copy, Debug)]
pub struct Float16Gemv<'a> {
    /// `[n, n_in]`
    pub rows: &'a [f32],
    /// Width of the input.
    pub n_in: usize,
    /// `[n_out, n_in]`
    pub weights: Float16Slice<'a>,
    /// `[n, n_out]`, rows `stride` elements apart.
    pub out: *mut f32,
    /// See above.
    pub stride: usize,
    /// Whether the results are added to `out`.
    pub add: bool,
}

/// Computes a GEMV.
///
/// # Safety
/// - The CPU has the instructions.
/// - `out` is valid for writes for all rows and outputs, and initialized if the results are added
///   to it; no other thread accesses it.
///
/// # Panics
/// If there are no rows, or more than [`MAX_GEMV_ROWS`](super::MAX_GEMV_ROWS), or more outputs than
/// [`MAX_OUTPUTS`].
pub type Float16GemvFn = unsafe fn(&Float16Gemv);

/// A register of f32, and the instructions that the GEMV needs.
///
/// The functions are inlined into callers that are compiled for the instruction set.
///
/// # Safety
/// The CPU has the instruction set. Where a function takes a pointer, [`LANES`](Self::LANES)
/// elements are valid for reads or writes there. No alignment is needed.
pub unsafe trait Vector: Copy {
    /// Elements of a register.
    const LANES: usize;
    /// Registers available for sums, besides those for operands.
    const SUM_REGISTERS: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * by + to`
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
}

/// A 16-bit float.
trait Float16: Copy {
    /// # Safety
    /// As [`Vector`]'s.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    fn to_f32(self) -> f32;
}

impl Float16 for f16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(from) }
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

impl Float16 for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(from) }
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// Converts to f32, as [`FloatOps::to_f32`](super::kernel::FloatOps::to_f32).
///
/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
pub unsafe fn to_f32<V: Vector>(from: Float16Slice, to: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match from {
            Float16Slice::F16(from) => slice_to_f32::<V, _>(from, to),
            Float16Slice::Bf16(from) => slice_to_f32::<V, _>(from, to),
        }
    }
}

/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
unsafe fn slice_to_f32<V: Vector, H: Float16>(from: &[H], to: &mut [f32]) {
    let n = from.len().min(to.len());
    let whole = n / V::LANES * V::LANES;
    for i in (0..whole).step_by(V::LANES) {
        // SAFETY: both slices have at least `whole` elements.
        unsafe { H::load::<V>(from.as_ptr().add(i)).store(to.as_mut_ptr().add(i)) }
    }
    for (to, from) in to[whole..n].iter_mut().zip(&from[whole..n]) {
        *to = from.to_f32();
    }
}

/// A whole GEMV, as [`Float16GemvFn`], with `S` registers for 16 partial sums.
///
/// # Safety
/// As [`Vector`]'s and [`Float16GemvFn`]'s.
#[inline(always)]
pub unsafe fn gemv<V: Vector, const S: usize>(of: &Float16Gemv) {
    // SAFETY: the caller's promise.
    unsafe {
        match of.weights {
            Float16Slice::F16(weights) => dispatch_rows::<V, _, S>(of, weights),
            Float16Slice::Bf16(weights) => dispatch_rows::<V, _, S>(of, weights),
        }
    }
}

/// Chooses how many rows and outputs to compute at a time, by the number of registers.
///
/// # Safety
/// As [`gemv`].
#[inline(always)]
unsafe fn dispatch_rows<V: Vector, H: Float16, const S: usize>(of: &Float16Gemv, weights: &[H]) {
    let n = of.rows.len() / of.n_in;
    // SAFETY: the caller's promise; the two calls split the rows.
    unsafe {
        match (n, V::SUM_REGISTERS / S) {
            (1, _) if of.n_in <= IN_CACHE => by_outputs::<V, H, S, 1, 1>(of, weights),
            (1, _) => by_outputs::<V, H, S, 1, 4>(of, weights),
            (2, 8..) => by_outputs::<V, H, S, 2, 4>(of, weights),
            (2, _) => by_outputs::<V, H, S, 2, 3>(of, weights),
            (3, 12..) => by_outputs::<V, H, S, 3, 4>(of, weights),
            (3, _) => by_outputs::<V, H, S, 3, 2>(of, weights),
            (4, 16..) => by_outputs::<V, H, S, 4, 4>(of, weights),
            (4, _) => by_outputs::<V, H, S, 4, 1>(of, weights),
            (5, 20..) => by_outputs::<V, H, S, 5, 4>(of, weights),
            (5, _) => by_outputs::<V, H, S, 5, 1>(of, weights),
            (6, 18..) => by_outputs::<V, H, S, 6, 3>(of, weights),
            (6, _) => by_outputs::<V, H, S, 6, 1>(of, weights),
            (7, 21..) => by_outputs::<V, H, S, 7, 3>(of, weights),
            (8, 24..) => by_outputs::<V, H, S, 8, 3>(of, weights),
            (7 | 8, _) => {
                let (first, rest) = of.rows.split_at(4 * of.n_in);
                let out = of.out.add(4 * of.stride);
                dispatch_rows::<V, H, S>(&Float16Gemv { rows: first, ..*of }, weights);
                dispatch_rows::<V, H, S>(
                    &Float16Gemv {
                        rows: rest,
                        out,
                        ..*of
                    },
                    weights,
                );
            }
            (n, _) => panic!("expected 1 to 8 rows, found {n}"),
        }
    }
}

/// Computes all outputs of `R` rows, `N` at a time. If each output reads all rows again, inputs are
/// split into blocks of which the rows fit the L1 cache beside the weights.
///
/// # Safety
/// As [`gemv`].
#[inline(always)]
unsafe fn by_outputs<V: Vector, H: Float16, const S: usize, const R: usize, const N: usize>(
    of: &Float16Gemv,
    weights: &[H],
) {
    let n_in = of.n_in;
    let n_out = weights.len() / n_in;
    let whole = n_in / SUMS * SUMS;
    assert!(of.rows.len() == R * n_in && n_out <= MAX_OUTPUTS && S * V::LANES == SUMS);
    // Partial sums of each group of outputs between two blocks of inputs; not all entries are used.
    let mut kept = [const { MaybeUninit::<[[[V; S]; N]; R]>::uninit() }; MAX_OUTPUTS];
    let is_read_often = N == 1 && R > 1;
    let block = if is_read_often {
        IN_CACHE / R / LINE * LINE
    } else {
        n_in
    };
    for begin in (0..whole.max(1)).step_by(block) {
        let end = whole.min(begin + block);
        for (kept, from) in kept.iter_mut().zip((0..n_out).step_by(N)) {
            // The last group is moved back to be whole, so it computes some outputs a second time.
            let first = from.min(n_out.saturating_sub(N));
            let mut w = [&weights[..0]; N];
            for (i, w) in w.iter_mut().enumerate() {
                *w = &weights[(first + i).min(n_out - 1) * n_in..][..n_in];
            }
            // SAFETY: the block before wrote `kept`, if this is not the first; vectors of inputs
            // below `whole` are within the rows; the rest is the caller's promise.
            unsafe {
                let mut sums = if begin == 0 {
                    [[[V::zero(); S]; N]; R]
                } else {
                    kept.assume_init()
                };
                add(&mut sums, of.rows, w, begin..end);
                if end < whole {
                    kept.write(sums);
                    continue;
                }
                let found = finished(sums, of.rows, w);
                for (r, found) in found.iter().enumerate() {
                    for (i, sum) in found.iter().enumerate().take(n_out).skip(from - first) {
                        // Outputs that the group before computed are skipped, so that none is added
                        // twice.
                        let out = of.out.add(r * of.stride + first + i);
                        *out = if of.add { *out + sum } else { *sum };
                    }
                }
            }
        }
    }
}

/// Adds the products of `R` rows and `N` outputs for whole vectors of inputs.
///
/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
unsafe fn add<V: Vector, H: Float16, const S: usize, const R: usize, const N: usize>(
    sums: &mut [[[V; S]; N]; R],
    x: &[f32],
    w: [&[H]; N],
    inputs: Range<usize>,
) {
    let n_in = w[0].len();
    for k in inputs.step_by(SUMS) {
        if k % LINE == 0 {
            for w in &w {
                prefetch_l2(w.as_ptr().wrapping_add(N * n_in + k));
            }
        }
        for s in 0..S {
            let k = k + s * V::LANES;
            // SAFETY: the caller's promise, for these vectors.
            unsafe {
                let mut weights = [V::zero(); N];
                for (v, w) in weights.iter_mut().zip(&w) {
                    *v = H::load::<V>(w.as_ptr().add(k));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = V::load(x.as_ptr().add(r * n_in + k));
                    for (sums, w) in sums.iter_mut().zip(weights) {
                        sums[s] = x.mul_add(w, sums[s]);
                    }
                }
            }
        }
    }
}

/// Adds the inputs after the last whole vector and reduces the partial sums.
///
/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
unsafe fn finished<V: Vector, H: Float16, const S: usize, const R: usize, const N: usize>(
    sums: [[[V; S]; N]; R],
    x: &[f32],
    w: [&[H]; N],
) -> [[f32; N]; R] {
    let n_in = w[0].len();
    let mut found = [[0.0; N]; R];
    for (r, (found, sums)) in found.iter_mut().zip(sums).enumerate() {
        for (n, (found, sums)) in found.iter_mut().zip(sums).enumerate() {
            let mut all = [0.0; SUMS];
            for (s, sum) in sums.iter().enumerate() {
                // SAFETY: the registers hold `SUMS` elements together.
                unsafe { sum.store(all.as_mut_ptr().add(s * V::LANES)) }
            }
            for (k, sum) in (n_in / SUMS * SUMS..n_in).zip(&mut all) {
                *sum += x[r * n_in + k] * w[n][k].to_f32();
            }
            *found = sum(all);
        }
    }
    found
}

/// The sum of all elements: pairwise, half onto half.
#[inline(always)]
fn sum(mut sums: [f32; SUMS]) -> f32 {
    let mut n = SUMS / 2;
    while n > 0 {
        let (low, high) = sums.split_at_mut(n);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        n /= 2;
    }
    sums[0]
}

/// Most outputs of a call.
pub const MAX_OUTPUTS: usize = 64;
/// Partial sums of a result.
const SUMS: usize = 16;
/// f32 elements of the rows that fit the L1 cache: half of 32 kB.
const IN_CACHE: usize = 4096;
/// 16-bit weights in a cache line.
const LINE: usize = 32;
