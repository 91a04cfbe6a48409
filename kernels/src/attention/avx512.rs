//! AVX-512: the softmax in registers, sixteen queries per vector.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::scalar::POLYNOMIAL;
use super::{RunningSoftmax, Softmax};
use crate::tile::avx512::{load, store, store_pairs};
use crate::tile::avx512_fp16::store_half;
use crate::tile::{Avx512, Avx512Bf16, Avx512Fp16, Element, LANES};

impl Softmax for Avx512 {
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [f32],
    ) {
        // SAFETY: `self` exists, so the CPU has AVX-512.
        unsafe {
            match width / LANES {
                1 => update_f32::<1>(scores, running, weights),
                2 => update_f32::<2>(scores, running, weights),
                _ => update_f32::<3>(scores, running, weights),
            }
        }
    }
}

impl Softmax for Avx512Bf16 {
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [bf16],
    ) {
        // SAFETY: `self` exists, so the CPU has AVX-512 with BF16.
        unsafe {
            match width / LANES {
                1 => update_bf16::<1>(scores, running, weights),
                2 => update_bf16::<2>(scores, running, weights),
                _ => update_bf16::<3>(scores, running, weights),
            }
        }
    }
}

impl Softmax for Avx512Fp16 {
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [f16],
    ) {
        // SAFETY: `self` exists, so the CPU has AVX-512.
        unsafe {
            match width / f16::LANES {
                1 => update_f16::<2>(scores, running, weights),
                2 => update_f16::<4>(scores, running, weights),
                _ => update_f16::<6>(scores, running, weights),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn update_f32<const N: usize>(scores: &[f32], running: &mut RunningSoftmax, weights: &mut [f32]) {
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<LANES>();
    let (max, mut sums) = update_max::<N>(scores, running);
    for (scores, weights) in scores.chunks_exact(N).zip(weights.chunks_exact_mut(N)) {
        for j in 0..N {
            let weight = exp2(_mm512_sub_ps(load(&scores[j]), max[j]));
            sums[j] = _mm512_add_ps(sums[j], weight);
            store(weight, &mut weights[j]);
        }
    }
    store_sums(sums, running);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn update_bf16<const N: usize>(scores: &[f32], running: &mut RunningSoftmax, weights: &mut [bf16]) {
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<{ 2 * LANES }>();
    let (max, mut sums) = update_max::<N>(scores, running);
    for (scores, weights) in scores.chunks_exact(2 * N).zip(weights.chunks_exact_mut(N)) {
        for j in 0..N {
            let first = exp2_short(_mm512_sub_ps(load(&scores[j]), max[j]));
            let second = exp2_short(_mm512_sub_ps(load(&scores[N + j]), max[j]));
            sums[j] = _mm512_add_ps(sums[j], _mm512_add_ps(first, second));
            store_pairs(first, second, &mut weights[j]);
        }
    }
    store_sums(sums, running);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn update_f16<const N: usize>(scores: &[f32], running: &mut RunningSoftmax, weights: &mut [f16]) {
    let (scores, _) = scores.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks_mut::<LANES>();
    let (max, mut sums) = update_max::<N>(scores, running);
    let unit = _mm512_set1_ps(running.unit);
    for (scores, weights) in scores.chunks_exact(N).zip(weights.chunks_exact_mut(N)) {
        for j in 0..N {
            let weight = exp2_short(_mm512_fmsub_ps(load(&scores[j]), unit, max[j]));
            sums[j] = _mm512_add_ps(sums[j], weight);
            store_half(weight, &mut weights[j]);
        }
    }
    store_sums(sums, running);
}

/// Updates the maxima with this block and rescales the sums to them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn update_max<const N: usize>(
    scores: &[[f32; LANES]],
    running: &mut RunningSoftmax,
) -> ([__m512; N], [__m512; N]) {
    let (old, _) = running.max.as_chunks_mut::<LANES>();
    let (sum, _) = running.sum.as_chunks::<LANES>();
    let (rescale, _) = running.rescale.as_chunks_mut::<LANES>();
    let mut max = [_mm512_set1_ps(f32::MIN); N];
    let mut sums = max;
    for scores in scores.chunks_exact(N) {
        for j in 0..N {
            // `max` returns its second operand if the score is NaN.
            max[j] = _mm512_max_ps(load(&scores[j]), max[j]);
        }
    }
    for j in 0..N {
        let found = _mm512_mul_ps(max[j], _mm512_set1_ps(running.unit));
        max[j] = _mm512_max_ps(found, load(&old[j]));
        let factor = exp2(_mm512_sub_ps(load(&old[j]), max[j]));
        sums[j] = _mm512_mul_ps(load(&sum[j]), factor);
        store(factor, &mut rescale[j]);
        store(max[j], &mut old[j]);
    }
    (max, sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_sums<const N: usize>(sums: [__m512; N], running: &mut RunningSoftmax) {
    let (kept, _) = running.sum.as_chunks_mut::<LANES>();
    for (sum, kept) in sums.into_iter().zip(kept) {
        store(sum, kept);
    }
}

/// As [`exp2`](super::scalar::exp2), but returns zero far below -126.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(crate) fn exp2(x: __m512) -> __m512 {
    let (n, r) = split(x);
    let mut p = _mm512_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    _mm512_scalef_ps(p, n)
}

/// The same with a shorter polynomial. Its error of 3e-6 is a hundredth of the rounding to f16.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2_short(x: __m512) -> __m512 {
    const SHORT: [f32; 5] = [9.582_852e-3, 5.590_642_5e-2, 0.240_240_99, 0.693_124_2, 1.0];
    let (n, r) = split(x);
    let mut p = _mm512_set1_ps(SHORT[0]);
    for c in &SHORT[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    _mm512_scalef_ps(p, n)
}

/// Splits `x` into the nearest integer and the rest.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn split(x: __m512) -> (__m512, __m512) {
    // Minus infinity would leave a meaningless rest. `max` returns its second operand if that is
    // NaN, so NaN propagates.
    let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
    let n = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(x);
    (n, _mm512_sub_ps(x, n))
}
