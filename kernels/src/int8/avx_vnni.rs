//! AVX-VNNI: 256-bit `vpdpbusd`, for CPUs without AVX-512.
//!
//! A tile is six rows by eight outputs: six sums of a block and six running sums, in 16 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK;
use super::activations::SUM_ZERO_F32;
use super::kernel::{Int8Kernel, Int8Tile, with_rows};
use crate::Cpu;

const LANES: usize = 8;
const TILE: usize = 6;
const BYTES: usize = LANES * (BLOCK + 2);

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::AvxVnni,
    lanes: LANES,
    rows: TILE,
    group: 4,
    unsigned: true,
    tile,
};

/// The tile, with either encoding of `vpdpbusd`.
macro_rules! tile_of {
    ($name:ident, $features:literal, $dpbusd:ident) => {
        /// # Safety
        /// As [`Int8Kernel::tile`], for `ROWS` rows.
        #[target_feature(enable = $features)]
        unsafe fn $name<const ROWS: usize>(t: &Int8Tile) {
            let mut total = [_mm256_setzero_ps(); ROWS];
            if t.add {
                for (r, total) in total.iter_mut().enumerate() {
                    // SAFETY: `out` has `ROWS` rows of `LANES`.
                    *total = unsafe { _mm256_loadu_ps(t.out.add(r * t.stride)) };
                }
            }
            for b in 0..t.blocks {
                // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all
                // reads, which are unaligned, are within what `Int8Tile` says the pointers are
                // valid for.
                unsafe {
                    let panel = t.panel.add(b * BYTES);
                    let mut dot = [_mm256_setzero_si256(); ROWS];
                    for (r, dot) in dot.iter_mut().enumerate() {
                        *dot = _mm256_set1_epi32(*t.init_sums.add(b * TILE + r));
                    }
                    for group in 0..BLOCK / 4 {
                        let w = _mm256_loadu_si256(panel.add(group * LANES * 4).cast());
                        for (r, dot) in dot.iter_mut().enumerate() {
                            let a = t.values.add((b * TILE + r) * BLOCK + group * 4);
                            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
                            *dot = $dpbusd(*dot, w, a);
                        }
                    }
                    let sw = _mm256_cvtph_ps(
                        panel.add(LANES * BLOCK).cast::<__m128i>().read_unaligned(),
                    );
                    let zero = _mm256_mul_ps(sw, _mm256_set1_ps(SUM_ZERO_F32));
                    for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                        let sa = _mm256_set1_ps(*t.scales.add(b * TILE + r));
                        let sum = _mm256_fmsub_ps(_mm256_castsi256_ps(dot), sw, zero);
                        *total = _mm256_fmadd_ps(sum, sa, *total);
                    }
                }
            }
            for (r, total) in total.iter().enumerate() {
                // SAFETY: `out` has `ROWS` rows of `LANES`.
                unsafe { _mm256_storeu_ps(t.out.add(r * t.stride), *total) }
            }
        }
    };
}

tile_of!(tile_vex, "avx2,fma,f16c,avxvnni", _mm256_dpbusd_avx_epi32);

/// # Safety
/// As [`Int8Kernel::tile`].
unsafe fn tile(t: &Int8Tile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_rows!(rows, tile_vex(t), 1 2 3 4 5 6) }
}

/// The same in the EVEX encoding. CPUs with AVX-512 have it, and most of them lack the VEX
/// encoding, so tests use this one there.
#[cfg(test)]
pub mod evex {
    use super::*;

    tile_of!(
        tile_evex,
        "avx2,fma,f16c,avx512vnni,avx512vl",
        _mm256_dpbusd_epi32
    );

    pub static KERNEL: Int8Kernel = Int8Kernel {
        cpu: Cpu::Avx512Vnni,
        tile,
        ..super::KERNEL
    };

    /// # Safety
    /// As [`Int8Kernel::tile`].
    unsafe fn tile(t: &Int8Tile, rows: usize) {
        // SAFETY: the caller's promise.
        unsafe { with_rows!(rows, tile_evex(t), 1 2 3 4 5 6) }
    }
}
