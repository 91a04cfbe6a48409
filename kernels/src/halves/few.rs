//! A few rows of activations times weights as they lie in memory.
//!
//! Some outputs at a time, input by input, so that a weight is widened once for all rows; each product of a
//! row with an output has a register of sums of its own, so that its order is the same however many rows
//! there are. The outputs that follow are asked for meanwhile: rows lie one behind the other.
#![allow(unsafe_code)]

use half::{bf16, f16};

use super::Halves;
use crate::tile::prefetch_at;

/// Operands and place of such a product.
#[derive(Clone, Copy, Debug)]
pub struct Few<'a> {
    /// `[n, n_in]`
    pub rows: &'a [f32],
    /// Width of the input.
    pub n_in: usize,
    /// `[n_out, n_in]`
    pub weights: Halves<'a>,
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
/// If there are no rows, or more than [`FEW`](super::FEW).
pub type FewFunction = unsafe fn(&Few);

/// A register of f32, and what of an instruction set these products need.
///
/// The functions are for callers that are compiled for the set, and inlined there.
///
/// # Safety
/// The CPU has the set. Where a function takes a pointer, [`LANES`](Self::LANES) numbers may be read or
/// written there; none needs an alignment.
pub unsafe trait Vector: Copy {
    /// Numbers in it.
    const LANES: usize;
    /// Whether the set has 32 of them, not 16.
    const MANY: bool;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * by + to`
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    /// The sum of its numbers.
    unsafe fn sum(self) -> f32;
}

/// A number of 16 bits.
trait Half: Copy {
    /// # Safety
    /// As [`Vector`]'s.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    fn to_f32(self) -> f32;
}

impl Half for f16 {
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

impl Half for bf16 {
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

/// Numbers to f32, as [`Set::widen`](super::kernel::Set::widen) says.
///
/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
pub unsafe fn widen<V: Vector>(from: Halves, to: &mut [f32]) {
    // SAFETY: handed on.
    unsafe {
        match from {
            Halves::F16(from) => widen_some::<V, _>(from, to),
            Halves::Bf16(from) => widen_some::<V, _>(from, to),
        }
    }
}

/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
unsafe fn widen_some<V: Vector, H: Half>(from: &[H], to: &mut [f32]) {
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

/// All of a product, as [`FewFunction`] says.
///
/// # Safety
/// As [`Vector`]'s and [`FewFunction`]'s.
#[inline(always)]
pub unsafe fn few<V: Vector>(of: &Few) {
    // SAFETY: handed on.
    unsafe {
        match of.weights {
            Halves::F16(weights) => rows::<V, _>(of, weights),
            Halves::Bf16(weights) => rows::<V, _>(of, weights),
        }
    }
}

/// By the number of rows: of two registers of operands and as many of sums as remain.
///
/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn rows<V: Vector, H: Half>(of: &Few, weights: &[H]) {
    // SAFETY: handed on.
    unsafe {
        match (of.rows.len() / of.n_in, V::MANY) {
            (1, _) => outputs::<V, H, 1, 4>(of, weights),
            (2, _) => outputs::<V, H, 2, 4>(of, weights),
            (3, true) => outputs::<V, H, 3, 4>(of, weights),
            (3, false) => outputs::<V, H, 3, 2>(of, weights),
            (4, true) => outputs::<V, H, 4, 4>(of, weights),
            (4, false) => outputs::<V, H, 4, 2>(of, weights),
            (5, true) => outputs::<V, H, 5, 4>(of, weights),
            (5, false) => outputs::<V, H, 5, 2>(of, weights),
            (6, true) => outputs::<V, H, 6, 4>(of, weights),
            (6, false) => outputs::<V, H, 6, 1>(of, weights),
            (7, true) => outputs::<V, H, 7, 2>(of, weights),
            (7, false) => outputs::<V, H, 7, 1>(of, weights),
            (8, true) => outputs::<V, H, 8, 2>(of, weights),
            (8, false) => outputs::<V, H, 8, 1>(of, weights),
            (n, _) => panic!("{n} rows"),
        }
    }
}

/// All outputs of `R` rows, `N` at a time.
///
/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn outputs<V: Vector, H: Half, const R: usize, const N: usize>(of: &Few, weights: &[H]) {
    let n_in = of.n_in;
    let n_out = weights.len() / n_in;
    for from in (0..n_out).step_by(N) {
        // The last few are computed with others that are there already.
        let first = from.min(n_out.saturating_sub(N));
        let mut w = [&weights[first * n_in..][..n_in]; N];
        for (i, w) in w.iter_mut().enumerate() {
            *w = &weights[(first + i).min(n_out - 1) * n_in..][..n_in];
        }
        // SAFETY: handed on.
        let sums = unsafe { dots::<V, H, R, N>(of.rows, w) };
        for (r, sums) in sums.iter().enumerate() {
            for (i, sum) in sums.iter().enumerate().take(n_out).skip(from - first) {
                // SAFETY: the caller vouches for the place of each row's outputs; those that were computed
                // with the former ones are left out, so none is added twice.
                unsafe {
                    let out = of.out.add(r * of.stride + first + i);
                    *out = if of.add { *out + sum } else { *sum };
                }
            }
        }
    }
}

/// `R` rows times `N` outputs.
///
/// # Safety
/// As [`Vector`]'s.
#[inline(always)]
unsafe fn dots<V: Vector, H: Half, const R: usize, const N: usize>(
    x: &[f32],
    w: [&[H]; N],
) -> [[f32; N]; R] {
    /// Weights of a cache line.
    const LINE: usize = 32;
    let n_in = w[0].len();
    assert!(x.len() == R * n_in && w.iter().all(|w| w.len() == n_in));
    let whole = n_in / V::LANES * V::LANES;
    let mut found = [[0.0; N]; R];
    // SAFETY: vectors begin below `whole`, so all of their numbers are within the rows; a hint may name any
    // address.
    unsafe {
        let mut sums = [[V::zero(); N]; R];
        for line in (0..whole).step_by(LINE) {
            for w in &w {
                prefetch_at(w.as_ptr().wrapping_add(line + N * n_in), 1);
            }
            for k in (line..whole.min(line + LINE)).step_by(V::LANES) {
                let mut weights = [V::zero(); N];
                for (v, w) in weights.iter_mut().zip(&w) {
                    *v = H::load::<V>(w.as_ptr().add(k));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = V::load(x.as_ptr().add(r * n_in + k));
                    for (sum, w) in sums.iter_mut().zip(weights) {
                        *sum = x.mul_add(w, *sum);
                    }
                }
            }
        }
        for (found, sums) in found.iter_mut().zip(sums) {
            for (found, sum) in found.iter_mut().zip(sums) {
                *found = sum.sum();
            }
        }
    }
    for (r, found) in found.iter_mut().enumerate() {
        for (found, w) in found.iter_mut().zip(w) {
            for k in whole..n_in {
                *found += x[r * n_in + k] * w[k].to_f32();
            }
        }
    }
    found
}
