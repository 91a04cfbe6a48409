//! One row of activations times weights as they lie in memory, with AVX2 or AVX-VNNI: for tokens one by one.
//!
//! A register has 32 neighbouring inputs of one output. Where scales of runs are whole numbers, products are
//! multiplied by them as 16-bit numbers and stay whole until the superblock ends.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::activations::{RUNS, SCALES};
use super::gemv::{gemv_of_one_row, next_outputs, scales_and_minima};
use super::kernel::{QuantizedGemv, QuantizedGemvFn};
use super::{QuantFormat, SUPER};

/// Outputs at a time, of superblocks and of blocks of 32: they share what is computed of the activations.
const OUTPUTS: usize = 2;
const OUTPUTS_OF_32: usize = 4;

/// What a lane of products has of its scale: four bytes of a shuffle, the rest of which is zero.
type Lane = [i8; 4];

/// A scale of one byte twice in 16 bits, for two sums of 16 bits.
const fn twice(byte: i8) -> Lane {
    [byte, -1, byte, -1]
}

/// A scale of one byte, for one sum of 32 bits that is below 2^15.
const fn once(byte: i8) -> Lane {
    [byte, -1, -1, -1]
}

/// The same of scales of two bytes.
const fn twice_wide(byte: i8) -> Lane {
    [byte, byte + 1, byte, byte + 1]
}

const fn once_wide(byte: i8) -> Lane {
    [byte, byte + 1, -1, -1]
}

/// Eight lanes that are the same.
const fn all(lane: Lane) -> [i8; 32] {
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = lane[i % 4];
        i += 1;
    }
    bytes
}

/// # Safety
/// 32 bytes may be read there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: as above; unaligned.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(q: __m256i) -> [__m256i; 2] {
    let nibble = _mm256_set1_epi8(15);
    [
        _mm256_and_si256(q, nibble),
        _mm256_and_si256(_mm256_srli_epi16::<4>(q), nibble),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum(x: __m256, y: __m128) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, y);
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// The f16 at the begin of a block, times a scale, in all lanes.
///
/// # Safety
/// Two bytes may be read there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn half(at: *const u8, scale: __m128) -> __m256 {
    // SAFETY: as above; unaligned.
    let d = i32::from(unsafe { at.cast::<u16>().read_unaligned() });
    _mm256_broadcastss_ps(_mm_mul_ss(_mm_cvtph_ps(_mm_cvtsi32_si128(d)), scale))
}

