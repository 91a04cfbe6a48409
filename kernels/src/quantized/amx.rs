//! AMX: a tile instruction multiplies sixteen rows by sixteen outputs, 64 inputs of each.
//!
//! It cannot change the scale between inputs. So unpacking multiplies the weights of K-quants by
//! their run's scale, an integer. The product takes two bytes, which are multiplied by the same
//! activations:
//!
//! ```text
//! sum over k of  a[k] * scale[k] * w[k]  =  sum of  a[k] * low[k]  +  256 * sum of  a[k] * high[k]
//! ```
//!
//! A superblock of K-quants is thus summed in integers, with one conversion at its end where other
//! kernels have one per run. Minima are multiplied by the runs' sums of activations in bf16. The
//! sums have up to 13 bits, so each is split into two bf16 numbers, which are exact. For formats
//! whose activations have a scale per run (Q4_0, Q5_0, Q8_0) the AVX-512 kernel is used.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::activations::{RUNS, SCALES};
use super::kernel::{Panel, PanelLayout, QuantizedKernel, QuantizedTile};
use super::{QuantFormat, SUPERBLOCK, amx_unpack, avx512};
use crate::Cpu;
use crate::amx::{TILE_ROW_BYTES, TILE_SIDE};

/// Tiles of outputs.
const GROUPS: usize = 2;
pub(super) const LANES: usize = GROUPS * TILE_SIDE;
/// Rows of two tiles.
const ROWS: usize = 2 * TILE_SIDE;
/// Bytes from one row of `B` to the next: four inputs of each output.
const STRIDE: usize = 4 * LANES;
/// With fewer rows the tiles would be too empty.
pub(super) const MIN_ROWS: usize = 64;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::Amx,
    lanes: LANES,
    rows: ROWS,
    layout: PanelLayout::Amx,
    min_rows: |_| MIN_ROWS,
    tile,
    unpack: amx_unpack::unpack,
    gemv: |_, _| None,
};

/// The contents of a tile register.
type Square = [[i32; TILE_SIDE]; TILE_SIDE];
/// Both tiles of rows.
type Both = [Square; 2];

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match t.format {
            QuantFormat::Q4_0 | QuantFormat::Q5_0 | QuantFormat::Q8_0 => in_vectors(t, rows),
            QuantFormat::Q4K | QuantFormat::Q5K => in_tiles::<true>(t, rows),
            QuantFormat::Q6K => in_tiles::<false>(t, rows),
        }
    }
}

/// Computes the tile with AVX-512. If activations have a scale per run, an AMX tile could sum one
/// run only and its sums would have to leave the registers, which is no faster.
///
/// # Safety
/// As [`tile`].
unsafe fn in_vectors(t: &QuantizedTile, rows: usize) {
    const { assert!(LANES == avx512::LANES) };
    let height = avx512::KERNEL.rows;
    for first in (0..rows).step_by(height) {
        // SAFETY: a part of the tile. Its operands have the layout of that kernel too, which reads
        // no more rows of the last part than there are.
        unsafe {
            let part = QuantizedTile {
                values: t.values.add(first * SUPERBLOCK),
                scales: t.scales.add(first * SCALES),
                sums: t.sums.add(first * RUNS),
                out: t.out.add(first * LANES),
                ..*t
            };
            (avx512::KERNEL.tile)(&part, height.min(rows - first));
        }
    }
}

/// Sums of a superblock of K-quants.
#[repr(C, align(64))]
struct Sums {
    low: Both,
    high: Both,
    /// In f32.
    minima: Both,
}

/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn in_tiles<const MINIMA: bool>(t: &QuantizedTile, rows: usize) {
    let mut sums = MaybeUninit::<Sums>::uninit();
    // SAFETY: rows, groups and lanes are within what `QuantizedTile` and `Panel` say the pointers
    // are valid for; those of activations are valid for whole tiles.
    unsafe {
        let panel = &*t.panel;
        for group in 0..GROUPS {
            let sums = sums.as_mut_ptr();
            if MINIMA {
                multiply_minima(t, panel, group, &raw mut (*sums).minima);
            }
            multiply(t, panel, group, sums);
            let lane = group * TILE_SIDE;
            let scale = _mm512_loadu_ps(panel.units.as_ptr().add(lane));
            let min_scale = _mm512_loadu_ps(panel.min_scales.as_ptr().add(lane));
            let at = |both: *const Both, row: usize| both.cast::<[i32; TILE_SIDE]>().add(row);
            for row in 0..rows {
                let low = _mm512_load_si512(at(&raw const (*sums).low, row).cast());
                let high = _mm512_load_si512(at(&raw const (*sums).high, row).cast());
                let dot = _mm512_add_epi32(low, _mm512_slli_epi32::<8>(high));
                let mut total = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale);
                if MINIMA {
                    let low = _mm512_load_ps(at(&raw const (*sums).minima, row).cast());
                    total = _mm512_fnmadd_ps(low, min_scale, total);
                }
                let out = t.out.add(row * LANES + lane);
                let factor = _mm512_set1_ps(*t.scales.add(row * SCALES));
                let sum = _mm512_fmadd_ps(total, factor, _mm512_loadu_ps(out));
                _mm512_storeu_ps(out, sum);
            }
        }
    }
}

