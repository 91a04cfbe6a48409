//! Plain Rust: the reference implementation and the fallback.
#![allow(unsafe_code)]

use super::activations::{RUNS, SCALES};
use super::kernel::{Panel, PanelLayout, QuantizedKernel, QuantizedTile};
use super::{QuantizedMatrix, SUPERBLOCK};
use crate::Cpu;

const LANES: usize = 8;

pub static KERNEL: QuantizedKernel = QuantizedKernel {
    cpu: Cpu::Scalar,
    lanes: LANES,
    rows: 1,
    layout: PanelLayout::Groups4,
    min_rows: |_| usize::MAX, // slower than llama.cpp's
    tile,
    unpack,
    gemv: |_, _| None,
};

/// # Safety
/// As [`QuantizedKernel::unpack`].
unsafe fn unpack(panel: &mut Panel, matrix: &QuantizedMatrix, output: usize, superblock: usize) {
    panel.unpack(matrix, output, superblock, &KERNEL);
}

/// # Safety
/// As [`QuantizedKernel::tile`].
unsafe fn tile(t: &QuantizedTile, rows: usize) {
    debug_assert_eq!(rows, 1);
    // SAFETY: the caller's promise, for the lengths that `QuantizedTile` states.
    let (values, scales, sums, panel, out) = unsafe {
        (
            std::slice::from_raw_parts(t.values, SUPERBLOCK),
            std::slice::from_raw_parts(t.scales, SCALES),
            std::slice::from_raw_parts(t.sums, RUNS),
            &*t.panel,
            std::slice::from_raw_parts_mut(t.out, LANES),
        )
    };
    let scheme = t.format.scheme();
    let run = scheme.run;
    for (lane, out) in out.iter_mut().enumerate() {
        let mut total = 0.0_f32;
        for r in 0..SUPERBLOCK / run {
            let begin = if scheme.minima && !t.fine { 0 } else { sums[r] };
            let dot = (r * run..(r + 1) * run).fold(begin, |dot, k| {
                let w = panel.values[(k / 4 * LANES + lane) * 4 + k % 4];
                dot + i32::from(values[k]) * i32::from(w)
            });
            let mut scale = panel.scales[r * LANES + lane];
            if t.fine {
                scale *= scales[r * run / 32];
            }
            total = (dot as f32).mul_add(scale, total);
        }
        if scheme.minima && !t.fine {
            let low = (0..8).fold(0, |low, r| {
                let sum = (sums[r / 2] >> (16 * (r % 2))) as i16;
                low + i32::from(sum) * i32::from(panel.minima[(r / 2 * LANES + lane) * 2 + r % 2])
            });
            total = (-(low as f32)).mul_add(panel.min_scales[lane], total);
        }
        *out = if t.fine {
            *out + total
        } else {
            total.mul_add(scales[0], *out)
        };
    }
}