/// Defines `row` with one of several ways to multiply:
///
/// - `$dot(sum, w, a)` adds products of bytes, unsigned and signed, to sums of 32 bits; two neighbouring
///   ones are below 2^15;
/// - `$add_scaled(sum, w, a, scale)` multiplies them by scales before, each as `$lane` says.
macro_rules! row_with {
    ($features:literal, $dot:ident, $add_scaled:ident, $lane:ident, $wide_lane:ident) => {
        /// As [`QuantizedKernel::gemv`](crate::quantized::kernel::QuantizedKernel::gemv).
        pub fn gemv(format: QuantFormat, rows: usize) -> Option<QuantizedGemvFn> {
            if rows != 1 {
                return None;
            }
            Some(match format {
                QuantFormat::Q4_0 => gemv_of_one_row!(q4_0),
                QuantFormat::Q8_0 => gemv_of_one_row!(q8_0),
                QuantFormat::Q4K => gemv_of_one_row!(q4_k),
                QuantFormat::Q5K => gemv_of_one_row!(q5_k),
                QuantFormat::Q6K => gemv_of_one_row!(q6_k),
            })
        }

        /// # Safety
        /// `rows` are blocks of Q4_K, as many as the row has superblocks.
        #[target_feature(enable = $features)]
        unsafe fn q4_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
            // SAFETY: handed on.
            unsafe { with_minima::<144>(row, rows) }
        }

        /// # Safety
        /// `rows` are blocks of Q5_K, as many as the row has superblocks.
        #[target_feature(enable = $features)]
        unsafe fn q5_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
            // SAFETY: handed on.
            unsafe { with_minima::<176>(row, rows) }
        }

        /// # Safety
        /// `rows` are blocks of `BYTES` bytes, Q4_K or Q5_K, as many as the row has superblocks.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn with_minima<const BYTES: usize>(
            row: &QuantizedGemv,
            rows: [*const u8; OUTPUTS],
        ) -> [f32; OUTPUTS] {
            static LANES: [[i8; 32]; 8] = {
                let mut lanes = [[0; 32]; 8];
                let mut run = 0;
                while run < 8 {
                    lanes[run] = all($lane(run as i8));
                    run += 1;
                }
                lanes
            };
            let fifth = _mm256_set1_epi8(16);
            let mut total = [_mm256_setzero_ps(); OUTPUTS];
            let mut low = [_mm_setzero_ps(); OUTPUTS];
            let mut stream = next_outputs(&rows, row.row_bytes);
            for s in 0..row.superblocks {
                // SAFETY: superblock `s` of the activations and of each row of weights is there.
                unsafe {
                    let a = row.values.add(s * row.height * SUPER).cast::<u8>();
                    let sums = _mm_loadu_si128(row.sums.add(s * row.height * RUNS).cast());
                    let scale = _mm_set1_ps(*row.scales.add(s * row.height * SCALES));
                    for ((total, low), block) in total.iter_mut().zip(&mut low).zip(rows) {
                        let block = block.add(s * BYTES);
                        stream.prefetch(BYTES);
                        let (scales, minima) = scales_and_minima(block);
                        let scales = _mm256_set1_epi64x(scales);
                        let of = |run: usize| {
                            _mm256_shuffle_epi8(scales, load(LANES[run].as_ptr().cast()))
                        };
                        let mut bits = load(block.add(16)); // of Q5_K, a pair of runs' come lowest
                        let mut dot = _mm256_setzero_si256();
                        for pair in 0..4 {
                            let [mut q, mut r] = nibbles(load(block.add(BYTES - 128 + 32 * pair)));
                            if BYTES == 176 {
                                let first = _mm256_and_si256(_mm256_slli_epi16::<4>(bits), fifth);
                                let second = _mm256_and_si256(_mm256_slli_epi16::<3>(bits), fifth);
                                q = _mm256_or_si256(q, first);
                                r = _mm256_or_si256(r, second);
                                bits = _mm256_srli_epi16::<2>(bits);
                            }
                            let a = a.add(64 * pair);
                            dot = $add_scaled(dot, q, load(a), of(2 * pair));
                            dot = $add_scaled(dot, r, load(a.add(32)), of(2 * pair + 1));
                        }
                        let d = _mm_cvtsi32_si128(block.cast::<i32>().read_unaligned());
                        let d = _mm_mul_ps(_mm_cvtph_ps(d), scale);
                        let d_min = _mm_shuffle_ps::<0b01_01_01_01>(d, d);
                        let dot = _mm256_cvtepi32_ps(dot);
                        *total = _mm256_fmadd_ps(dot, _mm256_broadcastss_ps(d), *total);
                        let minima = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(minima));
                        let minima = _mm_cvtepi32_ps(_mm_madd_epi16(minima, sums));
                        *low = _mm_fnmadd_ps(minima, d_min, *low);
                    }
                }
            }
            std::array::from_fn(|i| sum(total[i], low[i]))
        }

        /// # Safety
        /// `rows` are blocks of Q6_K, as many as the row has superblocks.
        #[target_feature(enable = $features)]
        unsafe fn q6_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
            static LANES: [[i8; 32]; 8] = {
                let mut lanes = [[0; 32]; 8];
                let mut i = 0;
                while i < 8 {
                    lanes[i] = all($wide_lane(2 * i as i8));
                    i += 1;
                }
                lanes
            };
            let two = _mm256_set1_epi8(48);
            // Scales of even runs to the lower half, of odd ones to the upper.
            let apart = _mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
            let mut total = [_mm256_setzero_ps(); OUTPUTS];
            let mut stream = next_outputs(&rows, row.row_bytes);
            for s in 0..row.superblocks {
                // SAFETY: superblock `s` of the activations and of each row of weights is there.
                unsafe {
                    let a = row.values.add(s * row.height * SUPER).cast::<u8>();
                    // What weights are too large by, 32 times sums of runs: they fit 16 bits without it.
                    let sums = row.sums.add(s * row.height * RUNS).cast::<u8>();
                    let sums = [load(sums), load(sums.add(32))].map(|x| _mm256_srai_epi32::<5>(x));
                    let sums = _mm256_packs_epi32(sums[0], sums[1]);
                    let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
                    let scale = _mm_load_ss(row.scales.add(s * row.height * SCALES));
                    for (total, block) in total.iter_mut().zip(rows) {
                        let block = block.add(s * 210);
                        stream.prefetch(210);
                        let scales = _mm_loadu_si128(block.add(192).cast());
                        let dot = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), sums);
                        let mut dot = _mm256_slli_epi32::<5>(dot);
                        let scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, apart));
                        let of =
                            |i: usize| _mm256_shuffle_epi8(scales, load(LANES[i].as_ptr().cast()));
                        for half in 0..2 {
                            let [q, upper] = nibbles(load(block.add(64 * half)));
                            let [r, upper_r] = nibbles(load(block.add(64 * half + 32)));
                            let h = load(block.add(128 + 32 * half));
                            let bits = [
                                _mm256_slli_epi16::<4>(h),
                                _mm256_slli_epi16::<2>(h),
                                h,
                                _mm256_srli_epi16::<2>(h),
                            ];
                            for (i, w) in [q, r, upper, upper_r].into_iter().enumerate() {
                                let w = _mm256_or_si256(w, _mm256_and_si256(bits[i], two));
                                let i = 4 * half + i;
                                dot = $add_scaled(dot, w, load(a.add(32 * i)), of(i));
                            }
                        }
                        let d = half(block.add(208), scale);
                        *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), d, *total);
                    }
                }
            }
            total.map(|total| sum(total, _mm_setzero_ps()))
        }

        /// # Safety
        /// `rows` are blocks of Q8_0 of the row's width.
        #[target_feature(enable = $features)]
        unsafe fn q8_0(
            row: &QuantizedGemv,
            rows: [*const u8; OUTPUTS_OF_32],
        ) -> [f32; OUTPUTS_OF_32] {
            let mut total = [_mm256_setzero_ps(); OUTPUTS_OF_32];
            let mut stream = next_outputs(&rows, row.row_bytes);
            for b in 0..row.row_bytes / 34 {
                let (s, run) = (b / 8, b % 8);
                // SAFETY: block `b` of the activations and of each row of weights is there.
                unsafe {
                    let a = load(row.values.add(s * row.height * SUPER + run * 32).cast());
                    let scale = _mm_load_ss(row.scales.add(s * row.height * SCALES + run));
                    for (total, block) in total.iter_mut().zip(rows) {
                        let block = block.add(b * 34);
                        stream.prefetch(34);
                        let w = load(block.add(2));
                        // Two products of 128 and 127 are less than 2^15 as well.
                        let a = _mm256_sign_epi8(a, w);
                        let dot = $dot(_mm256_setzero_si256(), _mm256_abs_epi8(w), a);
                        let d = half(block, scale);
                        *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), d, *total);
                    }
                }
            }
            total.map(|total| sum(total, _mm_setzero_ps()))
        }

        /// # Safety
        /// `rows` are blocks of Q4_0 of the row's width.
        #[target_feature(enable = $features)]
        unsafe fn q4_0(
            row: &QuantizedGemv,
            rows: [*const u8; OUTPUTS_OF_32],
        ) -> [f32; OUTPUTS_OF_32] {
            let nibble = _mm256_set1_epi8(15);
            let upper = _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0);
            let mut total = [_mm256_setzero_ps(); OUTPUTS_OF_32];
            let mut stream = next_outputs(&rows, row.row_bytes);
            for b in 0..row.row_bytes / 18 {
                let (s, run) = (b / 8, b % 8);
                // SAFETY: block `b` of the activations and of each row of weights is there.
                unsafe {
                    let a = load(row.values.add(s * row.height * SUPER + run * 32).cast());
                    let scale = _mm_load_ss(row.scales.add(s * row.height * SCALES + run));
                    // What weights are too large by, in one lane.
                    let begin = _mm_cvtsi32_si128(*row.sums.add(s * row.height * RUNS + run));
                    let begin = _mm256_zextsi128_si256(begin);
                    for (total, block) in total.iter_mut().zip(rows) {
                        let block = block.add(b * 18);
                        stream.prefetch(18);
                        let w = _mm_loadu_si128(block.add(2).cast());
                        let w = _mm256_srlv_epi32(_mm256_broadcastsi128_si256(w), upper);
                        let dot = $dot(begin, _mm256_and_si256(w, nibble), a);
                        let d = half(block, scale);
                        *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), d, *total);
                    }
                }
            }
            total.map(|total| sum(total, _mm_setzero_ps()))
        }
    };
}

