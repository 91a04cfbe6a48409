//! AVX2: `vpmaddubsw` on weights as they are, unsigned, and activations.
//!
//! Its sums of two products are 16 bits wide and saturate. With weights of up to six bits they stay below
//! 2 * 63 * 127 = 16002; those of Q8_0 are multiplied in two parts, the top bit and the rest.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BlockMatrix;
use super::kernel::{Kernel, Panel, Tile, with_shape};
use crate::Cpu;

pub(super) const LANES: usize = 8;

pub static KERNEL: Kernel = Kernel {
    cpu: Cpu::Avx2,
    lanes: LANES,
    rows: 4,
    few: 24,
    tile,
    unpack,
    row: None,
};

/// # Safety
/// As [`Kernel::unpack`].
pub(super) unsafe fn unpack(
    panel: &mut Panel,
    matrix: &BlockMatrix,
    output: usize,
    superblock: usize,
) {
    panel.unpack(matrix, output, superblock, LANES);
}

/// # Safety
/// As [`Kernel::tile`].
unsafe fn tile(t: &Tile, rows: usize) {
    // SAFETY: handed on as they are.
    unsafe { with_shape!(rows, t.shape, tile_avx2(t), 1 2 3 4) }
}

/// Adds products of four bytes each; `WIDE` if weights have more than seven bits.
///
/// # Safety
/// The CPU has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_products<const WIDE: bool>(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    if !WIDE {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), ones));
    }
    let top = _mm256_and_si256(_mm256_srli_epi16::<7>(w), _mm256_set1_epi8(1));
    let rest = _mm256_and_si256(w, _mm256_set1_epi8(127));
    let top = _mm256_madd_epi16(_mm256_maddubs_epi16(top, a), _mm256_set1_epi16(128));
    let rest = _mm256_madd_epi16(_mm256_maddubs_epi16(rest, a), ones);
    _mm256_add_epi32(sum, _mm256_add_epi32(top, rest))
}

/// The tile with one of several ways to multiply bytes.
macro_rules! tile_of {
    ($name:ident, $features:literal, $add_products:ident) => {
        /// # Safety
        /// As [`Kernel::tile`], for `ROWS` rows and the shape that the other parameters say.
        #[target_feature(enable = $features)]
        unsafe fn $name<
            const ROWS: usize,
            const N_RUNS: usize,
            const MINIMA: bool,
            const FINE: bool,
        >(
            t: &Tile,
        ) {
            use $crate::blocks::SUPER;
            use $crate::blocks::rows::{RUNS, SCALES};
            let groups = SUPER / N_RUNS / 4;
            let mut total = [_mm256_setzero_ps(); ROWS];
            // SAFETY: runs, groups and rows are within what `Tile` and `Panel` say the pointers are valid
            // for; unaligned reads and writes are used throughout.
            unsafe {
                let panel = &*t.panel;
                for run in 0..N_RUNS {
                    let mut dot = [_mm256_setzero_si256(); ROWS];
                    if !MINIMA {
                        for (r, dot) in dot.iter_mut().enumerate() {
                            *dot = _mm256_set1_epi32(*t.sums.add(r * RUNS + run));
                        }
                    }
                    for group in run * groups..(run + 1) * groups {
                        let w = panel.values.as_ptr().add(group * LANES * 4);
                        let w = _mm256_loadu_si256(w.cast());
                        for (r, dot) in dot.iter_mut().enumerate() {
                            let a = t.values.add(r * SUPER + group * 4);
                            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
                            *dot = $add_products::<FINE>(*dot, w, a);
                        }
                    }
                    let scales = _mm256_loadu_ps(panel.scales.as_ptr().add(run * LANES));
                    for (r, (total, dot)) in total.iter_mut().zip(dot).enumerate() {
                        let mut scale = scales;
                        if FINE {
                            let fine = _mm256_set1_ps(*t.scales.add(r * SCALES + run));
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

tile_of!(tile_avx2, "avx2,fma,f16c", add_products);
