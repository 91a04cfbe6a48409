//! NEON with `usmmla`: eight bytes of two outputs times eight bytes of two rows, 32 products at
//! once.
//!
//! Sums are 2 x 2 blocks, two outputs by two rows, and a tile is four pairs of outputs by three
//! pairs of rows: twelve sums of a run, twelve running sums, three registers of activations and
//! four of weights. Operands are stored in the order in which they are multiplied: rows in pairs,
//! scales of weights twice. For every four `usmmla`, a run of 32 costs a 2 x 2 block three more
//! instructions, for the initial sum, its conversion and its scale.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::activations::{RUNS, SCALES};
use super::kernel::{PanelLayout, QuantizedKernel, QuantizedTile, with_format};
use super::neon_dotprod::min_rows;
use super::{SUPERBLOCK, neon_gemv, neon_i8mm_unpack};
use crate::Cpu;

pub(super) const LANES: usize = 8;
const TILE: usize = 6;
/// Pairs of outputs.
const PAIRS: usize = LANES / 2;
/// Most pairs of rows.
const ROW_PAIRS: usize = TILE / 2;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::NeonI8mm,
    lanes: LANES,
    rows: TILE,
    layout: PanelLayout::RowPairs,
    min_rows,
    tile,
    unpack: neon_i8mm_unpack::unpack,
    gemv: neon_gemv::gemv,
};

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows, t.format, tile_of(t), 1 2 3 4 5 6) }
}

/// # Safety
/// As [`QuantizedKernel::tile`], for `ROWS` rows and the format that the other parameters say.
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile_of<
    const ROWS: usize,
    const N_RUNS: usize,
    const MINIMA: bool,
    const FINE: bool,
    const BITS: u32,
>(
    t: &QuantizedTile,
) {
    let row_pairs = ROWS.div_ceil(2); // the last pair may be a single row
    let mut total = [[vdupq_n_f32(0.0); PAIRS]; ROW_PAIRS];
    // SAFETY: runs, groups and rows are within what `QuantizedTile` and `Panel` say the pointers
    // are valid for; no access needs an alignment.
    unsafe {
        let panel = &*t.panel;
        for run in 0..N_RUNS {
            let mut dot = [[vdupq_n_s32(0); PAIRS]; ROW_PAIRS];
            if !MINIMA {
                for (p, dot) in dot.iter_mut().enumerate().take(row_pairs) {
                    *dot = [numbers::<ROWS>(t.sums.add(2 * p * RUNS), p, run); PAIRS];
                }
            }
            let run_len = SUPERBLOCK / N_RUNS;
            for from in (run * run_len..(run + 1) * run_len).step_by(16) {
                multiply::<ROWS>(t.values, panel.values.as_ptr(), from, &mut dot);
            }
            let mut of_rows = [vdupq_n_f32(0.0); ROW_PAIRS];
            if FINE {
                for (p, scales) in of_rows.iter_mut().enumerate().take(row_pairs) {
                    let from = t.scales.add(2 * p * SCALES);
                    *scales = vreinterpretq_f32_s32(numbers::<ROWS>(
                        from.cast(),
                        p,
                        run * SCALES / N_RUNS,
                    ));
                }
            }
            let scales = squares(panel.scales.as_ptr().add(run * 2 * LANES));
            for (i, of_outputs) in scales.into_iter().enumerate() {
                let pairs = total.iter_mut().zip(dot).zip(of_rows).take(row_pairs);
                for ((total, dot), of_rows) in pairs {
                    let scale = if FINE {
                        vmulq_f32(of_outputs, of_rows)
                    } else {
                        of_outputs
                    };
                    total[i] = vfmaq_f32(total[i], vcvtq_f32_s32(dot[i]), scale);
                }
            }
        }
        if MINIMA {
            let scales = squares(panel.min_scales.as_ptr());
            let minima = minima(panel.minima.as_ptr());
            for (p, total) in total.iter_mut().enumerate().take(row_pairs) {
                let (low, high) = bytes_of_sums::<ROWS>(t.sums.add(2 * p * RUNS), p);
                for ((total, minima), scale) in total.iter_mut().zip(minima).zip(scales) {
                    let sum = smmla(vdupq_n_s32(0), vreinterpretq_s8_u8(minima), high);
                    let sum = ummla(vshlq_n_s32::<8>(sum), minima, low);
                    *total = vfmsq_f32(*total, vcvtq_f32_s32(sum), scale);
                }
            }
        }
        for (p, total) in total.iter().enumerate().take(row_pairs) {
            let scales = t.scales.add(2 * p * SCALES);
            add::<FINE>(t.out.add(2 * p * LANES), first_rows(*total), scales);
            if !alone::<ROWS>(p) {
                let out = t.out.add((2 * p + 1) * LANES);
                add::<FINE>(out, second_rows(*total), scales.add(1));
            }
        }
    }
}

/// Adds the products of sixteen inputs from `from` on.
///
/// # Safety
/// `rows` and `panel` point to the values of the tile.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn multiply<const ROWS: usize>(
    rows: *const i8,
    panel: *const u8,
    from: usize,
    dot: &mut [[int32x4_t; PAIRS]; ROW_PAIRS],
) {
    let mut a = [[vdupq_n_s8(0); ROW_PAIRS]; 2];
    for (eight, a) in a.iter_mut().enumerate() {
        for (p, a) in a.iter_mut().enumerate().take(ROWS.div_ceil(2)) {
            // SAFETY: the pair's values begin there.
            *a = unsafe { values::<ROWS>(rows.add(2 * p * SUPERBLOCK), p, from + 8 * eight) };
        }
    }
    for (eight, a) in a.into_iter().enumerate() {
        for i in (0..PAIRS).step_by(2) {
            // SAFETY: eight inputs of two pairs of outputs.
            let [first, second] = unsafe {
                let w = panel.add((from + 8 * eight) * LANES + 16 * i);
                [vld1q_u8(w), vld1q_u8(w.add(16))]
            };
            for (dot, a) in dot.iter_mut().zip(a).take(ROWS.div_ceil(2)) {
                dot[i] = usmmla(dot[i], first, a);
                dot[i + 1] = usmmla(dot[i + 1], second, a);
            }
        }
    }
}

