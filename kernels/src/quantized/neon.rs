//! NEON as every AArch64 CPU has it (Cortex-A72): `smull` and `smlal` to 16 bits, `sadalp` to 32.
//!
//! Sixteen inputs of an output are stored side by side, so no element needs to be broadcast. Each
//! register then holds partial sums of one output, which three `addp` reduce to a vector of four
//! outputs. Weights of up to six bits are valid signed bytes, and four of their products fit in 16
//! bits: a run of four outputs takes 16 multiplications, 4 pairwise additions and 3 `addp` for 128
//! products. Of Q8_0, whose weights are converted back to signed, two products fit.
//!
//! A tile is eight rows by eight outputs, computed four outputs at a time: a run of their weights
//! stays in eight registers for all rows, beside eight running sums.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::sync::atomic::{Ordering, compiler_fence};

use super::activations::{RUNS, SCALES};
use super::kernel::{PanelLayout, QuantizedKernel, QuantizedTile, with_format};
use super::neon_dotprod::{add_minima, two};
use super::{SUPERBLOCK, neon_unpack16};
use crate::Cpu;

pub(super) const LANES: usize = 8;
const TILE: usize = 8;
/// Inputs of an output that are stored side by side.
const GROUP: usize = 16;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::Neon,
    lanes: LANES,
    rows: TILE,
    layout: PanelLayout::Groups16,
    min_rows: |_| usize::MAX, // not measured; the decoder is left to llama.cpp
    tile,
    unpack: neon_unpack16::unpack,
    gemv: |_, _| None,
};

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows, t.format, tile_of(t), 1 2 3 4 5 6 7 8) }
}

/// # Safety
/// As [`QuantizedKernel::tile`], for `ROWS` rows and the format that the other parameters say.
#[target_feature(enable = "neon")]
unsafe fn tile_of<
    const ROWS: usize,
    const N_RUNS: usize,
    const MINIMA: bool,
    const FINE: bool,
    const BITS: u32,
>(
    t: &QuantizedTile,
) {
    // SAFETY: runs, groups and rows are within what `QuantizedTile` and `Panel` say the pointers
    // are valid for; no access needs an alignment.
    unsafe {
        let panel = &*t.panel;
        for first in (0..LANES).step_by(4) {
            let mut total = [vdupq_n_f32(0.0); ROWS];
            for run in 0..N_RUNS {
                let w = panel
                    .values
                    .as_ptr()
                    .add((run * SUPERBLOCK / N_RUNS) * LANES);
                let w = w.add(first * GROUP);
                let scales = vld1q_f32(panel.scales.as_ptr().add(run * LANES + first));
                let weights: [[int8x16_t; 2]; 4] = std::array::from_fn(|lane| {
                    let group = |g: usize| signed::<BITS>(w.add((g * LANES + lane) * GROUP));
                    // A run of sixteen has one group.
                    [group(0), group(if N_RUNS == 8 { 1 } else { 0 })]
                });
                for (r, total) in total.iter_mut().enumerate() {
                    // Interleaving rows would need more registers than there are.
                    compiler_fence(Ordering::SeqCst);
                    let a = t.values.add(r * SUPERBLOCK + run * SUPERBLOCK / N_RUNS);
                    let mut dot = if N_RUNS == 8 {
                        let a = [vld1q_s8(a), vld1q_s8(a.add(GROUP))];
                        four_dots(&weights, |w| dot_of_32::<BITS>(w, a))
                    } else {
                        let a = vld1q_s8(a);
                        four_dots(&weights, |w| vpaddlq_s16(pairs(w[0], a)))
                    };
                    if !MINIMA && BITS < 8 {
                        dot = vaddq_s32(dot, vdupq_n_s32(*t.sums.add(r * RUNS + run)));
                    }
                    let mut scale = scales;
                    if FINE {
                        let fine = *t.scales.add(r * SCALES + run * SCALES / N_RUNS);
                        scale = vmulq_n_f32(scale, fine);
                    }
                    *total = vfmaq_f32(*total, vcvtq_f32_s32(dot), scale);
                }
            }
            if MINIMA {
                let half = first / 4;
                for (r, total) in total.iter_mut().enumerate() {
                    let sums = vld1q_s16(t.sums.add(r * RUNS).cast());
                    let minima = panel.minima.as_ptr();
                    let mut low = [vdupq_n_s32(0); 2];
                    add_minima::<0, 1>(&mut low, minima, sums);
                    add_minima::<2, 3>(&mut low, minima.add(2 * LANES), sums);
                    add_minima::<4, 5>(&mut low, minima.add(4 * LANES), sums);
                    add_minima::<6, 7>(&mut low, minima.add(6 * LANES), sums);
                    let scale = two(panel.min_scales.as_ptr())[half];
                    *total = vfmsq_f32(*total, vcvtq_f32_s32(low[half]), scale);
                }
            }
            for (r, total) in total.iter().enumerate() {
                let out = t.out.add(r * LANES + first);
                let before = vld1q_f32(out);
                let sum = if FINE {
                    vaddq_f32(before, *total)
                } else {
                    vfmaq_n_f32(before, *total, *t.scales.add(r * SCALES))
                };
                vst1q_f32(out, sum);
            }
        }
    }
}

/// Sixteen weights as signed bytes.
///
/// # Safety
/// They are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn signed<const BITS: u32>(w: *const u8) -> int8x16_t {
    // SAFETY: as above.
    let w = unsafe { vld1q_u8(w) };
    vreinterpretq_s8_u8(if BITS == 8 {
        veorq_u8(w, vdupq_n_u8(128))
    } else {
        w
    })
}

/// Sums of two products in 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(w: int8x16_t, a: int8x16_t) -> int16x8_t {
    vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(a)), w, a)
}

/// Partial sums of 32 products.
#[inline]
#[target_feature(enable = "neon")]
fn dot_of_32<const BITS: u32>(w: &[int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t {
    let first = pairs(w[0], a[0]);
    if BITS == 8 {
        return vpadalq_s16(vpaddlq_s16(first), pairs(w[1], a[1]));
    }
    let all = vmlal_s8(first, vget_low_s8(w[1]), vget_low_s8(a[1]));
    vpaddlq_s16(vmlal_high_s8(all, w[1], a[1]))
}

/// Reduces the partial sums of four outputs.
#[inline(always)]
fn four_dots(w: &[[int8x16_t; 2]; 4], dot: impl Fn(&[int8x16_t; 2]) -> int32x4_t) -> int32x4_t {
    // SAFETY: every AArch64 CPU has NEON.
    unsafe {
        let first = vpaddq_s32(dot(&w[0]), dot(&w[1]));
        vpaddq_s32(first, vpaddq_s32(dot(&w[2]), dot(&w[3])))
    }
}
