//! AVX-512: quantizes a block to int8 in about thirty instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK;
use super::activations::{Cell, SUM_ZERO, SUM_ZERO_F32};
use crate::quantize::MIN_MAGNITUDE;

/// The same as `activations::quantize_each`.
///
/// # Panics
/// If the chosen set is narrower than AVX-512.
pub fn quantize_each<'a>(cells: impl Iterator<Item = Cell<'a>>) {
    assert!(
        crate::Cpu::chosen() >= crate::Cpu::Avx512,
        "expected a CPU level with AVX-512"
    );
    // SAFETY: a chosen set is available, and on x86-64 all sets from AVX-512 on include it.
    unsafe { each(cells) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn each<'a>(cells: impl Iterator<Item = Cell<'a>>) {
    for cell in cells {
        let (step, sum) = quantize(cell.x, cell.values);
        (*cell.scale, *cell.init_sum) = (step, SUM_ZERO - 128 * sum);
    }
}

/// Returns the scale and the sum of the values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize(block: &[f32; BLOCK], values: &mut [i8; BLOCK]) -> (f32, i32) {
    // SAFETY: a block is two vectors, and no alignment is needed.
    let (a, b) = unsafe {
        let first = block.as_ptr();
        (_mm512_loadu_ps(first), _mm512_loadu_ps(first.add(16)))
    };
    let bits = |v| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff));
    let largest = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(bits(a), bits(b))));
    let (scale, inverse) = if largest < MIN_MAGNITUDE {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    // The low byte is the nearest integer.
    let (inverse, round) = (_mm512_set1_ps(inverse), _mm512_set1_ps(SUM_ZERO_F32));
    let byte = |v| {
        let rounded = _mm512_add_ps(_mm512_mul_ps(v, inverse), round);
        _mm512_cvtepi32_epi8(_mm512_castps_si512(rounded))
    };
    let bytes = _mm256_set_m128i(byte(b), byte(a));
    // SAFETY: the values of a block are 32 bytes, and no alignment is needed.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), bytes) }
    // `vpsadbw` sums unsigned bytes, so 128 is added to each.
    let unsigned = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    let sums = _mm256_sad_epu8(unsigned, _mm256_setzero_si256());
    let sums = _mm_add_epi64(
        _mm256_castsi256_si128(sums),
        _mm256_extracti128_si256::<1>(sums),
    );
    let sum = _mm_cvtsi128_si32(_mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums)));
    (scale, sum - 128 * BLOCK as i32)
}