/// Whether pair `p` of `ROWS` rows is a single row.
#[inline(always)]
const fn alone<const ROWS: usize>(p: usize) -> bool {
    2 * p + 1 == ROWS
}

/// Element `i` of both rows of pair `p`, twice.
///
/// # Safety
/// `from` points to the pair's elements.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn numbers<const ROWS: usize>(from: *const i32, p: usize, i: usize) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        if alone::<ROWS>(p) {
            vdupq_n_s32(*from.add(i))
        } else {
            let both = from.add(2 * i).cast::<i64>().read_unaligned();
            vreinterpretq_s32_s64(vdupq_n_s64(both))
        }
    }
}

/// Eight values of both rows of pair `p`, from the `i`th on.
///
/// # Safety
/// `from` points to the pair's values.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn values<const ROWS: usize>(from: *const i8, p: usize, i: usize) -> int8x16_t {
    // SAFETY: as above.
    unsafe {
        if alone::<ROWS>(p) {
            let eight = from.add(i).cast::<i64>().read_unaligned();
            vreinterpretq_s8_s64(vdupq_n_s64(eight))
        } else {
            vld1q_s8(from.add(2 * i))
        }
    }
}

/// The low and the high bytes of the sums of the eight runs of both rows of pair `p`.
///
/// # Safety
/// `from` points to the pair's sums.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn bytes_of_sums<const ROWS: usize>(from: *const i32, p: usize) -> (uint8x16_t, int8x16_t) {
    // SAFETY: as above.
    let int32x4x2_t(first, second) = unsafe {
        if alone::<ROWS>(p) {
            let sums = vld1q_s32(from);
            int32x4x2_t(sums, sums)
        } else {
            vld2q_s32(from)
        }
    };
    let (first, second) = (vreinterpretq_s8_s32(first), vreinterpretq_s8_s32(second));
    let low = vuzp1q_s8(first, second);
    (vreinterpretq_u8_s8(low), vuzp2q_s8(first, second))
}

/// The minima of all outputs, those of a pair in each vector.
///
/// # Safety
/// `from` points to them.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn minima(from: *const i16) -> [uint8x16_t; PAIRS] {
    std::array::from_fn(|i| {
        // SAFETY: as above. They fit in bytes.
        unsafe {
            let first = vld1q_u8(from.add(16 * i).cast());
            vuzp1q_u8(first, vld1q_u8(from.add(16 * i + 8).cast()))
        }
    })
}

/// Four elements per 2 x 2 block.
///
/// # Safety
/// Sixteen elements are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn squares(from: *const f32) -> [float32x4_t; PAIRS] {
    // SAFETY: as above.
    std::array::from_fn(|i| unsafe { vld1q_f32(from.add(4 * i)) })
}

/// The first rows of 2 x 2 blocks.
#[inline]
#[target_feature(enable = "neon")]
fn first_rows(s: [float32x4_t; PAIRS]) -> [float32x4_t; 2] {
    [vuzp1q_f32(s[0], s[1]), vuzp1q_f32(s[2], s[3])]
}

/// The second rows of 2 x 2 blocks.
#[inline]
#[target_feature(enable = "neon")]
fn second_rows(s: [float32x4_t; PAIRS]) -> [float32x4_t; 2] {
    [vuzp2q_f32(s[0], s[1]), vuzp2q_f32(s[2], s[3])]
}

/// Adds a superblock's sums of a row to its output. Unless `FINE`, they are multiplied by the row's
/// scale first.
///
/// # Safety
/// Eight outputs and the scale are valid.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add<const FINE: bool>(out: *mut f32, sums: [float32x4_t; 2], scale: *const f32) {
    // SAFETY: as above.
    unsafe {
        let before = [vld1q_f32(out), vld1q_f32(out.add(4))];
        let scale = *scale;
        for (i, (sum, before)) in sums.into_iter().zip(before).enumerate() {
            let sum = if FINE {
                vaddq_f32(before, sum)
            } else {
                vfmaq_n_f32(before, sum, scale)
            };
            vst1q_f32(out.add(4 * i), sum);
        }
    }
}

/// `sum[i][r] + w[i] . a[r]`, for two outputs and two rows, eight bytes long.
///
/// Inline assembly because the intrinsic, `vusmmlaq_s32`, is not stable. It is not `pure`, so that
/// the compiler keeps the order: it would load a whole run first, for which there are not enough
/// registers.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn usmmla(mut sum: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction of the features above, which accesses only these registers.
    unsafe {
        std::arch::asm!(
            "usmmla {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            options(nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// The same for unsigned bytes; the intrinsic is `vmmlaq_u32`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn ummla(mut sum: int32x4_t, w: uint8x16_t, a: uint8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "ummla {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// `sum[r][i] + a[r] . w[i]`, for two rows and two outputs, eight bytes long.
///
/// Inline assembly because the intrinsic, `vmmlaq_s32`, is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sum: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
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
