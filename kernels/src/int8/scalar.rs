//! Plain Rust: the reference implementation and the fallback.
#![allow(unsafe_code)]

use half::f16;

use super::BLOCK;
use super::kernel::{Int8Kernel, Int8Tile};
use crate::Cpu;

const LANES: usize = 8;

pub static KERNEL: Int8Kernel = Int8Kernel {
    cpu: Cpu::Scalar,
    lanes: LANES,
    rows: 1,
    group: 4,
    unsigned: false,
    tile,
};

/// # Safety
/// As [`Int8Kernel::tile`].
unsafe fn tile(t: &Int8Tile, rows: usize) {
    debug_assert_eq!(rows, 1);
    const BYTES: usize = LANES * (BLOCK + 2);
    // SAFETY: the caller's promise, for the lengths that `Int8Tile` states.
    let (values, scales, panel, out) = unsafe {
        (
            std::slice::from_raw_parts(t.values, t.blocks * BLOCK),
            std::slice::from_raw_parts(t.scales, t.blocks),
            std::slice::from_raw_parts(t.panel, t.blocks * BYTES),
            std::slice::from_raw_parts_mut(t.out, LANES),
        )
    };
    if !t.add {
        out.fill(0.0);
    }
    for ((a, sa), block) in values
        .chunks_exact(BLOCK)
        .zip(scales)
        .zip(panel.chunks_exact(BYTES))
    {
        let (weights, w_scales) = block.split_at(LANES * BLOCK);
        for (lane, out) in out.iter_mut().enumerate() {
            let dot: i32 = (0..BLOCK)
                .map(|k| {
                    let w = weights[(k / 4 * LANES + lane) * 4 + k % 4] as i8;
                    i32::from(a[k]) * i32::from(w)
                })
                .sum();
            let sw = f16::from_le_bytes([w_scales[2 * lane], w_scales[2 * lane + 1]]);
            *out = (dot as f32 * sw.to_f32()).mul_add(*sa, *out);
        }
    }
}
