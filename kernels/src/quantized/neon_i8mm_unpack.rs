//! Unpacks blocks into a panel with NEON, four outputs at a time, with eight inputs of an output
//! side by side.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::kernel::Panel;
use super::neon_i8mm::LANES;
use super::neon_unpack::{
    Bytes4, F32s, VECTOR_LANES, bits_at, flip_sign, from_i8, from_u8, high_f16, load_f16,
    load_words, low_f16, mask, mul, or, shl, shr, store, store_f32, zero,
};
use super::unpack::unpack_formats_with;
use super::{QuantFormat, QuantizedMatrix, SUPERBLOCK};

unpack_formats_with!("neon");

/// Interleaves the rows, eight bytes of two rows per vector: the first eight of rows 0 and 1, those
/// of rows 2 and 3, then the last eight likewise.
///
/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn inputs(rows: &Rows, offset: usize) -> [Bytes4; 4] {
    // SAFETY: as above; no alignment is needed.
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u64_u8(unsafe { vld1q_u8(row.add(offset)) }));
    let pairs = [
        vzip1q_u64(a, b),
        vzip1q_u64(c, d),
        vzip2q_u64(a, b),
        vzip2q_u64(c, d),
    ];
    pairs.map(|x| vreinterpretq_u8_u64(x))
}

/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fifth_bits(rows: &Rows, offset: usize) -> [Bytes4; 8] {
    // SAFETY: the caller's promise.
    let words = unsafe { load_words(rows, offset) }[0];
    let bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    // Vector `i` holds byte `i / 2` of the two rows of pair `i % 2`.
    [0, 1, 2, 3, 4, 5, 6, 7].map(|i: u64| {
        let all = |row: u64| (4 * row + i / 2) * 0x0101_0101_0101_0101;
        bits_at(words, [all(i % 2 * 2), all(i % 2 * 2 + 1)], bits)
    })
}

#[inline]
#[target_feature(enable = "neon")]
fn store_values(panel: &mut Panel, first: usize, group: usize, bytes: Bytes4) {
    let at = (group / 2 * LANES + first + group % 2 * 2) * 8;
    let to: &mut [u8] = &mut panel.values[at..at + 16];
    // SAFETY: just sliced to this length.
    unsafe { store(to.as_mut_ptr(), bytes) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_f32s(to: &mut [f32], at: usize, numbers: F32s) {
    let to: &mut [f32] = &mut to[2 * at..2 * (at + VECTOR_LANES)];
    // SAFETY: just sliced to eight elements.
    unsafe {
        store_f32(to.as_mut_ptr(), vzip1q_f32(numbers, numbers));
        store_f32(to.as_mut_ptr().add(4), vzip2q_f32(numbers, numbers));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_multiple(panel: &mut Panel, first: usize, run: usize, x: F32s, unit: F32s) {
    store_scale(panel, first, run, mul(x, unit));
}

#[inline]
#[target_feature(enable = "neon")]
fn store_minima(panel: &mut Panel, first: usize, minima: [Bytes4; 2]) {
    let [a, b] = minima.map(|x| vreinterpretq_u32_u8(x));
    let to: &mut [i16] = &mut panel.minima[first * 8..(first + VECTOR_LANES) * 8];
    for (i, x) in [vzip1q_u32(a, b), vzip2q_u32(a, b)].into_iter().enumerate() {
        let x = vreinterpretq_u8_u32(x);
        for (j, eight) in [vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x)]
            .into_iter()
            .enumerate()
        {
            // SAFETY: just sliced to eight elements for each of four lanes.
            unsafe {
                let to = to.as_mut_ptr().add((2 * i + j) * 8);
                store(to.cast(), vreinterpretq_u8_u16(eight));
            }
        }
    }
}
