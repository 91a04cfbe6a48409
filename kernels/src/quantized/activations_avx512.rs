//! AVX-512: quantizes a superblock of activations, in registers from the loads to the sums.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::activations::{BLOCK, Quantized, QuantizedBlock, SCALES};
use super::{QuantScheme, SUPERBLOCK};
use crate::quantize::{MIN_MAGNITUDE, ROUND};

/// Elements of a register.
const LANES: usize = 16;

/// The same as `Quantized::fill`, bit for bit.
///
/// # Safety
/// The CPU has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub unsafe fn fill(row: &mut Quantized, x: &[f32; SUPERBLOCK], scheme: QuantScheme) {
    let (x, _) = x.as_chunks::<LANES>();
    // SAFETY: 64 bytes of a chunk; unaligned.
    let x: [__m512; LANES] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(x[i].as_ptr()) });
    let magnitude = |v| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff));
    let largest: [__m512i; SCALES] =
        std::array::from_fn(|i| _mm512_max_epu32(magnitude(x[2 * i]), magnitude(x[2 * i + 1])));
    let (scales, inverses) = if scheme.fine {
        steps(largest.map(|v| _mm512_reduce_max_epu32(v)))
    } else {
        let all = largest
            .into_iter()
            .fold(_mm512_setzero_si512(), |a, b| _mm512_max_epu32(a, b));
        steps([_mm512_reduce_max_epu32(all); SCALES])
    };
    *row.scales = scales;
    let bytes: [__m128i; LANES] = std::array::from_fn(|i| {
        let scaled = _mm512_mul_ps(x[i], _mm512_set1_ps(inverses[i / 2]));
        let rounded = _mm512_add_ps(scaled, _mm512_set1_ps(ROUND));
        _mm512_cvtepi32_epi8(_mm512_castps_si512(rounded))
    });
    let (values, _) = row.values.as_chunks_mut::<LANES>();
    for (to, bytes) in values.iter_mut().zip(bytes) {
        // SAFETY: 16 bytes of a chunk; unaligned.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
    }
    sum(row, runs(bytes), scheme);
}

/// Quantizes blocks, each as `QuantizedBlock::new` does, bit for bit, and calls `store` with its
/// number and the result.
///
/// # Safety
/// The CPU has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub unsafe fn quantize_each(x: &[[f32; BLOCK]], store: impl Fn(usize, &QuantizedBlock)) {
    for (i, x) in x.iter().enumerate() {
        store(i, &block(x));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn block(x: &[f32; BLOCK]) -> QuantizedBlock {
    // SAFETY: a block is two vectors, and no alignment is needed.
    let (a, b) = unsafe {
        (
            _mm512_loadu_ps(x.as_ptr()),
            _mm512_loadu_ps(x.as_ptr().add(16)),
        )
    };
    let bits = |v| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff));
    let largest = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(bits(a), bits(b))));
    let (scale, inverse) = if largest < MIN_MAGNITUDE {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    // The low byte is the nearest integer.
    let (inverse, round) = (_mm512_set1_ps(inverse), _mm512_set1_ps(ROUND));
    let byte = |v| {
        let rounded = _mm512_add_ps(_mm512_mul_ps(v, inverse), round);
        _mm512_cvtepi32_epi8(_mm512_castps_si512(rounded))
    };
    let bytes = _mm256_set_m128i(byte(b), byte(a));
    let mut values = [0; BLOCK];
    // SAFETY: 32 bytes, and no alignment is needed.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), bytes) }
    // `vpsadbw` sums unsigned bytes, so 128 is added to each.
    let unsigned = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    let eights = _mm256_sad_epu8(unsigned, _mm256_setzero_si256());
    let half = |x| _mm_cvtsi128_si32(_mm_add_epi64(x, _mm_unpackhi_epi64(x, x))) - 128 * 16;
    let sums = [
        half(_mm256_castsi256_si128(eights)),
        half(_mm256_extracti128_si256::<1>(eights)),
    ];
    QuantizedBlock {
        values,
        scale,
        sums,
    }
}

