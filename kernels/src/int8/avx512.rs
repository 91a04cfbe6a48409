//! AVX-512 with VNNI: `vpdpbusd` multiplies four bytes of sixteen outputs at once.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK;
use super::kernel::{Kernel, Tile, with_rows};
use crate::Cpu;

const LANES: usize = 16;
const BYTES: usize = LANES * (BLOCK + 2);

pub static KERNEL: Kernel = Kernel {
    cpu: Cpu::Avx512Vnni,
    lanes: LANES,
    rows: 12,
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
    let width = t.blocks * BLOCK;
    let mut total = [_mm512_setzero_ps(); ROWS];
    for b in 0..t.blocks {
        // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all reads are
        // within what `Tile` says the pointers are valid for. None of them needs an alignment.
        unsafe {
            let panel = t.panel.add(b * BYTES);
            let mut dot = [_mm512_setzero_si512(); ROWS];
            for (r, dot) in dot.iter_mut().enumerate() {
                *dot = _mm512_set1_epi32(*t.offsets.add(r * t.blocks + b));
            }
            for group in 0..BLOCK / 4 {
                let w = _mm512_loadu_si512(panel.add(group * LANES * 4).cast());
                for (r, dot) in dot.iter_mut().enumerate() {
                    let a = t.values.add(r * width + b * BLOCK + group * 4);
                    let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                    *dot = _mm512_dpbusd_epi32(*dot, w, a);
                }
            }
            let scales = panel.add(LANES * BLOCK).cast::<__m256i>();
            let sw = _mm512_cvtph_ps(scales.read_unaligned());
            for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                let sa = _mm512_set1_ps(*t.scales.add(r * t.blocks + b));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(sw, sa), *total);
            }
        }
    }
    for (r, total) in total.iter().enumerate() {
        // SAFETY: `out` has `ROWS` rows of `LANES`.
        unsafe { _mm512_storeu_ps(t.out.add(r * LANES), *total) }
    }
}
