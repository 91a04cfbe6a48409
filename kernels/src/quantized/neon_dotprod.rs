//! NEON with `sdot`: four bytes of each of four outputs times four bytes of a row.
//!
//! A tile is six rows by eight outputs, as for int8: twelve sums of a run, twelve running sums, six
//! registers of activations and two of weights take all 32. Weights of up to six bits are valid
//! signed bytes as they are. Those of Q8_0 are converted back to signed, so their sums begin at
//! zero.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::activations::{RUNS, SCALES};
use super::kernel::{PanelLayout, QuantizedKernel, QuantizedTile, with_format};
use super::{QuantFormat, SUPERBLOCK, neon_gemv, neon_unpack};
use crate::Cpu;

pub(super) const LANES: usize = 8;
const TILE: usize = 6;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::NeonDotprod,
    lanes: LANES,
    rows: TILE,
    layout: PanelLayout::Groups4,
    min_rows,
    tile,
    unpack: neon_unpack::unpack,
    gemv: neon_gemv::gemv,
};

/// As [`QuantizedKernel::min_rows`].
pub(super) fn min_rows(format: QuantFormat) -> usize {
    match format {
        QuantFormat::Q4_0 | QuantFormat::Q5_0 | QuantFormat::Q8_0 => 4,
        _ => 2,
    }
}

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows, t.format, tile_of(t), 1 2 3 4 5 6) }
}

/// # Safety
/// As [`QuantizedKernel::tile`], for `ROWS` rows and the format that the other parameters say.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_of<
    const ROWS: usize,
    const N_RUNS: usize,
    const MINIMA: bool,
    const FINE: bool,
    const BITS: u32,
>(
    t: &QuantizedTile,
) {
    let signed = BITS == 8;
    let mut total = [[vdupq_n_f32(0.0); 2]; ROWS];
    // SAFETY: runs, groups and rows are within what `QuantizedTile` and `Panel` say the pointers
    // are valid for; no access needs an alignment.
    unsafe {
        let panel = &*t.panel;
        for run in 0..N_RUNS {
            let mut dot = [[vdupq_n_s32(0); 2]; ROWS];
            if !MINIMA && !signed {
                for (r, dot) in dot.iter_mut().enumerate() {
                    *dot = [vdupq_n_s32(*t.sums.add(r * RUNS + run)); 2];
                }
            }
            let run_len = SUPERBLOCK / N_RUNS;
            for from in (run * run_len..(run + 1) * run_len).step_by(16) {
                let mut a = [vdupq_n_s8(0); ROWS];
                for (r, a) in a.iter_mut().enumerate() {
                    *a = vld1q_s8(t.values.add(r * SUPERBLOCK + from));
                }
                let w = panel.values.as_ptr().add(from * LANES);
                group::<0, ROWS, BITS>(w, &a, &mut dot);
                group::<1, ROWS, BITS>(w, &a, &mut dot);
                group::<2, ROWS, BITS>(w, &a, &mut dot);
                group::<3, ROWS, BITS>(w, &a, &mut dot);
            }
            let scales = two(panel.scales.as_ptr().add(run * LANES));
            for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                for ((total, dot), mut scale) in total.iter_mut().zip(dot).zip(scales) {
                    if FINE {
                        scale =
                            vmulq_n_f32(scale, *t.scales.add(r * SCALES + run * SCALES / N_RUNS));
                    }
                    *total = vfmaq_f32(*total, vcvtq_f32_s32(dot), scale);
                }
            }
        }
        if MINIMA {
            let scales = two(panel.min_scales.as_ptr());
            for (r, total) in total.iter_mut().enumerate() {
                let sums = vld1q_s16(t.sums.add(r * RUNS).cast());
                let minima = panel.minima.as_ptr();
                let mut low = [vdupq_n_s32(0); 2];
                add_minima::<0, 1>(&mut low, minima, sums);
                add_minima::<2, 3>(&mut low, minima.add(2 * LANES), sums);
                add_minima::<4, 5>(&mut low, minima.add(4 * LANES), sums);
                add_minima::<6, 7>(&mut low, minima.add(6 * LANES), sums);
                for ((total, low), scale) in total.iter_mut().zip(low).zip(scales) {
                    *total = vfmsq_f32(*total, vcvtq_f32_s32(low), scale);
                }
            }
        }
        for (r, total) in total.iter().enumerate() {
            let out = t.out.add(r * LANES);
            for (i, (total, before)) in total.iter().zip(two(out)).enumerate() {
                let sum = if FINE {
                    vaddq_f32(before, *total)
                } else {
                    vfmaq_n_f32(before, *total, *t.scales.add(r * SCALES))
                };
                vst1q_f32(out.add(4 * i), sum);
            }
        }
    }
}

/// Loads eight elements.
///
/// # Safety
/// They are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn two(from: *const f32) -> [float32x4_t; 2] {
    // SAFETY: as above.
    unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
}

/// Multiplies the `I`th of four groups of `w` by the `I`th quarter of each row.
///
/// # Safety
/// Four groups are valid for reads.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn group<const I: usize, const ROWS: usize, const BITS: u32>(
    w: *const u8,
    a: &[int8x16_t; ROWS],
    dot: &mut [[int32x4_t; 2]; ROWS],
) {
    for i in 0..2 {
        // SAFETY: the caller's promise; no alignment is needed.
        let mut w = unsafe { vld1q_u8(w.add(I * LANES * 4 + 16 * i)) };
        if BITS == 8 {
            w = veorq_u8(w, vdupq_n_u8(128));
        }
        for (dot, a) in dot.iter_mut().zip(a) {
            dot[i] = sdot::<I>(dot[i], vreinterpretq_s8_u8(w), *a);
        }
    }
}

/// Adds the minima of runs `I` and `J`, which are pairs for each output, times the sums of these
/// runs.
///
/// # Safety
/// The minima of eight outputs are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn add_minima<const I: i32, const J: i32>(
    low: &mut [int32x4_t; 2],
    minima: *const i16,
    sums: int16x8_t,
) {
    // SAFETY: the caller's promise.
    let int16x8x2_t(first, second) = unsafe { vld2q_s16(minima) };
    low[0] = vmlal_laneq_s16::<I>(low[0], vget_low_s16(first), sums);
    low[0] = vmlal_laneq_s16::<J>(low[0], vget_low_s16(second), sums);
    low[1] = vmlal_high_laneq_s16::<I>(low[1], first, sums);
    low[1] = vmlal_high_laneq_s16::<J>(low[1], second, sums);
}

/// `sum[i] + w[4 i..][..4] . a[4 I..][..4]`
///
/// Inline assembly because the intrinsic, `vdotq_laneq_s32`, is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const I: usize>(mut sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction of the features above, which accesses only these registers.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {a:v}.4b[{i}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            i = const I,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