/// Scales and their inverses, from the bits of the largest magnitudes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn steps(largest: [u32; SCALES]) -> ([f32; SCALES], [f32; SCALES]) {
    let (mut scales, mut inverses) = ([0.0; SCALES], [0.0; SCALES]);
    // SAFETY: 32 bytes each; unaligned.
    unsafe {
        let largest = _mm256_loadu_ps(largest.as_ptr().cast());
        let some = _mm256_cmp_ps_mask::<_CMP_NLT_UQ>(largest, _mm256_set1_ps(MIN_MAGNITUDE));
        let most = _mm256_set1_ps(127.0);
        _mm256_storeu_ps(
            scales.as_mut_ptr(),
            _mm256_maskz_div_ps(some, largest, most),
        );
        _mm256_storeu_ps(
            inverses.as_mut_ptr(),
            _mm256_maskz_div_ps(some, most, largest),
        );
    }
    (scales, inverses)
}

/// Sums of 16 bytes each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn runs(bytes: [__m128i; LANES]) -> __m512i {
    let mut sums = [0; LANES];
    for (sum, bytes) in sums.iter_mut().zip(bytes) {
        // `vpsadbw` sums unsigned bytes, so 128 is added to each.
        let unsigned = _mm_xor_si128(bytes, _mm_set1_epi8(-128));
        let halves = _mm_sad_epu8(unsigned, _mm_setzero_si128());
        let both = _mm_add_epi32(halves, _mm_unpackhi_epi64(halves, halves));
        *sum = _mm_cvtsi128_si32(both) - 128 * LANES as i32;
    }
    // SAFETY: 64 bytes; unaligned.
    unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
}

/// Stores the sums of 16 values in the form that the scheme needs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sum(row: &mut Quantized, runs: __m512i, scheme: QuantScheme) {
    let runs = if scheme.run == 32 {
        let pairs = _mm512_add_epi32(runs, _mm512_srli_epi64::<32>(runs));
        _mm512_castsi256_si512(_mm512_cvtepi64_epi32(pairs))
    } else {
        runs
    };
    // SAFETY: 16 and 64 bytes of `sums`; unaligned.
    unsafe {
        if scheme.minima {
            let halves = _mm256_cvtepi32_epi16(_mm512_castsi512_si256(runs));
            _mm_storeu_si128(row.sums.as_mut_ptr().cast(), halves);
        } else {
            let sums = _mm512_mullo_epi32(runs, _mm512_set1_epi32(-scheme.zero));
            _mm512_storeu_si512(row.sums.as_mut_ptr().cast(), sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::QuantFormat;
    use super::super::activations::RUNS;
    use super::*;
    use crate::testing::noise;

    /// Bit for bit, with NaN and infinities among the inputs.
    #[test]
    fn superblocks_quantize_like_the_reference() {
        if !crate::available().contains(&crate::Cpu::Avx512) {
            return;
        }
        let random: [f32; SUPERBLOCK] = noise(1, SUPERBLOCK, 5)
            .into_raw_vec_and_offset()
            .0
            .try_into()
            .unwrap();
        let mut cases = vec![
            random,
            [0.0; SUPERBLOCK],
            random.map(|v| v * 1e-32),
            random.map(|v| v * 1e30),
        ];
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-30, f32::MAX] {
            let mut case = random;
            case[77] = odd;
            cases.push(case);
        }
        for format in QuantFormat::ALL {
            let scheme = format.scheme();
            for x in &cases {
                let quantized = |fill: &dyn Fn(&mut Quantized)| {
                    let (mut values, mut scales, mut sums) =
                        ([1; SUPERBLOCK], [1.0; SCALES], [1; RUNS]);
                    fill(&mut Quantized {
                        values: &mut values,
                        scales: &mut scales,
                        sums: &mut sums,
                    });
                    (values, scales.map(f32::to_bits), sums)
                };
                let expected = quantized(&|row| row.fill(x, scheme));
                // SAFETY: just detected.
                let found = quantized(&|row| unsafe { fill(row, x, scheme) });
                assert!(expected == found, "{format:?}: {x:?}");
            }
        }
    }
}
