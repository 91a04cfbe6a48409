//! AVX-VNNI: 256-bit `vpdpbusd`, for CPUs without AVX-512.
//!
//! A tile is six rows by eight outputs: six sums of a run and six running sums, in 16 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::{LANES, tile_of};
use super::kernel::{PanelLayout, QuantizedKernel, QuantizedTile, with_format};
use super::{QuantFormat, SUPERBLOCK, avx2_gemv, avx2_unpack};
use crate::Cpu;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::AvxVnni,
    lanes: LANES,
    rows: 6,
    layout: PanelLayout::Groups4,
    min_rows: |format| match format {
        QuantFormat::Q8_0 => 3,
        _ => 2,
    },
    tile,
    unpack: avx2_unpack::unpack,
    gemv: avx2_gemv::vnni::gemv,
};

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows, t.format, tile_vex(t), 1 2 3 4 5 6) }
}

/// Multiplies and adds, in one of the two encodings of the instruction.
macro_rules! add_run_with {
    ($name:ident, $features:literal, $dpbusd:ident) => {
        /// Adds the products of a run's `GROUPS` groups to `dot`.
        ///
        /// # Safety
        /// The CPU has the instruction. `w` points to `GROUPS` groups of eight outputs, and `a` to
        /// rows `SUPERBLOCK` apart.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $name<const ROWS: usize, const GROUPS: usize, const BITS: u32>(
            dot: &mut [__m256i; ROWS],
            w: *const u8,
            a: *const i8,
        ) {
            for group in 0..GROUPS {
                // SAFETY: as above; unaligned.
                unsafe {
                    let w = _mm256_loadu_si256(w.add(group * LANES * 4).cast());
                    for (r, dot) in dot.iter_mut().enumerate() {
                        let a = a
                            .add(r * SUPERBLOCK + group * 4)
                            .cast::<i32>()
                            .read_unaligned();
                        *dot = $dpbusd(*dot, w, _mm256_set1_epi32(a));
                    }
                }
            }
        }
    };
}
add_run_with!(add_run, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);

tile_of!(tile_vex, "avx2,fma,f16c,avxvnni", add_run);

/// The same in the EVEX encoding. CPUs with AVX-512 have it, and most of them lack the VEX
/// encoding, so tests use this one there.
#[cfg(test)]
pub static OTHER_ENCODING: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::Avx512Vnni,
    tile: tile_other,
    gemv: avx2_gemv::vnni_evex::gemv,
    ..KERNEL
};

#[cfg(test)]
unsafe fn tile_other(t: &QuantizedTile, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows, t.format, tile_evex(t), 1 2 3 4 5 6) }
}

#[cfg(test)]
add_run_with!(
    add_run_evex,
    "avx2,avx512vnni,avx512vl",
    _mm256_dpbusd_epi32
);
#[cfg(test)]
tile_of!(tile_evex, "avx2,fma,f16c,avx512vnni,avx512vl", add_run_evex);
