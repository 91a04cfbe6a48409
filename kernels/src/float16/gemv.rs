//! A gemv rows of activations times weights as they lie in memory.
//!
//! A single row that stays in the first-level cache takes output by output: weights follow each other then, and
//! the hardware foresees them best. Others take some outputs at a time, so that activations are read once for
//! all of them. Either asks for the next outputs meanwhile, without which Intel's cores read half as fast.
//! Each product of a row with an output has 16 sums, for every sixteenth input, whatever the number of rows and
//! the instruction ops: so a row's result does not depend on those beside it.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;

use half::{bf16, f16};

use super::Float16Slice;
use crate::tile::prefetch_l2;

/// Operands and place of such a product.
#[derive(Clone, Copy, Debug)]
pub struct Float16Gemv<'a> {
    /// `[n, n_in]`
    pub rows: &'a [f32],
    /// Width of the input.
    pub n_in: usize,
    /// `[n_out, n_in]`
    pub weights: Float16Slice<'a>,
    /// `[n, n_out]`, rows `stride` numbers apart.
    pub out: *mut f32,
    /// See above.
    pub stride: usize,
    /// Whether the products are added to what is there.
    pub add: bool,
}

/// Computes such a product.
///
/// # Safety
/// - The CPU has the set's instructions.
/// - `out` may be written for all rows and outputs, and holds numbers if they are added to; nobody else
///   touches them.
///
/// # Panics
/// If there are no rows, or more than [`MAX_GEMV_ROWS`](super::MAX_GEMV_ROWS), or more outputs than [`MAX_OUTPUTS`].
pub type Float16GemvFn = unsafe fn(&Float16Gemv);

/// A register of f32, and what of an instruction set these products need.
///
/// The functions are for callers that are compiled for the ops, and inlined there.
///
/// # Safety
/// The CPU has the set. Where a function takes a pointer, [`LANES`](Self::LANES) numbers may be read or
/// written there; none needs an alignment.
pub unsafe trait Vector: Copy {
    /// Numbers in it.
    const LANES: usize;
    /// How many there are for sums, beside those for operands.
    const SUM_REGISTERS: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * by + to`
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
}

/// A number of 16 bits.
trait Float16: Copy {
    /// # Safety
    /// As [`Vector`]'s.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    fn to_f32(self) -> f32;
}

impl Float16 for f16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: handed on.
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
        // SAFETY: handed on.
        unsafe { V::load_bf16(from) }
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// Numbers to f32, as [`Float16Ops::to_f32`](super::kernel::Float16Ops::to_f32) says.
///
/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
pub unsafe fn to_f32<V: Vector>(from: Float16Slice, to: &mut [f32]) {
    // SAFETY: handed on.
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
        // SAFETY: so many numbers follow in both.
        unsafe { H::load::<V>(from.as_ptr().add(i)).store(to.as_mut_ptr().add(i)) }
    }
    for (to, from) in to[whole..n].iter_mut().zip(&from[whole..n]) {
        *to = from.to_f32();
    }
}

/// All of a product, as [`Float16GemvFn`] says, with `S` registers of 16 numbers together.
///
/// # Safety
/// As [`Vector`]'s and [`Float16GemvFn`]'s.
#[inline(always)]
pub unsafe fn gemv<V: Vector, const S: usize>(of: &Float16Gemv) {
    // SAFETY: handed on.
    unsafe {
        match of.weights {
            Float16Slice::F16(weights) => by_rows::<V, _, S>(of, weights),
            Float16Slice::Bf16(weights) => by_rows::<V, _, S>(of, weights),
        }
    }
}

/// As many rows and outputs at a time as there are registers for.
///
/// # Safety
/// As [`gemv`].
#[inline(always)]
unsafe fn by_rows<V: Vector, H: Float16, const S: usize>(of: &Float16Gemv, weights: &[H]) {
    let n = of.rows.len() / of.n_in;
    // SAFETY: handed on; rows are the first ones, and those after them.
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
                by_rows::<V, H, S>(&Float16Gemv { rows: first, ..*of }, weights);
                by_rows::<V, H, S>(
                    &Float16Gemv {
                        rows: rest,
                        out,
                        ..*of
                    },
                    weights,
                );
            }
            (n, _) => panic!("{n} rows"),
        }
    }
}

/// All outputs of `R` rows, `N` at a time. Where each takes all rows anew, for as many inputs at a time as
/// stay in the first-level cache beside the weights.
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
    // What outputs have come to; not all of them are used.
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
            // The last gemv are computed with others that are there already.
            let first = from.min(n_out.saturating_sub(N));
            let mut w = [&weights[..0]; N];
            for (i, w) in w.iter_mut().enumerate() {
                *w = &weights[(first + i).min(n_out - 1) * n_in..][..n_in];
            }
            // SAFETY: kept by the block of inputs before, if this is not the first; inputs below `whole` are
            // there in vectors; the rest is handed on.
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
                        // Those that were computed with the former ones are left out, so none is added twice.
                        let out = of.out.add(r * of.stride + first + i);
                        *out = if of.add { *out + sum } else { *sum };
                    }
                }
            }
        }
    }
}

/// Adds the products of `R` rows with `N` outputs for some inputs, whole vectors of them.
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
            // SAFETY: the caller vouches for the vectors.
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

/// What products come to, with the inputs that are no whole vectors.
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
                // SAFETY: as many numbers as the registers have together.
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

/// Float16Slice, and halves of these, added up.
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

/// Outputs at most.
pub const MAX_OUTPUTS: usize = 64;
/// Sums of a product.
const SUMS: usize = 16;
/// Numbers of rows that stay in the first-level cache: half of 32 kB.
const IN_CACHE: usize = 4096;
/// Weights of a cache line.
const LINE: usize = 32;
