//! Unpacks blocks into a panel for AMX: weights of K-quants are multiplied by their run's scale.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::amx::LANES;
use super::avx512_unpack::{
    flip_sign, from_i8, from_u8, high_f16, load_f16, load_words, low_f16, mask, or, shl, shr,
    spread, store, store_f32, zero,
};
use super::kernel::Panel;
use super::{QuantFormat, QuantizedMatrix, SUPERBLOCK};

const VECTOR_LANES: usize = 16;
type Bytes4 = __m512i;
type F32s = __m512;

/// As [`QuantizedKernel::unpack`](super::kernel::QuantizedKernel::unpack).
///
/// # Safety
/// See there.
pub unsafe fn unpack(
    panel: &mut Panel,
    matrix: &QuantizedMatrix,
    output: usize,
    superblock: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        formats::unpack(panel, matrix, output, superblock);
        match matrix.format() {
            QuantFormat::Q4_0 | QuantFormat::Q5_0 | QuantFormat::Q8_0 => {}
            QuantFormat::Q4K | QuantFormat::Q5K => multiply::<32, 0>(panel),
            QuantFormat::Q6K => multiply::<16, 32>(panel),
        }
    }
}

/// Subtracts the zero point from the bytes, multiplies them by the scale of their run of `RUN`, and
/// stores the low and high bytes.
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply<const RUN: usize, const ZERO: i16>(panel: &mut Panel) {
    /// Vectors with the same inputs.
    const VECTORS: usize = LANES / VECTOR_LANES;
    /// Every second byte.
    const ODD: __mmask64 = 0xaaaa_aaaa_aaaa_aaaa;
    let (values, _) = panel.values.as_chunks_mut::<64>();
    let (high, _) = panel.high.as_chunks_mut::<64>();
    let (scales, _) = panel.scales.as_chunks::<VECTOR_LANES>();
    let zero = _mm512_set1_epi16(ZERO);
    for (run, scales) in scales
        .chunks_exact(VECTORS)
        .take(SUPERBLOCK / RUN)
        .enumerate()
    {
        for (vector, scale) in scales.iter().enumerate() {
            // SAFETY: sixteen elements; unaligned.
            let scale = unsafe { _mm512_cvtps_epi32(_mm512_loadu_ps(scale.as_ptr())) };
            let low_half = _mm512_and_si512(scale, _mm512_set1_epi32(0xffff));
            let scale = _mm512_or_si512(low_half, _mm512_slli_epi32::<16>(scale));
            for group in run * RUN / 4..(run + 1) * RUN / 4 {
                let at = group * VECTORS + vector;
                // SAFETY: 64 bytes each; unaligned.
                unsafe {
                    let x = _mm512_loadu_si512(values[at].as_ptr().cast());
                    let even = _mm512_and_si512(x, _mm512_set1_epi16(0xff));
                    let odd = _mm512_srli_epi16::<8>(x);
                    let [even, odd] = [even, odd].map(|x| {
                        if ZERO == 0 {
                            x
                        } else {
                            _mm512_sub_epi16(x, zero)
                        }
                    });
                    let even = _mm512_mullo_epi16(even, scale);
                    let odd = _mm512_mullo_epi16(odd, scale);
                    let low = _mm512_mask_blend_epi8(ODD, even, _mm512_slli_epi16::<8>(odd));
                    let up = _mm512_mask_blend_epi8(ODD, _mm512_srli_epi16::<8>(even), odd);
                    _mm512_storeu_si512(values[at].as_mut_ptr().cast(), low);
                    _mm512_storeu_si512(high[at].as_mut_ptr().cast(), up);
                }
            }
        }
    }
}

/// Unpacks the formats, with the scales of runs as integers.
mod formats {
    use super::super::unpack::{store_fours_with, unpack_formats_with};
    use super::*;

    unpack_formats_with!("avx512f,avx512bw");
    store_fours_with!("avx512f,avx512bw");

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn store_multiple(panel: &mut Panel, first: usize, run: usize, number: F32s, unit: F32s) {
        store_scale(panel, first, run, number);
        store_f32s(&mut panel.units, first, unit);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn store_minima(panel: &mut Panel, first: usize, minima: [Bytes4; 2]) {
        for (i, four) in minima.into_iter().enumerate() {
            for (j, numbers) in from_u8(four).into_iter().enumerate() {
                // The f32 of such a small integer has only zeros in its lower half, so the upper
                // half is its bf16.
                let bits = _mm512_castps_si512(numbers);
                let twice = _mm512_or_si512(bits, _mm512_srli_epi32::<16>(bits));
                let at = (4 * i + j) * LANES + first;
                let to: &mut [u32] = &mut panel.tile_minima[at..at + VECTOR_LANES];
                // SAFETY: just sliced to this length.
                unsafe { store(to.as_mut_ptr().cast(), twice) }
            }
        }
    }
}