/// Multiplies the sums of activations by a group's minima.
///
/// # Safety
/// As [`tile`], for whole tiles of rows.
#[inline]
unsafe fn multiply_minima(t: &QuantizedTile, panel: &Panel, group: usize, minima: *mut Both) {
    const { assert!(RUNS * 4 == TILE_ROW_BYTES) };
    // SAFETY: all sums of each row, and all minima of the group's outputs; two tiles of results.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{rows} + {line}*1]",
            "tileloadd tmm6, [{minima} + {stride}*1]",
            "tileloadd tmm5, [{rows} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm6",
            "tilestored [{to} + {line}*1], tmm0",
            "tilestored [{to} + {line}*1 + 1024], tmm1",
            rows = in(reg) t.sums,
            line = in(reg) TILE_ROW_BYTES,
            minima = in(reg) panel.tile_minima.as_ptr().add(group * TILE_SIDE),
            stride = in(reg) STRIDE,
            to = in(reg) minima,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            options(nostack, preserves_flags),
        );
    }
}

/// 64 inputs of a tile of rows times both bytes of the weights.
macro_rules! products_of_64 {
    ($rows:literal, $k:literal, $low:literal, $high:literal) => {
        concat!(
            "tileloadd tmm4, [{",
            $rows,
            "} + {row}*1 + 64*",
            $k,
            "]\n",
            "tileloadd tmm6, [{low} + {stride}*1 + 2048*",
            $k,
            "]\n",
            "tdpbsud ",
            $low,
            ", tmm4, tmm6\n",
            "tileloadd tmm7, [{high} + {stride}*1 + 2048*",
            $k,
            "]\n",
            "tdpbssd ",
            $high,
            ", tmm4, tmm7",
        )
    };
}

/// Multiplies activations by both bytes of a group's weights. While one tile of rows is multiplied,
/// the results of the tile before are stored.
///
/// # Safety
/// As [`tile`], for whole tiles of rows.
#[inline]
unsafe fn multiply(t: &QuantizedTile, panel: &Panel, group: usize, sums: *mut Sums) {
    const { assert!(TILE_SIDE * STRIDE == 2048 && SUPERBLOCK == 4 * TILE_ROW_BYTES) };
    // SAFETY: 256 inputs of each row and of the group's outputs, 64 at a time; four tiles of
    // results, which are the first fields of `sums`.
    unsafe {
        asm!(
            "tilezero tmm2",
            "tilezero tmm3",
            products_of_64!("rows", "0", "tmm2", "tmm3"),
            products_of_64!("rows", "1", "tmm2", "tmm3"),
            products_of_64!("rows", "2", "tmm2", "tmm3"),
            products_of_64!("rows", "3", "tmm2", "tmm3"),
            "tilezero tmm0",
            "tilezero tmm1",
            products_of_64!("more", "0", "tmm0", "tmm1"),
            products_of_64!("more", "1", "tmm0", "tmm1"),
            "tilestored [{to} + {line}*1], tmm2",
            products_of_64!("more", "2", "tmm0", "tmm1"),
            products_of_64!("more", "3", "tmm0", "tmm1"),
            "tilestored [{to} + {line}*1 + 2048], tmm3",
            "tilestored [{to} + {line}*1 + 1024], tmm0",
            "tilestored [{to} + {line}*1 + 3072], tmm1",
            rows = in(reg) t.values,
            more = in(reg) t.values.add(TILE_SIDE * SUPERBLOCK),
            row = in(reg) SUPERBLOCK,
            low = in(reg) panel.values.as_ptr().add(group * TILE_ROW_BYTES),
            high = in(reg) panel.high.as_ptr().add(group * TILE_ROW_BYTES),
            stride = in(reg) STRIDE,
            to = in(reg) sums,
            line = in(reg) TILE_ROW_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        );
    }
}
