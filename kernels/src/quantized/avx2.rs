//! AVX2: `vpmaddubsw` of the weights, which are unsigned as stored, and the activations.
//!
//! It sums two products in 16 bits, and several such sums fit in 16 bits too. For 4-bit weights a
//! whole run fits, so most of the work is one multiplication and one addition per 32 products.
//! 8-bit weights are multiplied in two parts, the lower and the upper four bits. A tile is six rows
//! by eight outputs: six sums of a run and six running sums, in 16 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::kernel::{PanelLayout, QuantizedKernel, QuantizedTile, with_format};
use super::{QuantFormat, SUPERBLOCK, avx2_gemv, avx2_unpack};
use crate::Cpu;

pub(super) const LANES: usize = 8;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::Avx2,
    lanes: LANES,
    rows: 6,
    layout: PanelLayout::Groups4,
    min_rows: |format| match format {
        QuantFormat::Q8_0 => 4,
        _ => 2,
    },
    tile,
    unpack: avx2_unpack::unpack,
    gemv: avx2_gemv::avx2::gemv,
};

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows, t.format, tile_avx2(t), 1 2 3 4 5 6) }
}

/// How many groups of four inputs are summed in 16 bits, for weights of `bits` bits. Each addition
/// is two products, at most 127 times the largest weight each.
const fn at_once(bits: u32) -> usize {
    match bits {
        4 => 8,
        5 => 4,
        _ => 2,
    }
}

/// Adds the products of a run's `GROUPS` groups to `dot`. For 8-bit weights the lower and the upper
/// four bits are multiplied separately.
///
/// # Safety
/// The CPU has AVX2. `w` points to `GROUPS` groups of eight outputs, and `a` to rows `SUPERBLOCK`
/// apart.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_run<const ROWS: usize, const GROUPS: usize, const BITS: u32>(
    dot: &mut [__m256i; ROWS],
    w: *const u8,
    a: *const i8,
) {
    let parts = if BITS > 6 { 2 } else { 1 };
    let at_once = at_once(if BITS > 6 { 4 } else { BITS });
    for part in 0..parts {
        let unit = _mm256_set1_epi16(if part == 0 { 1 } else { 16 });
        for first in (0..GROUPS).step_by(at_once) {
            let mut sum = [_mm256_setzero_si256(); ROWS];
            for group in first..first + at_once {
                // SAFETY: as above; unaligned.
                let mut w = unsafe { _mm256_loadu_si256(w.add(group * LANES * 4).cast()) };
                if BITS > 6 {
                    let nibble = if part == 0 {
                        w
                    } else {
                        _mm256_srli_epi16::<4>(w)
                    };
                    w = _mm256_and_si256(nibble, _mm256_set1_epi8(15));
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    // SAFETY: as above; unaligned.
                    let a = unsafe {
                        a.add(r * SUPERBLOCK + group * 4)
                            .cast::<i32>()
                            .read_unaligned()
                    };
                    let products = _mm256_maddubs_epi16(w, _mm256_set1_epi32(a));
                    *sum = _mm256_add_epi16(*sum, products);
                }
            }
            for (dot, sum) in dot.iter_mut().zip(sum) {
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(sum, unit));
            }
        }
    }
}

/// The tile, with one of several ways to multiply bytes.
macro_rules! tile_of {
    ($name:ident, $features:literal, $add_run:ident) => {
        /// # Safety
        /// As [`QuantizedKernel::tile`], for `ROWS` rows and the shape that the other parameters say.
        #[target_feature(enable = $features)]
        unsafe fn $name<
            const ROWS: usize,
            const N_RUNS: usize,
            const MINIMA: bool,
            const FINE: bool,
            const BITS: u32,
        >(
            t: &QuantizedTile,
        ) {
            use $crate::quantized::activations::{RUNS, SCALES};
            let mut total = [_mm256_setzero_ps(); ROWS];
            // SAFETY: runs, groups and rows are within what `QuantizedTile` and `Panel` say the
            // pointers are valid for; all accesses are unaligned.
            unsafe {
                let panel = &*t.panel;
                for run in 0..N_RUNS {
                    let mut dot = [_mm256_setzero_si256(); ROWS];
                    if !MINIMA {
                        for (r, dot) in dot.iter_mut().enumerate() {
                            *dot = _mm256_set1_epi32(*t.sums.add(r * RUNS + run));
                        }
                    }
                    let w = panel.values.as_ptr().add(run * SUPERBLOCK / N_RUNS * LANES);
                    let a = t.values.add(run * SUPERBLOCK / N_RUNS);
                    // Two calls, so that the number of groups is a constant.
                    if N_RUNS == 8 {
                        $add_run::<ROWS, 8, BITS>(&mut dot, w, a);
                    } else {
                        $add_run::<ROWS, 4, BITS>(&mut dot, w, a);
                    }
                    let scales = _mm256_loadu_ps(panel.scales.as_ptr().add(run * LANES));
                    for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                        let mut scale = scales;
                        if FINE {
                            let fine =
                                _mm256_set1_ps(*t.scales.add(r * SCALES + run * SCALES / N_RUNS));
                            scale = _mm256_mul_ps(scale, fine);
                        }
                        *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *total);
                    }
                }
                if MINIMA {
                    let mut low = [_mm256_setzero_si256(); ROWS];
                    for pair in 0..4 {
                        let m = panel.minima.as_ptr().add(pair * LANES * 2);
                        let m = _mm256_loadu_si256(m.cast());
                        for (r, low) in low.iter_mut().enumerate() {
                            let sums = _mm256_set1_epi32(*t.sums.add(r * RUNS + pair));
                            *low = _mm256_add_epi32(*low, _mm256_madd_epi16(m, sums));
                        }
                    }
                    let scale = _mm256_loadu_ps(panel.min_scales.as_ptr());
                    for (total, low) in total.iter_mut().zip(low) {
                        *total = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(low), scale, *total);
                    }
                }
                for (r, total) in total.iter().enumerate() {
                    let out = t.out.add(r * LANES);
                    let before = _mm256_loadu_ps(out);
                    let sum = if FINE {
                        _mm256_add_ps(before, *total)
                    } else {
                        _mm256_fmadd_ps(*total, _mm256_set1_ps(*t.scales.add(r * SCALES)), before)
                    };
                    _mm256_storeu_ps(out, sum);
                }
            }
        }
    };
}
pub(super) use tile_of;

tile_of!(tile_avx2, "avx2,fma,f16c", add_run);
