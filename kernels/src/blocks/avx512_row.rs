//! One row of activations times weights as they lie in memory, with AVX-512 and VNNI: for tokens one by one.
//!
//! Nothing is turned and nothing stored on the way: a register has 64 neighbouring inputs of one output,
//! whose products are multiplied by the scales of their runs as 16-bit numbers and stay whole until the
//! superblock ends. It takes about a third of the instructions of unpacking, and memory is the limit.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::kernel::{Row, RowFunction};
use super::row::{all_outputs, ask_ahead, scales_and_minima};
use super::rows::{RUNS, SCALES};
use super::{BlockFormat, SUPER};

/// Outputs at a time: they share the activations' registers.
const OUTPUTS: usize = 4;

/// As [`super::kernel::Kernel::row`].
pub fn row(format: BlockFormat) -> Option<RowFunction> {
    match format {
        BlockFormat::Q4K => Some(all_outputs!(q4_k)),
        BlockFormat::Q6K => Some(all_outputs!(q6_k)),
        BlockFormat::Q8_0 => Some(all_outputs!(q8_0)),
        BlockFormat::Q4_0 | BlockFormat::Q5K => None,
    }
}

/// Two runs of 32 activations, from `at` and 64 further on.
///
/// # Safety
/// 96 bytes may be read there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn two_runs(at: *const i8) -> __m512i {
    // SAFETY: as above; unaligned.
    unsafe {
        let low = _mm256_loadu_si256(at.cast());
        let high = _mm256_loadu_si256(at.add(64).cast());
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }
}

/// # Safety
/// 64 bytes may be read there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(at: *const u8) -> __m512i {
    // SAFETY: as above; unaligned.
    unsafe { _mm512_loadu_si512(at.cast()) }
}

/// Adds to sums of products, each of which is below 2^15, times scales in the low halves of their lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_scaled(sum: __m512i, w: __m512i, a: __m512i, scale: __m512i) -> __m512i {
    let dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a);
    _mm512_dpwssd_epi32(sum, dot, scale)
}

/// # Safety
/// `rows` are blocks of Q4_K, as many as the row has superblocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q4_k(row: &Row, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    /// For a register of two runs the bytes of the scales that its lanes need.
    const fn lanes(first: i8, second: i8) -> [i8; 64] {
        let mut bytes = [-1; 64];
        let mut lane = 0;
        while lane < 16 {
            bytes[4 * lane] = if lane < 8 { first } else { second };
            lane += 1;
        }
        bytes
    }
    static LANES: [[i8; 64]; 4] = [lanes(0, 2), lanes(1, 3), lanes(4, 6), lanes(5, 7)];
    let nibble = _mm512_set1_epi8(15);
    let mut total = [_mm512_setzero_ps(); OUTPUTS];
    let mut low = [_mm_setzero_ps(); OUTPUTS];
    for s in 0..row.superblocks {
        // SAFETY: superblock `s` of the activations and of each row of weights is there.
        unsafe {
            let a = row.values.add(s * row.tile * SUPER);
            let a = [
                two_runs(a),
                two_runs(a.add(32)),
                two_runs(a.add(128)),
                two_runs(a.add(160)),
            ];
            let sums = _mm_loadu_si128(row.sums.add(s * row.tile * RUNS).cast());
            let scale = _mm_set1_ps(*row.scales.add(s * row.tile * SCALES));
            for ((total, low), block) in total.iter_mut().zip(&mut low).zip(rows) {
                let block = block.add(s * 144);
                ask_ahead::<OUTPUTS>(block, 144, row.row_bytes);
                let (scales, minima) = scales_and_minima(block);
                let scales = _mm512_set1_epi64(scales);
                let of = |i: usize| _mm512_shuffle_epi8(scales, load(LANES[i].as_ptr().cast()));
                let (q, r) = (load(block.add(16)), load(block.add(80)));
                let upper = |q| _mm512_and_si512(_mm512_srli_epi16::<4>(q), nibble);
                let mut dot = _mm512_setzero_si512();
                dot = add_scaled(dot, _mm512_and_si512(q, nibble), a[0], of(0));
                dot = add_scaled(dot, upper(q), a[1], of(1));
                dot = add_scaled(dot, _mm512_and_si512(r, nibble), a[2], of(2));
                dot = add_scaled(dot, upper(r), a[3], of(3));

                let d = _mm_cvtph_ps(_mm_cvtsi32_si128(block.cast::<i32>().read_unaligned()));
                let d = _mm_mul_ps(d, scale);
                let d_min = _mm_shuffle_ps::<0b01_01_01_01>(d, d);
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_broadcastss_ps(d), *total);
                let minima = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(minima));
                let minima = _mm_madd_epi16(minima, sums);
                *low = _mm_fmadd_ps(_mm_cvtepi32_ps(minima), d_min, *low);
            }
        }
    }
    let mut out = [0.0; OUTPUTS];
    for ((out, total), low) in out.iter_mut().zip(total).zip(low) {
        let low = _mm512_zextps128_ps512(low);
        *out = _mm512_reduce_add_ps(total) - _mm512_reduce_add_ps(low);
    }
    out
}

