//! AVX-512 with VNNI: `vpdpbusd` multiplies four bytes of sixteen outputs at once.
//!
//! A tile is six rows by 32 outputs. Twelve int32 sums of a block and twelve f32 running sums fill
//! 24 of the 32 registers, twelve chains hide the latency of the instruction, and twelve
//! multiplications need only eight loads. Each eight multiplications of a block cost two operations
//! for the scales, so at most four fifths of the instruction's peak rate are reached.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK;
use super::activations::SUM_ZERO_F32;
use super::kernel::{Int8Kernel, Int8Tile, with_rows};
use crate::Cpu;

const LANES: usize = 32;
const TILE: usize = 6;
const BYTES: usize = LANES * (BLOCK + 2);
/// Vectors of outputs.
const N: usize = LANES / 16;

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::Avx512Vnni,
    lanes: LANES,
    rows: TILE,
    group: 4,
    unsigned: true,
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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile_of<const ROWS: usize>(t: &Int8Tile) {
    let mut total = [[_mm512_setzero_ps(); N]; ROWS];
    if t.add {
        for (r, total) in total.iter_mut().enumerate() {
            for (j, total) in total.iter_mut().enumerate() {
                // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all
                // reads are within what `Int8Tile` says the pointers are valid for. None needs an
                // alignment.
                *total = unsafe { _mm512_loadu_ps(t.out.add(r * t.stride + j * 16)) };
            }
        }
    }
    for b in 0..t.blocks {
        // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all reads are
        // within what `Int8Tile` says the pointers are valid for. None of them needs an alignment.
        unsafe {
            let panel = t.panel.add(b * BYTES);
            let mut dot = [[_mm512_setzero_si512(); N]; ROWS];
            for (r, dot) in dot.iter_mut().enumerate() {
                *dot = [_mm512_set1_epi32(*t.init_sums.add(b * TILE + r)); N];
            }
            for group in 0..BLOCK / 4 {
                let mut w = [_mm512_setzero_si512(); N];
                for (j, w) in w.iter_mut().enumerate() {
                    *w = _mm512_loadu_si512(panel.add((group * LANES + j * 16) * 4).cast());
                }
                for (r, dot) in dot.iter_mut().enumerate() {
                    let a = t.values.add((b * TILE + r) * BLOCK + group * 4);
                    let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                    for (dot, w) in dot.iter_mut().zip(w) {
                        *dot = _mm512_dpbusd_epi32(*dot, w, a);
                    }
                }
            }
            let scales = panel.add(LANES * BLOCK).cast::<__m256i>();
            let mut sw = [_mm512_setzero_ps(); N];
            let mut zero = sw;
            for (j, (sw, zero)) in sw.iter_mut().zip(&mut zero).enumerate() {
                *sw = _mm512_cvtph_ps(scales.add(j).read_unaligned());
                *zero = _mm512_mul_ps(*sw, _mm512_set1_ps(SUM_ZERO_F32));
            }
            for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                let sa = _mm512_set1_ps(*t.scales.add(b * TILE + r));
                for j in 0..N {
                    let sum = _mm512_fmsub_ps(_mm512_castsi512_ps(dot[j]), sw[j], zero[j]);
                    total[j] = _mm512_fmadd_ps(sum, sa, total[j]);
                }
            }
        }
    }
    for (r, total) in total.iter().enumerate() {
        for (j, total) in total.iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(t.out.add(r * t.stride + j * 16), *total) }
        }
    }
}
