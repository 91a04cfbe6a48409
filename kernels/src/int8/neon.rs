//! NEON as every AArch64 CPU has it (Cortex-A72): `smull` and `smlal2` to 16 bits, `sadalp` to 32.
//!
//! Two products just fit in 16 bits: the largest sum is 2 * 127 * 128 = 32512. Sixteen inputs of an
//! output are stored side by side, so no element needs to be broadcast. Each register then holds
//! partial sums of one output, which three `addp` reduce to a vector of four outputs. A block of
//! four outputs takes 16 multiplications, 8 pairwise additions and 3 `addp` for 128 products.
//!
//! A tile is eight rows by eight outputs, computed four outputs at a time: a block of their weights
//! stays in eight registers for all rows, beside eight running sums.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::sync::atomic::{Ordering, compiler_fence};

use super::BLOCK;
use super::kernel::{Int8Kernel, Int8Tile, with_rows};
use crate::Cpu;

const LANES: usize = 8;
const TILE: usize = 8;
const BYTES: usize = LANES * (BLOCK + 2);
const GROUP: usize = 16;

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::Neon,
    lanes: LANES,
    rows: TILE,
    group: GROUP,
    unsigned: false,
    tile,
};

/// # Safety
/// As [`Int8Kernel::tile`].
unsafe fn tile(t: &Int8Tile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_rows!(rows, tile_of(t), 1 2 3 4 5 6 7 8) }
}

/// # Safety
/// As [`Int8Kernel::tile`], for `ROWS` rows.
#[target_feature(enable = "neon")]
unsafe fn tile_of<const ROWS: usize>(t: &Int8Tile) {
    for first in (0..LANES).step_by(4) {
        let mut total = [vdupq_n_f32(0.0); ROWS];
        if t.add {
            for (r, total) in total.iter_mut().enumerate() {
                // SAFETY: `out` has `ROWS` rows of `LANES`.
                *total = unsafe { vld1q_f32(t.out.add(r * t.stride + first)) };
            }
        }
        for b in 0..t.blocks {
            // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all reads
            // are within what `Int8Tile` says the pointers are valid for. None needs an alignment.
            unsafe {
                let panel = t.panel.add(b * BYTES);
                let mut w = [[vdupq_n_s8(0); BLOCK / GROUP]; 4];
                for (lane, w) in w.iter_mut().enumerate() {
                    for (g, w) in w.iter_mut().enumerate() {
                        let place = g * LANES + first + lane;
                        *w = vld1q_s8(panel.add(place * GROUP).cast());
                    }
                }
                let sw = to_f32(vld1_u16(panel.add(LANES * BLOCK).cast::<u16>().add(first)));
                for (r, total) in total.iter_mut().enumerate() {
                    // Interleaving rows would need more registers than there are.
                    compiler_fence(Ordering::SeqCst);
                    let a = t.values.add((b * TILE + r) * BLOCK);
                    let dot = four_dots(&w, [vld1q_s8(a), vld1q_s8(a.add(GROUP))]);
                    let sum = vmulq_f32(vcvtq_f32_s32(dot), sw);
                    *total = vfmaq_n_f32(*total, sum, *t.scales.add(b * TILE + r));
                }
            }
        }
        for (r, total) in total.iter().enumerate() {
            // SAFETY: `out` has `ROWS` rows of `LANES`.
            unsafe { vst1q_f32(t.out.add(r * t.stride + first), *total) }
        }
    }
}

/// Dot products of a row's block with those of four outputs.
#[inline]
#[target_feature(enable = "neon")]
fn four_dots(w: &[[int8x16_t; 2]; 4], a: [int8x16_t; 2]) -> int32x4_t {
    let pairs = |w, a| vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(a)), w, a);
    let part = |w: &[int8x16_t; 2]| {
        let sums = vpaddlq_s16(pairs(w[0], a[0]));
        vpadalq_s16(sums, pairs(w[1], a[1]))
    };
    let first = vpaddq_s32(part(&w[0]), part(&w[1]));
    vpaddq_s32(first, vpaddq_s32(part(&w[2]), part(&w[3])))
}

/// Converts four f16 to f32.
///
/// Inline assembly because vectors of f16 are not stable in all Rust versions that build this.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn to_f32(f16s: uint16x4_t) -> float32x4_t {
    let numbers;
    // SAFETY: one instruction of every AArch64 CPU, which accesses only these registers.
    unsafe {
        std::arch::asm!(
            "fcvtl {numbers:v}.4s, {f16s:v}.4h",
            f16s = in(vreg) f16s,
            numbers = out(vreg) numbers,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    numbers
}
