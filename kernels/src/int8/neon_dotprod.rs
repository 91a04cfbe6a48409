//! NEON with `sdot`: four bytes of each of four outputs times four bytes of a row.
//!
//! It takes the row's four bytes from any quarter of a register, so nothing needs to be broadcast.
//! A tile is six rows by eight outputs. Twelve sums of a block, twelve running sums, six registers
//! of activations and two of weights take all 32. For every eight `sdot` a block costs a
//! conversion, a multiplication and an addition for the scales.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::BLOCK;
use super::kernel::{Int8Kernel, Int8Tile, with_rows};
use super::neon::to_f32;
use crate::Cpu;

const LANES: usize = 8;
const TILE: usize = 6;
const BYTES: usize = LANES * (BLOCK + 2);

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::NeonDotprod,
    lanes: LANES,
    rows: TILE,
    group: 4,
    unsigned: false,
    tile,
};

/// # Safety
/// As [`Int8Kernel::tile`].
unsafe fn tile(t: &Int8Tile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_rows!(rows, tile_of(t), 1 2 3 4 5 6) }
}

/// # Safety
/// As [`Int8Kernel::tile`], for `ROWS` rows.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_of<const ROWS: usize>(t: &Int8Tile) {
    let mut total = [[vdupq_n_f32(0.0); 2]; ROWS];
    if t.add {
        for (r, total) in total.iter_mut().enumerate() {
            for (i, total) in total.iter_mut().enumerate() {
                // SAFETY: `out` has `ROWS` rows of `LANES`.
                *total = unsafe { vld1q_f32(t.out.add(r * t.stride + 4 * i)) };
            }
        }
    }
    for b in 0..t.blocks {
        // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all reads are
        // within what `Int8Tile` says the pointers are valid for. None needs an alignment.
        unsafe {
            let panel = t.panel.add(b * BYTES);
            let mut dot = [[vdupq_n_s32(0); 2]; ROWS];
            for half in 0..BLOCK / 16 {
                let mut a = [vdupq_n_s8(0); ROWS];
                for (r, a) in a.iter_mut().enumerate() {
                    *a = vld1q_s8(t.values.add((b * TILE + r) * BLOCK + half * 16));
                }
                let w = panel.add(half * 4 * LANES * 4);
                group::<0, ROWS>(w, &a, &mut dot);
                group::<1, ROWS>(w, &a, &mut dot);
                group::<2, ROWS>(w, &a, &mut dot);
                group::<3, ROWS>(w, &a, &mut dot);
            }
            let sw = panel.add(LANES * BLOCK).cast::<u16>();
            let sw = [to_f32(vld1_u16(sw)), to_f32(vld1_u16(sw.add(4)))];
            for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                let sa = *t.scales.add(b * TILE + r);
                for (i, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                    let sum = vmulq_f32(vcvtq_f32_s32(dot), sw[i]);
                    *total = vfmaq_n_f32(*total, sum, sa);
                }
            }
        }
    }
    for (r, total) in total.iter().enumerate() {
        for (i, total) in total.iter().enumerate() {
            // SAFETY: `out` has `ROWS` rows of `LANES`.
            unsafe { vst1q_f32(t.out.add(r * t.stride + 4 * i), *total) }
        }
    }
}

/// Multiplies the `I`th of four groups of `w` by the `I`th quarter of each row.
///
/// # Safety
/// Four groups are valid for reads.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn group<const I: usize, const ROWS: usize>(
    w: *const u8,
    a: &[int8x16_t; ROWS],
    dot: &mut [[int32x4_t; 2]; ROWS],
) {
    // SAFETY: the caller's promise; no alignment is needed.
    let w = unsafe {
        let group = w.add(I * LANES * 4).cast();
        [vld1q_s8(group), vld1q_s8(group.add(16))]
    };
    for (i, w) in w.into_iter().enumerate() {
        for (dot, a) in dot.iter_mut().zip(a) {
            dot[i] = sdot::<I>(dot[i], w, *a);
        }
    }
}

/// `sum[i] + w[4 i..][..4] . a[4 I..][..4]`
///
/// Inline assembly because the intrinsic, `vdotq_laneq_s32`, is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn sdot<const I: usize>(mut sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
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
