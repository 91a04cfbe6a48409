//! GEMV with NEON's `sdot`: one row of activations times weights as they are in memory, for
//! decoding one token at a time.
//!
//! A register holds sixteen consecutive inputs of one output. In formats whose run scales are
//! integers, products are multiplied by the scale as integers and stay integers until the end of
//! the superblock.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::activations::{RUNS, SCALES};
use super::gemv::{gemv_of_one_row, next_outputs, scales_and_minima};
use super::kernel::{QuantizedGemv, QuantizedGemvFn};
use super::neon_unpack::to_f32;
use super::{QuantFormat, SUPERBLOCK};

/// Outputs at a time; they share the work on the activations.
const OUTPUTS: usize = 2;

/// As [`QuantizedKernel::gemv`](super::kernel::QuantizedKernel::gemv).
pub fn gemv(format: QuantFormat, rows: usize) -> Option<QuantizedGemvFn> {
    if rows != 1 {
        return None;
    }
    Some(match format {
        QuantFormat::Q4_0 => gemv_of_one_row!(q4_0),
        QuantFormat::Q5_0 => gemv_of_one_row!(q5_0),
        QuantFormat::Q8_0 => return None, // takes more instructions than llama.cpp's
        QuantFormat::Q4K => gemv_of_one_row!(q4_k),
        QuantFormat::Q5K => gemv_of_one_row!(q5_k),
        QuantFormat::Q6K => gemv_of_one_row!(q6_k),
    })
}

/// `sum[i] + w[4 i..][..4] . a[4 i..][..4]`
///
/// In assembly because the intrinsic, `vdotq_s32`, is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction of the features above, which accesses only these registers.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// The f16 at the start of a block, as f32.
///
/// # Safety
/// Two bytes are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_f16(at: *const u8) -> f32 {
    // SAFETY: as above; unaligned.
    let d = unsafe { at.cast::<u16>().read_unaligned() };
    vgetq_lane_f32::<0>(to_f32(vdup_n_u16(d)))
}

#[inline]
#[target_feature(enable = "neon")]
fn nibbles(q: uint8x16_t) -> [uint8x16_t; 2] {
    [vandq_u8(q, vdupq_n_u8(15)), vshrq_n_u8::<4>(q)]
}

/// # Safety
/// `rows` are blocks of Q4_K, as many as the row has superblocks.
#[target_feature(enable = "neon,dotprod")]
unsafe fn q4_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    // SAFETY: the caller's promise.
    unsafe { with_minima::<144>(row, rows) }
}

/// # Safety
/// `rows` are blocks of Q5_K, as many as the row has superblocks.
#[target_feature(enable = "neon,dotprod")]
unsafe fn q5_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    // SAFETY: the caller's promise.
    unsafe { with_minima::<176>(row, rows) }
}

