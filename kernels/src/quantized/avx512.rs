//! AVX-512 with VNNI: `vpdpbusd` multiplies four bytes of sixteen outputs at once.
//!
//! A tile is six rows by two vectors of outputs: twelve int32 sums of a run and twelve f32 sums of
//! the superblock fill 24 of the 32 registers. Besides its eight multiplications, a run of 32 costs
//! a conversion and an FMA per sum, and a superblock some more for the minima: 87 instructions, of
//! which 64 are multiplications.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::activations::{RUNS, SCALES};
use super::avx512_gemv::add_products;
use super::kernel::{PanelLayout, QuantizedKernel, QuantizedTile, with_format};
use super::{SUPERBLOCK, avx512_gemv, avx512_unpack};
use crate::Cpu;
use crate::tile::prefetch;

const VECTORS: usize = 2;
pub(super) const LANES: usize = 16 * VECTORS;
const TILE: usize = 6;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::Avx512Vnni,
    lanes: LANES,
    rows: TILE,
    layout: PanelLayout::Groups4,
    min_rows: |_| 1,
    tile,
    unpack: avx512_unpack::unpack,
    gemv: avx512_gemv::gemv,
};

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if t.prefetch.is_empty() {
            with_format!(rows, t.format, multiply(t), 1 2 3 4 5 6);
        } else {
            with_format!(rows, t.format, multiply_and_prefetch(t), 1 2 3 4 5 6);
        }
    }
}

/// The tile, with or without prefetches. Two functions, because a loop with prefetches, even if it
/// runs zero times, costs the compiler registers.
macro_rules! tile_of {
    ($name:ident, $prefetch:expr) => {
        /// # Safety
        /// As [`QuantizedKernel::tile`], for `ROWS` rows and the shape that the other parameters say.
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        unsafe fn $name<
            const ROWS: usize,
            const N_RUNS: usize,
            const MINIMA: bool,
            const FINE: bool,
            const BITS: u32,
        >(
            t: &QuantizedTile,
        ) {
            let groups = SUPERBLOCK / N_RUNS / 4;
            let mut total = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            // SAFETY: runs, groups and rows are within what `QuantizedTile` and `Panel` say the
            // pointers are valid for; all accesses are unaligned.
            unsafe {
                let panel = &*t.panel;
                let share = t.prefetch.len() / N_RUNS;
                for run in 0..N_RUNS {
                    $prefetch(&t.prefetch[run * share..][..share]);
                    let mut dot = [[_mm512_setzero_si512(); VECTORS]; ROWS];
                    if !MINIMA {
                        for (r, dot) in dot.iter_mut().enumerate() {
                            *dot = [_mm512_set1_epi32(*t.sums.add(r * RUNS + run)); VECTORS];
                        }
                    }
                    for group in run * groups..(run + 1) * groups {
                        let w = panel.values.as_ptr().add(group * LANES * 4);
                        let w = [load(w), load(w.add(64))];
                        for (r, dot) in dot.iter_mut().enumerate() {
                            let a = t.values.add(r * SUPERBLOCK + group * 4);
                            let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                            for (dot, w) in dot.iter_mut().zip(w) {
                                *dot = in_order(_mm512_dpbusd_epi32(*dot, w, a));
                            }
                        }
                    }
                    let scales = panel.scales.as_ptr().add(run * LANES);
                    let scales = [_mm512_loadu_ps(scales), _mm512_loadu_ps(scales.add(16))];
                    for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                        for ((total, dot), mut scale) in total.iter_mut().zip(dot).zip(scales) {
                            if FINE {
                                scale = _mm512_mul_ps(
                                    scale,
                                    _mm512_set1_ps(
                                        *t.scales.add(r * SCALES + run * SCALES / N_RUNS),
                                    ),
                                );
                            }
                            *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *total);
                        }
                    }
                }
                if MINIMA {
                    let mut low = [[_mm512_setzero_si512(); VECTORS]; ROWS];
                    for pair in 0..4 {
                        let m = panel.minima.as_ptr().add(pair * LANES * 2);
                        let m = [load(m.cast()), load(m.add(32).cast())];
                        for (r, low) in low.iter_mut().enumerate() {
                            let sums = _mm512_set1_epi32(*t.sums.add(r * RUNS + pair));
                            for (low, m) in low.iter_mut().zip(m) {
                                *low = add_products(*low, m, sums);
                            }
                        }
                    }
                    for (total, low) in total.iter_mut().zip(low) {
                        for (v, (total, low)) in total.iter_mut().zip(low).enumerate() {
                            let scale = _mm512_loadu_ps(panel.min_scales.as_ptr().add(v * 16));
                            *total = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(low), scale, *total);
                        }
                    }
                }
                for (r, total) in total.iter().enumerate() {
                    let scale = _mm512_set1_ps(*t.scales.add(r * SCALES));
                    for (v, total) in total.iter().enumerate() {
                        let out = t.out.add(r * LANES + v * 16);
                        let before = _mm512_loadu_ps(out);
                        let sum = if FINE {
                            _mm512_add_ps(before, *total)
                        } else {
                            _mm512_fmadd_ps(*total, scale, before)
                        };
                        _mm512_storeu_ps(out, sum);
                    }
                }
            }
        }
    };
}
tile_of!(multiply, |_: &[u8]| ());
tile_of!(multiply_and_prefetch, prefetch);

/// # Safety
/// 64 bytes are valid for reads.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(from: *const u8) -> __m512i {
    // SAFETY: as above; unaligned.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// Keeps the order of the instructions. Otherwise the compiler computes one row after the other,
/// and each multiplication waits for the one before.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order(mut x: __m512i) -> __m512i {
    // SAFETY: this is no instruction.
    unsafe {
        std::arch::asm!("/* {} */", inout(zmm_reg) x, options(nomem, nostack, preserves_flags));
    }
    x
}