/// With AVX2.
pub mod avx2 {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn dot(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        add_scaled(sum, w, a, _mm256_set1_epi16(1))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_scaled(sum: __m256i, w: __m256i, a: __m256i, scale: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), scale))
    }

    row_with!("avx2,fma,f16c", dot, add_scaled, twice, twice_wide);
}

/// With AVX-VNNI.
pub mod vnni {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    fn dot(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sum, w, a)
    }

    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    fn add_scaled(sum: __m256i, w: __m256i, a: __m256i, scale: __m256i) -> __m256i {
        _mm256_dpwssd_avx_epi32(sum, dot(_mm256_setzero_si256(), w, a), scale)
    }

    row_with!("avx2,fma,f16c,avxvnni", dot, add_scaled, once, once_wide);
}

/// The same in the encoding that CPUs with AVX-512 have, for tests.
#[cfg(test)]
pub mod vnni_evex {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx2,avx512vnni,avx512vl")]
    fn dot(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(sum, w, a)
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512vnni,avx512vl")]
    fn add_scaled(sum: __m256i, w: __m256i, a: __m256i, scale: __m256i) -> __m256i {
        _mm256_dpwssd_epi32(sum, dot(_mm256_setzero_si256(), w, a), scale)
    }

    row_with!(
        "avx2,fma,f16c,avx512vnni,avx512vl",
        dot,
        add_scaled,
        once,
        once_wide
    );
}