/// # Safety
/// `rows` are blocks of `BYTES` bytes, Q4_K or Q5_K, as many as the row has superblocks.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn with_minima<const BYTES: usize>(
    row: &QuantizedGemv,
    rows: [*const u8; OUTPUTS],
) -> [f32; OUTPUTS] {
    let fifth = vdupq_n_u8(16);
    let mut total = [vdupq_n_f32(0.0); OUTPUTS];
    let mut stream = next_outputs(&rows, row.row_bytes);
    for s in 0..row.superblocks {
        // SAFETY: superblock `s` of the activations and of each row of weights exists.
        unsafe {
            let a = row.values.add(s * row.height * SUPERBLOCK);
            let sums = vld1q_s16(row.sums.add(s * row.height * RUNS).cast());
            let scale = *row.scales.add(s * row.height * SCALES);
            for (total, block) in total.iter_mut().zip(rows) {
                let block = block.add(s * BYTES);
                stream.prefetch(BYTES);
                let (scales, minima) = scales_and_minima(block);
                let scales = vmovl_u8(vcreate_u8(scales.cast_unsigned()));
                let scales = [vmovl_u16(vget_low_u16(scales)), vmovl_high_u16(scales)];
                let mut bits = [vld1q_u8(block.add(16)), vld1q_u8(block.add(32))]; // of Q5_K
                let mut pair = |pair: usize| {
                    let q = block.add(BYTES - 128 + 32 * pair);
                    let mut dot = [vdupq_n_s32(0); 2];
                    for (half, bits) in bits.iter_mut().enumerate() {
                        let mut w = nibbles(vld1q_u8(q.add(16 * half)));
                        if BYTES == 176 {
                            // The fifth bits of this pair of runs are the lowest.
                            w[0] = vorrq_u8(w[0], vandq_u8(vshlq_n_u8::<4>(*bits), fifth));
                            w[1] = vorrq_u8(w[1], vandq_u8(vshlq_n_u8::<3>(*bits), fifth));
                            *bits = vshrq_n_u8::<2>(*bits);
                        }
                        let a = a.add(64 * pair + 16 * half);
                        dot[0] = sdot(dot[0], w[0], vld1q_s8(a));
                        dot[1] = sdot(dot[1], w[1], vld1q_s8(a.add(32)));
                    }
                    dot
                };
                let mut dot = vdupq_n_s32(0);
                let [first, second] = scales.map(|x| vreinterpretq_s32_u32(x));
                dot = add_scaled::<0, 1>(dot, pair(0), first);
                dot = add_scaled::<2, 3>(dot, pair(1), first);
                dot = add_scaled::<0, 1>(dot, pair(2), second);
                dot = add_scaled::<2, 3>(dot, pair(3), second);

                let minima = vmovl_u8(vcreate_u8(minima.cast_unsigned()));
                let minima = vreinterpretq_s16_u16(minima);
                let low = vmull_s16(vget_low_s16(minima), vget_low_s16(sums));
                let low = vmlal_high_s16(low, minima, sums);
                let d = block.cast::<u32>().read_unaligned();
                let d = vmulq_n_f32(to_f32(vreinterpret_u16_u32(vdup_n_u32(d))), scale);
                *total = vfmaq_laneq_f32::<0>(*total, vcvtq_f32_s32(dot), d);
                *total = vfmsq_laneq_f32::<1>(*total, vcvtq_f32_s32(low), d);
            }
        }
    }
    total.map(|total| vaddvq_f32(total))
}

/// Adds the products of two runs times their scales, elements `I` and `J` of four.
#[inline]
#[target_feature(enable = "neon")]
fn add_scaled<const I: i32, const J: i32>(
    sum: int32x4_t,
    dot: [int32x4_t; 2],
    scales: int32x4_t,
) -> int32x4_t {
    let sum = vmlaq_laneq_s32::<I>(sum, dot[0], scales);
    vmlaq_laneq_s32::<J>(sum, dot[1], scales)
}

/// # Safety
/// `rows` are blocks of Q6_K, as many as the row has superblocks.
#[target_feature(enable = "neon,dotprod")]
unsafe fn q6_k(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    let two = vdupq_n_u8(48);
    let mut total = [vdupq_n_f32(0.0); OUTPUTS];
    let mut stream = next_outputs(&rows, row.row_bytes);
    for s in 0..row.superblocks {
        // SAFETY: superblock `s` of the activations and of each row of weights exists.
        unsafe {
            let a = row.values.add(s * row.height * SUPERBLOCK);
            let sums = row.sums.add(s * row.height * RUNS);
            let scale = *row.scales.add(s * row.height * SCALES);
            for (total, block) in total.iter_mut().zip(rows) {
                let block = block.add(s * 210);
                stream.prefetch(210);
                let scales = vld1q_s8(block.add(192).cast());
                let (low, high) = (vmovl_s8(vget_low_s8(scales)), vmovl_high_s8(scales));
                let scales = [
                    vmovl_s16(vget_low_s16(low)),
                    vmovl_high_s16(low),
                    vmovl_s16(vget_low_s16(high)),
                    vmovl_high_s16(high),
                ];
                // The correction for the zero point, times the scales.
                let mut dot = vdupq_n_s32(0);
                for (i, scales) in scales.iter().enumerate() {
                    dot = vmlaq_s32(dot, vld1q_s32(sums.add(4 * i)), *scales);
                }
                for half in 0..2 {
                    let q = block.add(64 * half);
                    let bits = block.add(128 + 32 * half);
                    let a = a.add(128 * half);
                    // Sixteen columns of the half's eight runs: four of the runs each.
                    let column = |i: usize| {
                        let first = nibbles(vld1q_u8(q.add(16 * i)));
                        let second = nibbles(vld1q_u8(q.add(16 * i + 32)));
                        let h = vld1q_u8(bits.add(16 * i));
                        let w = [
                            vorrq_u8(first[0], vandq_u8(vshlq_n_u8::<4>(h), two)),
                            vorrq_u8(second[0], vandq_u8(vshlq_n_u8::<2>(h), two)),
                            vorrq_u8(first[1], vandq_u8(h, two)),
                            vorrq_u8(second[1], vandq_u8(vshrq_n_u8::<2>(h), two)),
                        ];
                        let a = a.add(16 * i);
                        let dot = |j: usize| sdot(vdupq_n_s32(0), w[j], vld1q_s8(a.add(32 * j)));
                        [dot(0), dot(1), dot(2), dot(3)]
                    };
                    let (even, odd) = (column(0), column(1));
                    let (first, second) = (scales[2 * half], scales[2 * half + 1]);
                    dot = add_scaled::<0, 1>(dot, [even[0], odd[0]], first);
                    dot = add_scaled::<2, 3>(dot, [even[1], odd[1]], first);
                    dot = add_scaled::<0, 1>(dot, [even[2], odd[2]], second);
                    dot = add_scaled::<2, 3>(dot, [even[3], odd[3]], second);
                }
                let d = load_f16(block.add(208)) * scale;
                *total = vfmaq_n_f32(*total, vcvtq_f32_s32(dot), d);
            }
        }
    }
    total.map(|total| vaddvq_f32(total))
}

