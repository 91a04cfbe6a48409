//! AVX2: `vpmaddubsw` of the weights' magnitudes and the activations with the weights' signs.
//!
//! It sums two products in 16 bits and saturates. With one factor at most 128 and the other at most
//! 127 the sum stays in range: 2 * 128 * 127 = 32512. That makes four instructions for 32 products;
//! f32 takes four FMAs, which only two ports execute.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK;
use super::activations::{SUM_ZERO, SUM_ZERO_F32};
use super::kernel::{Int8Kernel, Int8Tile, with_rows};
use crate::Cpu;

const LANES: usize = 8;
const TILE: usize = 4;
const BYTES: usize = LANES * (BLOCK + 2);

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::Avx2,
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
    unsafe { with_rows!(rows, tile_of(t), 1 2 3 4) }
}

/// # Safety
/// As [`Int8Kernel::tile`], for `ROWS` rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_of<const ROWS: usize>(t: &Int8Tile) {
    let ones = _mm256_set1_epi16(1);
    let mut total = [_mm256_setzero_ps(); ROWS];
    if t.add {
        for (r, total) in total.iter_mut().enumerate() {
            // SAFETY: `out` has `ROWS` rows of `LANES`.
            *total = unsafe { _mm256_loadu_ps(t.out.add(r * t.stride)) };
        }
    }
    for b in 0..t.blocks {
        // SAFETY: `b` is below the number of blocks and `r` below that of rows, so all reads are
        // within what `Int8Tile` says the pointers are valid for. None needs an alignment.
        unsafe {
            let panel = t.panel.add(b * BYTES);
            let mut dot = [_mm256_set1_epi32(SUM_ZERO); ROWS];
            for group in 0..BLOCK / 4 {
                let w = _mm256_loadu_si256(panel.add(group * LANES * 4).cast());
                let size = _mm256_abs_epi8(w); // -128 becomes 128, which is correct as an unsigned byte
                for (r, dot) in dot.iter_mut().enumerate() {
                    let a = t.values.add((b * TILE + r) * BLOCK + group * 4);
                    let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
                    let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(a, w));
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
                }
            }
            let sw = _mm256_cvtph_ps(panel.add(LANES * BLOCK).cast::<__m128i>().read_unaligned());
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
