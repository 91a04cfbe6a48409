//! AVX2 with FMA: the softmax of eight queries at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::scalar::POLYNOMIAL;
use super::{RunningSoftmax, Softmax};
use crate::tile::Avx2;
use crate::tile::avx2::{LANES, load, store};

impl Softmax for Avx2 {
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [f32],
    ) {
        // SAFETY: `self` exists, so the CPU has AVX2 and FMA.
        unsafe { update(scores, width, running, weights) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn update(scores: &[f32], width: usize, running: &mut RunningSoftmax, weights: &mut [f32]) {
    let columns = width / LANES;
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<LANES>();
    let (kept_max, _) = running.max.as_chunks_mut::<LANES>();
    let (kept_sum, _) = running.sum.as_chunks_mut::<LANES>();
    let (rescale, _) = running.rescale.as_chunks_mut::<LANES>();
    for j in 0..columns {
        let old = load(&kept_max[j]);
        let mut max = old;
        for scores in scores.chunks_exact(columns) {
            // `max` returns its second operand if the score is NaN.
            max = _mm256_max_ps(load(&scores[j]), max);
        }
        let factor = exp2(_mm256_sub_ps(old, max));
        let mut sum = _mm256_mul_ps(load(&kept_sum[j]), factor);
        let rows = scores.chunks_exact(columns);
        for (scores, weights) in rows.zip(weights.chunks_exact_mut(columns)) {
            let weight = exp2(_mm256_sub_ps(load(&scores[j]), max));
            sum = _mm256_add_ps(sum, weight);
            store(weight, &mut weights[j]);
        }
        store(max, &mut kept_max[j]);
        store(sum, &mut kept_sum[j]);
        store(factor, &mut rescale[j]);
    }
}

/// As [`exp2`](super::scalar::exp2).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2(x: __m256) -> __m256 {
    // `max` returns its second operand if that is NaN, so NaN propagates.
    let x = _mm256_max_ps(_mm256_set1_ps(-126.0), x);
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm256_sub_ps(x, n);
    let mut p = _mm256_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
    }
    let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
    let scaled = _mm256_add_epi32(_mm256_castps_si256(p), exponent);
    // If `x` is NaN, the integer arithmetic may have changed it into a number.
    let none = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
    _mm256_blendv_ps(_mm256_castsi256_ps(scaled), x, none)
}
