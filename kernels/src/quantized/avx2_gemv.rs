//! GEMV with AVX2 or AVX-VNNI: one row of activations times weights as they are in memory, for
//! decoding one token at a time.
//!
//! A register holds 32 consecutive inputs of one output. In formats whose run scales are integers,
//! products are multiplied by the scale in 16 bits and stay integers until the end of the
//! superblock.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::activations::{RUNS, SCALES};
use super::gemv::{gemv_of_one_row, next_outputs, scales_and_minima};
use super::kernel::{QuantizedGemv, QuantizedGemvFn};
use super::{QuantFormat, SUPERBLOCK};

/// Outputs at a time, for superblocks and for blocks of 32. They share the work on the activations.
const OUTPUTS: usize = 2;
const OUTPUTS_OF_32: usize = 4;

/// The bytes of the scale that go to a 32-bit lane: four indices of a byte shuffle, where -1 gives
/// zero.
type Lane = [i8; 4];

/// A one-byte scale twice in 16 bits, for two 16-bit sums.
const fn twice(byte: i8) -> Lane {
    [byte, -1, byte, -1]
}

/// A one-byte scale, for one 32-bit sum below 2^15.
const fn once(byte: i8) -> Lane {
    [byte, -1, -1, -1]
}

/// The same for scales of two bytes.
const fn twice_wide(byte: i8) -> Lane {
    [byte, byte + 1, byte, byte + 1]
}

const fn once_wide(byte: i8) -> Lane {
    [byte, byte + 1, -1, -1]
}

/// Eight equal lanes.
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
/// 32 bytes are valid for reads.
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

/// Each of 32 bits in bit 4 of a byte.
#[inline]
#[target_feature(enable = "avx2")]
fn fifth_bits(bits: i32) -> __m256i {
    let byte = |i: i64| i * 0x0101_0101_0101_0101;
    let bytes = _mm256_set_epi64x(byte(3), byte(2), byte(1), byte(0));
    let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let x = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), bytes);
    let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(x, each), each);
    _mm256_and_si256(is_set, _mm256_set1_epi8(16))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum(x: __m256, y: __m128) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, y);
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// The f16 at the start of a block, times a scale, in all lanes.
///
/// # Safety
/// Two bytes are valid for reads.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_scale(at: *const u8, scale: __m128) -> __m256 {
    // SAFETY: as above; unaligned.
    let d = i32::from(unsafe { at.cast::<u16>().read_unaligned() });
    _mm256_broadcastss_ps(_mm_mul_ss(_mm_cvtph_ps(_mm_cvtsi32_si128(d)), scale))
}

