//! NEON: the softmax of sixteen queries at a time.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use half::bf16;

use super::scalar::POLYNOMIAL;
use super::{RunningSoftmax, Softmax};
use crate::tile::neon::{LANES, load, store, store_pairs};
use crate::tile::{Neon, NeonBf16};

/// Vectors of queries at a time; widths are multiples of it.
const N: usize = crate::tile::LANES / LANES;

impl Softmax for Neon {
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [f32],
    ) {
        // SAFETY: `self` exists, so the CPU has NEON.
        unsafe { update_f32(scores, width, running, weights) }
    }
}

impl Softmax for NeonBf16 {
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [bf16],
    ) {
        // SAFETY: `self` exists, so the CPU has NEON with BF16.
        unsafe { update_bf16(scores, width, running, weights) }
    }
}

#[target_feature(enable = "neon")]
fn update_f32(scores: &[f32], width: usize, running: &mut RunningSoftmax, weights: &mut [f32]) {
    let columns = width / LANES;
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<LANES>();
    for first in (0..columns).step_by(N) {
        let (max, mut sums) = update_max(scores, first, columns, running);
        let rows = scores.chunks_exact(columns);
        for (scores, weights) in rows.zip(weights.chunks_exact_mut(columns)) {
            let (scores, weights) = (&scores[first..][..N], &mut weights[first..][..N]);
            for j in 0..N {
                let weight = exp2(vsubq_f32(load(&scores[j]), max[j]));
                sums[j] = vaddq_f32(sums[j], weight);
                store(weight, &mut weights[j]);
            }
        }
        store_sums(sums, first, running);
    }
}

#[target_feature(enable = "neon,bf16")]
fn update_bf16(scores: &[f32], width: usize, running: &mut RunningSoftmax, weights: &mut [bf16]) {
    let columns = width / LANES;
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<{ 2 * LANES }>();
    for first in (0..columns).step_by(N) {
        let (max, mut sums) = update_max(scores, first, columns, running);
        let pairs = scores.chunks_exact(2 * columns);
        for (scores, weights) in pairs.zip(weights.chunks_exact_mut(columns)) {
            let (scores, others) = scores.split_at(columns);
            let (scores, others) = (&scores[first..][..N], &others[first..][..N]);
            let weights = &mut weights[first..][..N];
            for j in 0..N {
                let weight = exp2(vsubq_f32(load(&scores[j]), max[j]));
                let other = exp2(vsubq_f32(load(&others[j]), max[j]));
                sums[j] = vaddq_f32(sums[j], vaddq_f32(weight, other));
                store_pairs(weight, other, &mut weights[j]);
            }
        }
        store_sums(sums, first, running);
    }
}

/// Updates the maxima of `N` vectors from `first` on with this block and rescales the sums to them.
#[inline]
#[target_feature(enable = "neon")]
fn update_max(
    scores: &[[f32; LANES]],
    first: usize,
    columns: usize,
    running: &mut RunningSoftmax,
) -> ([float32x4_t; N], [float32x4_t; N]) {
    let (kept_max, _) = running.max.as_chunks_mut::<LANES>();
    let (kept_sum, _) = running.sum.as_chunks::<LANES>();
    let (rescale, _) = running.rescale.as_chunks_mut::<LANES>();
    let mut max = [vdupq_n_f32(0.0); N];
    let mut sums = max;
    for (max, kept) in max.iter_mut().zip(&kept_max[first..]) {
        *max = load(kept);
    }
    for scores in scores.chunks_exact(columns) {
        for (max, scores) in max.iter_mut().zip(&scores[first..][..N]) {
            // `vmaxnm` returns the other operand if the score is NaN.
            *max = vmaxnmq_f32(load(scores), *max);
        }
    }
    for j in 0..N {
        let i = first + j;
        let factor = exp2(vsubq_f32(load(&kept_max[i]), max[j]));
        sums[j] = vmulq_f32(load(&kept_sum[i]), factor);
        store(factor, &mut rescale[i]);
        store(max[j], &mut kept_max[i]);
    }
    (max, sums)
}

#[inline]
#[target_feature(enable = "neon")]
fn store_sums(sums: [float32x4_t; N], first: usize, running: &mut RunningSoftmax) {
    let (kept, _) = running.sum.as_chunks_mut::<LANES>();
    for (sum, kept) in sums.into_iter().zip(&mut kept[first..]) {
        store(sum, kept);
    }
}

/// As [`exp2`](super::scalar::exp2), except for the order of the polynomial's sum. `fmla`
/// overwrites the addend, so each constant addend costs a copy; summed in pairs there are three
/// instead of six.
#[inline]
#[target_feature(enable = "neon")]
fn exp2(x: float32x4_t) -> float32x4_t {
    let x = vmaxq_f32(x, vdupq_n_f32(-126.0)); // NaN propagates
    let n = vrndnq_f32(x);
    let r = vsubq_f32(x, n);
    let r2 = vmulq_f32(r, r);
    let c = POLYNOMIAL.map(|c| vdupq_n_f32(c));
    let high = vfmaq_f32(vfmaq_f32(c[2], c[1], r), c[0], r2);
    let middle = vfmaq_f32(vfmaq_f32(c[4], c[3], r), high, r2);
    let p = vfmaq_f32(vfmaq_f32(c[6], c[5], r), middle, r2);
    // If `x` is NaN, the integer of `n` is zero, and `p` stays NaN.
    let exponent = vshlq_n_s32::<23>(vcvtnq_s32_f32(n));
    vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent))
}