/// # Safety
/// `rows` are blocks of Q4_0 of the row's width.
#[target_feature(enable = "neon,dotprod")]
unsafe fn q4_0(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    // SAFETY: the caller's promise.
    unsafe { blocks_of_32::<18>(row, rows) }
}

/// # Safety
/// `rows` are blocks of Q5_0 of the row's width.
#[target_feature(enable = "neon,dotprod")]
unsafe fn q5_0(row: &QuantizedGemv, rows: [*const u8; OUTPUTS]) -> [f32; OUTPUTS] {
    // SAFETY: the caller's promise.
    unsafe { blocks_of_32::<22>(row, rows) }
}

/// Sixteen of 32 bits, of half `I`, in bit 4 of a byte each.
#[inline]
#[target_feature(enable = "neon")]
fn fifth_bits<const I: u64>(bits: u32) -> uint8x16_t {
    let all = |byte: u64| vcreate_u8(byte * 0x0101_0101_0101_0101);
    let indices = vcombine_u8(all(2 * I), all(2 * I + 1));
    let x = vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(bits)), indices);
    let each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    vandq_u8(vtstq_u8(x, each), vdupq_n_u8(16))
}

/// # Safety
/// `rows` are blocks of `BYTES` bytes, Q4_0 or Q5_0, of the row's width.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn blocks_of_32<const BYTES: usize>(
    row: &QuantizedGemv,
    rows: [*const u8; OUTPUTS],
) -> [f32; OUTPUTS] {
    let mut total = [vdupq_n_f32(0.0); OUTPUTS];
    let mut stream = next_outputs(&rows, row.row_bytes);
    for b in 0..row.row_bytes / BYTES {
        let (s, run) = (b / 8, b % 8);
        // SAFETY: block `b` of the activations and of each row of weights exists.
        unsafe {
            let a = row.values.add(s * row.height * SUPERBLOCK + run * 32);
            let a = [vld1q_s8(a), vld1q_s8(a.add(16))];
            let scale = *row.scales.add(s * row.height * SCALES + run);
            // The correction for the zero point, in one lane.
            let begin = *row.sums.add(s * row.height * RUNS + run);
            let begin = vsetq_lane_s32::<0>(begin, vdupq_n_s32(0));
            for (total, block) in total.iter_mut().zip(rows) {
                let block = block.add(b * BYTES);
                stream.prefetch(BYTES);
                let [mut low, mut high] = nibbles(vld1q_u8(block.add(BYTES - 16)));
                if BYTES == 22 {
                    let bits = block.add(2).cast::<u32>().read_unaligned();
                    low = vorrq_u8(low, fifth_bits::<0>(bits));
                    high = vorrq_u8(high, fifth_bits::<1>(bits));
                }
                let dot = sdot(sdot(begin, low, a[0]), high, a[1]);
                *total = vfmaq_n_f32(*total, vcvtq_f32_s32(dot), load_f16(block) * scale);
            }
        }
    }
    total.map(|total| vaddvq_f32(total))
}
