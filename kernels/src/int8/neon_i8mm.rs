//! NEON with `smmla`: eight bytes of two outputs times eight bytes of two rows, 32 products at
//! once.
//!
//! Results are 2 x 2 blocks, two rows by two outputs. The running sums keep this layout until the
//! end. A tile is three pairs of rows by four pairs of outputs. For every four `smmla` a block
//! costs a conversion, a multiplication and an addition for the scales.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::hint::black_box;

use super::BLOCK;
use super::kernel::{Int8Kernel, Int8Tile, with_rows};
use super::neon::to_f32;
use crate::Cpu;

const LANES: usize = 8;
const TILE: usize = 6;
const BYTES: usize = LANES * (BLOCK + 2);
const GROUP: usize = 8;
/// Pairs of outputs.
const PAIRS: usize = LANES / 2;

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::NeonI8mm,
    lanes: LANES,
    rows: TILE,
    group: GROUP,
    unsigned: false,
    tile,
};

/// # Safety
/// As [`Int8Kernel::tile`].
unsafe fn tile(t: &Int8Tile, rows: usize) {
    let tile_of_pairs = (t, rows);
    // SAFETY: the caller's promise.
    unsafe { with_rows!(rows.div_ceil(2), tile_of(tile_of_pairs), 1 2 3) }
}

/// Computes `2 * N` rows and stores `rows` of them: the operands always have all rows of a tile.
///
/// # Safety
/// As [`Int8Kernel::tile`], for `rows` of at most `2 * N`.
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile_of<const N: usize>((t, rows): (&Int8Tile, usize)) {
    // Keeps the compiler from unrolling this loop: a whole block would need more registers than
    // there are.
    let halves = black_box(BLOCK / 16);
    let mut total = [[vdupq_n_f32(0.0); PAIRS]; N];
    if t.add {
        for (pair, total) in total.iter_mut().enumerate() {
            for (i, row) in total.chunks_exact_mut(2).enumerate() {
                if 2 * pair + i < rows {
                    // SAFETY: `out` has `rows` rows of `LANES`.
                    unsafe {
                        let out = t.out.add((2 * pair + i) * t.stride);
                        row[0] = vld1q_f32(out);
                        row[1] = vld1q_f32(out.add(4));
                    }
                }
            }
            *total = in_squares(*total);
        }
    }
    for b in 0..t.blocks {
        // SAFETY: `b` is below the number of blocks and `2 * N` at most the rows of a tile, so all
        // reads, which are unaligned, are within what `Int8Tile` says the pointers are valid for.
        unsafe {
            let panel = t.panel.add(b * BYTES);
            let mut dot = [[vdupq_n_s32(0); PAIRS]; N];
            for half in 0..halves {
                let mut a = [[vdupq_n_s8(0); 2]; N];
                for (pair, a) in a.iter_mut().enumerate() {
                    let rows = t.values.add((b * TILE + 2 * pair) * BLOCK + half * 16);
                    *a = side_by_side(vld1q_s8(rows), vld1q_s8(rows.add(BLOCK)));
                }
                for g in 0..2 {
                    for i in 0..PAIRS {
                        let place = (half * 2 + g) * LANES + 2 * i;
                        let w = vld1q_s8(panel.add(place * GROUP).cast());
                        for (dot, a) in dot.iter_mut().zip(&a) {
                            dot[i] = smmla(dot[i], a[g], w);
                        }
                    }
                }
            }
            let sw = panel.add(LANES * BLOCK).cast::<u16>();
            let sw = twice([to_f32(vld1_u16(sw)), to_f32(vld1_u16(sw.add(4)))]);
            for (pair, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                let sa = vld1_f32(t.scales.add(b * TILE + 2 * pair));
                let sa = vcombine_f32(vdup_lane_f32::<0>(sa), vdup_lane_f32::<1>(sa));
                for ((total, dot), sw) in total.iter_mut().zip(dot).zip(sw) {
                    *total = vfmaq_f32(*total, vmulq_f32(vcvtq_f32_s32(dot), sw), sa);
                }
            }
        }
    }
    for (pair, total) in total.iter().enumerate() {
        for (i, row) in in_rows(*total).chunks_exact(2).enumerate() {
            if 2 * pair + i < rows {
                // SAFETY: `out` has `rows` rows of `LANES`.
                unsafe {
                    let out = t.out.add((2 * pair + i) * t.stride);
                    vst1q_f32(out, row[0]);
                    vst1q_f32(out.add(4), row[1]);
                }
            }
        }
    }
}

/// Interleaves two rows of sixteen bytes, eight at a time.
#[inline]
#[target_feature(enable = "neon")]
fn side_by_side(first: int8x16_t, second: int8x16_t) -> [int8x16_t; 2] {
    let (first, second) = (vreinterpretq_s64_s8(first), vreinterpretq_s64_s8(second));
    [
        vreinterpretq_s8_s64(vzip1q_s64(first, second)),
        vreinterpretq_s8_s64(vzip2q_s64(first, second)),
    ]
}

/// The scales of eight outputs in 2 x 2 blocks: both rows of a block have the same.
#[inline]
#[target_feature(enable = "neon")]
fn twice(scales: [float32x4_t; 2]) -> [float32x4_t; PAIRS] {
    in_squares([scales[0], scales[1], scales[0], scales[1]])
}

/// Rearranges two rows of eight outputs, two vectors each, into 2 x 2 blocks.
#[inline]
#[target_feature(enable = "neon")]
fn in_squares(rows: [float32x4_t; PAIRS]) -> [float32x4_t; PAIRS] {
    let r = rows.map(|v| vreinterpretq_f64_f32(v));
    let squares = [
        vzip1q_f64(r[0], r[2]),
        vzip2q_f64(r[0], r[2]),
        vzip1q_f64(r[1], r[3]),
        vzip2q_f64(r[1], r[3]),
    ];
    squares.map(|v| vreinterpretq_f32_f64(v))
}

/// Rearranges 2 x 2 blocks into rows.
#[inline]
#[target_feature(enable = "neon")]
fn in_rows(squares: [float32x4_t; PAIRS]) -> [float32x4_t; PAIRS] {
    let s = squares.map(|v| vreinterpretq_f64_f32(v));
    let rows = [
        vzip1q_f64(s[0], s[1]),
        vzip1q_f64(s[2], s[3]),
        vzip2q_f64(s[0], s[1]),
        vzip2q_f64(s[2], s[3]),
    ];
    rows.map(|v| vreinterpretq_f32_f64(v))
}

/// `sum[r][i] + a[r] . w[i]`, for two rows and two outputs, eight bytes long.
///
/// Inline assembly because the intrinsic, `vmmlaq_s32`, is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(crate) fn smmla(mut sum: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction of the features above, which accesses only these registers.
    unsafe {
        std::arch::asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {w:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
