//! AVX-512 with VNNI: `vpdpbusd` multiplies four bytes of sixteen outputs at once.
//!
//! A tile is twelve rows by sixteen outputs: twelve sums of a block in int32 and twelve running sums
//! in f32 fill 24 of the 32 registers, and twelve chains hide the four cycles of the instruction.
//! For every eight of them a block costs a multiplication and an addition for the scales.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK;
use super::kernel::{Kernel, Tile, with_rows};
use super::rows::SUM_ZERO_F32;
use crate::Cpu;

const LANES: usize = 16;
const TILE: usize = 12;
const BYTES: usize = LANES * (BLOCK + 2);

pub static KERNEL: Kernel = Kernel {
    cpu: Cpu::Avx512Vnni,
    lanes: LANES,
    rows: TILE,
    unsigned: true,
    tile,
};

/// # Safety
/// As [`Kernel::tile`].
unsafe fn tile(t: &Tile, rows: usize) {
    // SAFETY: handed on as they are.
    unsafe { with_rows!(rows, tile_of(t), 1 2 3 4 5 6 7 8 9 10 11 12) }
}

/// # Safety
/// As [`Kernel::tile`], for `ROWS` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile_of<const ROWS: usize>(t: &Tile) {
    let zero = _mm512_set1_ps(SUM_ZERO_F32);
    let mut total = [_mm512_setzero_ps(); ROWS];
    for b in 0..t.blocks {
        // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all reads are
        // within what `Tile` says the pointers are valid for. None of them needs an alignment.
        unsafe {
            let panel = t.panel.add(b * BYTES);
            let mut dot = [_mm512_setzero_si512(); ROWS];
            for (r, dot) in dot.iter_mut().enumerate() {
                *dot = _mm512_set1_epi32(*t.begins.add(b * TILE + r));
            }
            for group in 0..BLOCK / 4 {
                let w = _mm512_loadu_si512(panel.add(group * LANES * 4).cast());
                for (r, dot) in dot.iter_mut().enumerate() {
                    let a = t.values.add((b * TILE + r) * BLOCK + group * 4);
                    let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                    *dot = _mm512_dpbusd_epi32(*dot, w, a);
                }
            }
            let scales = panel.add(LANES * BLOCK).cast::<__m256i>();
            let sw = _mm512_cvtph_ps(scales.read_unaligned());
            for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                let sa = _mm512_set1_ps(*t.scales.add(b * TILE + r));
                *total = _mm512_fmadd_ps(
                    _mm512_sub_ps(_mm512_castsi512_ps(dot), zero),
                    _mm512_mul_ps(sw, sa),
                    *total,
                );
            }
        }
    }
    for (r, total) in total.iter().enumerate() {
        // SAFETY: `out` has `ROWS` rows of `LANES`.
        unsafe { _mm512_storeu_ps(t.out.add(r * LANES), *total) }
    }
}
