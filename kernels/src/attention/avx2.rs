//! AVX2 with FMA: the softmax eight queries at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::scalar::POLYNOMIAL;
use super::{Running, Softmax};
use crate::tile::Avx2;
use crate::tile::avx2::{LANES, load, store};

impl Softmax for Avx2 {
    fn weigh(self, scores: &[f32], width: usize, running: &mut Running, weights: &mut [f32]) {
        // SAFETY: `self` exists, so the CPU has AVX2 and FMA.
        unsafe { weigh(scores, width, running, weights) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn weigh(scores: &[f32], width: usize, running: &mut Running, weights: &mut [f32]) {
    let columns = width / LANES;
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<LANES>();
    let (kept_max, _) = running.max.as_chunks_mut::<LANES>();
    let (kept_sum, _) = running.sum.as_chunks_mut::<LANES>();
    let (shrink, _) = running.shrink.as_chunks_mut::<LANES>();
    for j in 0..columns {
        let old = load(&kept_max[j]);
        let mut max = old;
        for scores in scores.chunks_exact(columns) {
            // Of a score that is no number, the second operand is given.
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
        store(factor, &mut shrink[j]);
    }
}

/// As [`exp2`](super::scalar::exp2).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2(x: __m256) -> __m256 {
    // A number that is none is the second operand, which is then given.
    let x = _mm256_max_ps(_mm256_set1_ps(-126.0), x);
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm256_sub_ps(x, n);
    let mut p = _mm256_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
    }
    let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
    let scaled = _mm256_add_epi32(_mm256_castps_si256(p), exponent);
    // Where `x` is no number, the integer arithmetic may have made one of it.
    let none = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
    _mm256_blendv_ps(_mm256_castsi256_ps(scaled), x, none)
}
