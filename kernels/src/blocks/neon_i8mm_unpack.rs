//! Blocks to a panel with NEON, four outputs at a time, eight inputs of an output side by side.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::kernel::Panel;
use super::neon_i8mm::LANES;
use super::neon_unpack::{
    Numbers, WIDE, Words, flip, halves, high_halves, left, low_halves, nothing, only, or, right,
    signed, store, store_numbers, times, unsigned, words,
};
use super::unpack::unpack_formats_with;
use super::{BlockFormat, BlockMatrix, SUPER};

unpack_formats_with!("neon");

/// Eight bytes of two rows in a vector: the first of the first two rows, of the others, the last likewise.
///
/// # Safety
/// Sixteen bytes may be read from each row at `offset`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn inputs(rows: &Rows, offset: usize) -> [Words; 4] {
    // SAFETY: as above; no alignment is asked for.
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u64_u8(unsafe { vld1q_u8(row.add(offset)) }));
    let pairs = [
        vzip1q_u64(a, b),
        vzip1q_u64(c, d),
        vzip2q_u64(a, b),
        vzip2q_u64(c, d),
    ];
    pairs.map(|x| vreinterpretq_u8_u64(x))
}

#[inline]
#[target_feature(enable = "neon")]
fn put(panel: &mut Panel, first: usize, group: usize, bytes: Words) {
    let at = (group / 2 * LANES + first + group % 2 * 2) * 8;
    let to: &mut [u8] = &mut panel.values[at..at + 16];
    // SAFETY: so many bytes may be written there.
    unsafe { store(to.as_mut_ptr(), bytes) }
}

#[inline]
#[target_feature(enable = "neon")]
fn put_numbers(to: &mut [f32], at: usize, numbers: Numbers) {
    let to: &mut [f32] = &mut to[2 * at..2 * (at + WIDE)];
    // SAFETY: twice four numbers may be written there.
    unsafe {
        store_numbers(to.as_mut_ptr(), vzip1q_f32(numbers, numbers));
        store_numbers(to.as_mut_ptr().add(4), vzip2q_f32(numbers, numbers));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn put_multiple(panel: &mut Panel, first: usize, run: usize, x: Numbers, unit: Numbers) {
    put_scale(panel, first, run, times(x, unit));
}

#[inline]
#[target_feature(enable = "neon")]
fn put_minima(panel: &mut Panel, first: usize, minima: [Words; 2]) {
    let [a, b] = minima.map(|x| vreinterpretq_u32_u8(x));
    let to: &mut [i16] = &mut panel.minima[first * 8..(first + WIDE) * 8];
    for (i, x) in [vzip1q_u32(a, b), vzip2q_u32(a, b)].into_iter().enumerate() {
        let x = vreinterpretq_u8_u32(x);
        for (j, eight) in [vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x)]
            .into_iter()
            .enumerate()
        {
            // SAFETY: eight numbers of each of four lanes may be written there.
            unsafe {
                let to = to.as_mut_ptr().add((2 * i + j) * 8);
                store(to.cast(), vreinterpretq_u8_u16(eight));
            }
        }
    }
}
