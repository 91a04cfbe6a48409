//! AVX-VNNI: `vpdpbusd` on 256 bits, for CPUs without AVX-512.
//!
//! A tile is six rows by eight outputs: six sums of a run and six running sums of 16 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::{LANES, tile_of, unpack};
use super::kernel::{Kernel, Tile, with_shape};
use crate::Cpu;

pub static KERNEL: Kernel = Kernel {
    cpu: Cpu::AvxVnni,
    lanes: LANES,
    rows: 6,
    few: 24,
    tile,
    unpack,
    row: None,
};

/// # Safety
/// As [`Kernel::tile`].
unsafe fn tile(t: &Tile, rows: usize) {
    // SAFETY: handed on as they are.
    unsafe { with_shape!(rows, t.shape, tile_vex(t), 1 2 3 4 5 6) }
}

/// # Safety
/// The CPU has AVX-VNNI.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn add_products<const WIDE: bool>(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(sum, w, a)
}

tile_of!(tile_vex, "avx2,fma,f16c,avxvnni", add_products);

/// The same in the encoding that CPUs with AVX-512 have, most of which lack the other: so that tests can
/// run it there.
#[cfg(test)]
pub static OTHER_ENCODING: Kernel = Kernel {
    cpu: Cpu::Avx512Vnni,
    tile: tile_other,
    ..KERNEL
};

#[cfg(test)]
unsafe fn tile_other(t: &Tile, rows: usize) {
    // SAFETY: handed on as they are.
    unsafe { with_shape!(rows, t.shape, tile_evex(t), 1 2 3 4 5 6) }
}

#[cfg(test)]
#[inline]
#[target_feature(enable = "avx2,avx512vnni,avx512vl")]
unsafe fn add_products_evex<const WIDE: bool>(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(sum, w, a)
}

#[cfg(test)]
tile_of!(
    tile_evex,
    "avx2,fma,f16c,avx512vnni,avx512vl",
    add_products_evex
);