/// Defines `gemv` with one of several ways to multiply:
///
/// - `$dot(sum, w, a)` adds products of unsigned and signed bytes to 32-bit sums; the sum of two
///   adjacent products is below 2^15;
/// - `$add_scaled(sum, w, a, scale)` multiplies them by scales first, in the layout of `$lane`.
macro_rules! row_with {
    ($features:literal, $dot:ident, $add_scaled:ident, $lane:ident, $wide_lane:ident) => {
        /// As [`QuantizedKernel::gemv`](crate::quantized::kernel::QuantizedKernel::gemv).
        pub fn gemv(format: QuantFormat, rows: usize) -> Option<QuantizedGemvFn> {
            if rows != 1 {
                return None;
            }
            Some(match format {
                QuantFormat::Q4_0 => gemv_of_one_row!(q4_0),
                QuantFormat::Q5_0 => gemv_of_one_row!(q5_0),
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
            // SAFETY: the caller's promise.
            unsafe { with_minima::<144>(row, rows) }
        }

        /// # Safety
        /// `rows` are blocks of Q5_K, as many as the row has superblocks.
        #[target_feature(enable = $features)]
        unsafe fn q5_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
            // SAFETY: the caller's promise.
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
                // SAFETY: superblock `s` of the activations and of each row of weights exists.
                unsafe {
                    let a = row.values.add(s * row.height * SUPERBLOCK).cast::<u8>();
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
                        let mut bits = load(block.add(16)); // Q5_K: fifth bits, those of the next pair lowest
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
            // Scales of even runs to the lower half, of odd runs to the upper.
            let apart = _mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
            let mut total = [_mm256_setzero_ps(); OUTPUTS];
            let mut stream = next_outputs(&rows, row.row_bytes);
            for s in 0..row.superblocks {
                // SAFETY: superblock `s` of the activations and of each row of weights exists.
                unsafe {
                    let a = row.values.add(s * row.height * SUPERBLOCK).cast::<u8>();
                    // The correction for the zero point: 32 times the sums of runs. Divided by 32
                    // it fits 16 bits.
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
                        let d = load_scale(block.add(208), scale);
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
                // SAFETY: block `b` of the activations and of each row of weights exists.
                unsafe {
                    let a = load(
                        row.values
                            .add(s * row.height * SUPERBLOCK + run * 32)
                            .cast(),
                    );
                    let scale = _mm_load_ss(row.scales.add(s * row.height * SCALES + run));
                    for (total, block) in total.iter_mut().zip(rows) {
                        let block = block.add(b * 34);
                        stream.prefetch(34);
                        let w = load(block.add(2));
                        // Two products of 128 and 127 are below 2^15 too.
                        let a = _mm256_sign_epi8(a, w);
                        let dot = $dot(_mm256_setzero_si256(), _mm256_abs_epi8(w), a);
                        let d = load_scale(block, scale);
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
            // SAFETY: the caller's promise.
            unsafe { blocks_of_32::<18>(row, rows) }
        }

        /// # Safety
        /// `rows` are blocks of Q5_0 of the row's width.
        #[target_feature(enable = $features)]
        unsafe fn q5_0(
            row: &QuantizedGemv,
            rows: [*const u8; OUTPUTS_OF_32],
        ) -> [f32; OUTPUTS_OF_32] {
            // SAFETY: the caller's promise.
            unsafe { blocks_of_32::<22>(row, rows) }
        }

        /// # Safety
        /// `rows` are blocks of `BYTES` bytes, Q4_0 or Q5_0, of the row's width.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn blocks_of_32<const BYTES: usize>(
            row: &QuantizedGemv,
            rows: [*const u8; OUTPUTS_OF_32],
        ) -> [f32; OUTPUTS_OF_32] {
            let nibble = _mm256_set1_epi8(15);
            let upper = _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0);
            let mut total = [_mm256_setzero_ps(); OUTPUTS_OF_32];
            let mut stream = next_outputs(&rows, row.row_bytes);
            for b in 0..row.row_bytes / BYTES {
                let (s, run) = (b / 8, b % 8);
                // SAFETY: block `b` of the activations and of each row of weights exists.
                unsafe {
                    let a = load(
                        row.values
                            .add(s * row.height * SUPERBLOCK + run * 32)
                            .cast(),
                    );
                    let scale = _mm_load_ss(row.scales.add(s * row.height * SCALES + run));
                    // The correction for the zero point, in one lane.
                    let begin = _mm_cvtsi32_si128(*row.sums.add(s * row.height * RUNS + run));
                    let begin = _mm256_zextsi128_si256(begin);
                    for (total, block) in total.iter_mut().zip(rows) {
                        let block = block.add(b * BYTES);
                        stream.prefetch(BYTES);
                        let w = _mm_loadu_si128(block.add(BYTES - 16).cast());
                        let w = _mm256_srlv_epi32(_mm256_broadcastsi128_si256(w), upper);
                        let mut w = _mm256_and_si256(w, nibble);
                        if BYTES == 22 {
                            let bits = block.add(2).cast::<i32>().read_unaligned();
                            w = _mm256_or_si256(w, fifth_bits(bits));
                        }
                        let dot = $dot(begin, w, a);
                        let d = load_scale(block, scale);
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

/// The same in the EVEX encoding, which CPUs with AVX-512 have, for tests.
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
