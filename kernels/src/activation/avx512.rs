//! AVX-512: quick GELU with FMA, and without the division, which takes as long as everything else.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::attention::avx512::exp2;
use crate::tile::LANES;
use crate::tile::avx512::{load, store};

/// The same as [`super::quick_gelu`].
///
/// # Panics
/// If the chosen set is narrower than AVX-512.
pub fn quick_gelu(values: &mut [f32]) {
    assert!(
        crate::Cpu::chosen() >= crate::Cpu::Avx512,
        "expected a CPU level with AVX-512"
    );
    // SAFETY: a chosen set is available, and on x86-64 all sets from AVX-512 on include it.
    unsafe { all(values) }
}

#[target_feature(enable = "avx512f,avx512dq")]
fn all(values: &mut [f32]) {
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        store(one(load(chunk)), chunk);
    }
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let value = one(load(&last));
    store(value, &mut last);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// `x / (1 + 2^t)`. One Newton step refines the 14-bit reciprocal.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn one(x: __m512) -> __m512 {
    /// Largest exponent for which the sum and its reciprocal are normal numbers.
    const MAX_EXPONENT: f32 = 100.0;

    let t = _mm512_mul_ps(x, _mm512_set1_ps(-1.702 * std::f32::consts::LOG2_E));
    let t = _mm512_min_ps(t, _mm512_set1_ps(MAX_EXPONENT));
    let sum = _mm512_add_ps(exp2(t), _mm512_set1_ps(1.0));
    let near = _mm512_rcp14_ps(sum);
    let correction = _mm512_fnmadd_ps(sum, near, _mm512_set1_ps(2.0));
    _mm512_mul_ps(_mm512_mul_ps(x, near), correction)
}