/// # Safety
/// `rows` are blocks of Q6_K, as many as the row has superblocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q6_k(row: &Row, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    let (nibble, two) = (_mm512_set1_epi8(15), _mm512_set1_epi8(48));
    // Two bits of a byte to where the nibbles end, for each half of a register from another place.
    let halves = |low, high| {
        let low = _mm512_castsi256_si512(_mm256_set1_epi16(low));
        _mm512_inserti64x4::<1>(low, _mm256_set1_epi16(high))
    };
    let (left, right) = (halves(4, 2), halves(0, 2));
    let lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    let low_half = _mm512_set1_epi32(0xffff);
    let mut total = [_mm512_setzero_ps(); OUTPUTS];
    for s in 0..row.superblocks {
        // SAFETY: superblock `s` of the activations and of each row of weights is there.
        unsafe {
            let a = row.values.add(s * row.tile * SUPER).cast::<u8>();
            let a = [load(a), load(a.add(64)), load(a.add(128)), load(a.add(192))];
            let sums = load(row.sums.add(s * row.tile * RUNS).cast());
            let sums = _mm512_srai_epi32::<5>(sums);
            let scale = *row.scales.add(s * row.tile * SCALES);
            for (total, block) in total.iter_mut().zip(rows) {
                let block = block.add(s * 210);
                ask_ahead::<OUTPUTS>(block, 210, row.row_bytes);
                let scales = _mm_loadu_si128(block.add(192).cast());
                let scales = _mm512_and_si512(_mm512_cvtepi8_epi32(scales), low_half);
                let of = |i: i32| {
                    let lane = _mm512_add_epi32(lane, _mm512_set1_epi32(4 * i));
                    _mm512_permutexvar_epi32(lane, scales)
                };
                // 32 for each weight too many, times the scale.
                let dot = _mm512_dpwssd_epi32(_mm512_setzero_si512(), sums, scales);
                let mut dot = _mm512_slli_epi32::<5>(dot);
                for half in 0..2 {
                    let q = load(block.add(64 * half));
                    let h = _mm256_loadu_si256(block.add(128 + 32 * half).cast());
                    let h = _mm512_broadcast_i64x4(h);
                    let first = _mm512_and_si512(_mm512_sllv_epi16(h, left), two);
                    let second = _mm512_and_si512(_mm512_srlv_epi16(h, right), two);
                    let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(q), nibble);
                    let first = _mm512_or_si512(_mm512_and_si512(q, nibble), first);
                    let second = _mm512_or_si512(upper, second);
                    let i = 2 * half;
                    dot = add_scaled(dot, first, a[i], of(i as i32));
                    dot = add_scaled(dot, second, a[i + 1], of(i as i32 + 1));
                }
                let d = i32::from(block.add(208).cast::<u16>().read_unaligned());
                let d = _mm_mul_ss(_mm_cvtph_ps(_mm_cvtsi32_si128(d)), _mm_set_ss(scale));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_broadcastss_ps(d), *total);
            }
        }
    }
    let mut out = [0.0; OUTPUTS];
    for (out, total) in out.iter_mut().zip(total) {
        *out = _mm512_reduce_add_ps(total);
    }
    out
}

/// # Safety
/// `rows` are blocks of Q8_0 of the row's width.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q8_0(row: &Row, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    let sign = _mm256_set1_epi8(-128);
    let mut total = [_mm256_setzero_ps(); OUTPUTS];
    // What the sums of activations make with weights that are 128 too large.
    let mut begin = [_mm_setzero_ps(); OUTPUTS];
    for b in 0..row.row_bytes / 34 {
        let (s, run) = (b / 8, b % 8);
        // SAFETY: block `b` of the activations and of each row of weights is there.
        unsafe {
            let a = row.values.add(s * row.tile * SUPER + run * 32);
            let a = _mm256_loadu_si256(a.cast());
            let scale = _mm_set_ss(*row.scales.add(s * row.tile * SCALES + run));
            let sum = _mm_set_ss(*row.sums.add(s * row.tile * RUNS + run) as f32);
            for ((total, begin), block) in total.iter_mut().zip(&mut begin).zip(rows) {
                let block = block.add(b * 34);
                if b % 2 == 0 {
                    ask_ahead::<OUTPUTS>(block, 64, row.row_bytes);
                }
                let d = i32::from(block.cast::<u16>().read_unaligned());
                let d = _mm_mul_ss(_mm_cvtph_ps(_mm_cvtsi32_si128(d)), scale);
                let w = _mm256_loadu_si256(block.add(2).cast());
                let w = _mm256_xor_si256(w, sign);
                let dot = _mm256_dpbusd_epi32(_mm256_setzero_si256(), w, a);
                *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_broadcastss_ps(d), *total);
                *begin = _mm_fmadd_ss(sum, d, *begin);
            }
        }
    }
    let mut out = [0.0; OUTPUTS];
    for ((out, total), begin) in out.iter_mut().zip(total).zip(begin) {
        let total = _mm512_zextps256_ps512(total);
        *out = _mm512_reduce_add_ps(total) + _mm_cvtss_f32(begin);
    }
    out
}
