//! Unpacks blocks into a panel with NEON, four outputs at a time, with sixteen inputs of an output
//! side by side.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::kernel::Panel;
use super::neon::LANES;
use super::neon_unpack::{
    Bytes4, F32s, VECTOR_LANES, bits_at, flip_sign, from_i8, from_u8, high_f16, load_f16,
    load_words, low_f16, mask, mul, or, shl, shr, store, store_f32, widen_to_i16, zero,
};
use super::unpack::{store_minima_with, unpack_formats_with};
use super::{QuantFormat, QuantizedMatrix, SUPERBLOCK};

unpack_formats_with!("neon");
store_minima_with!("neon");

/// The sixteen bytes of each row.
///
/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn inputs(rows: &Rows, offset: usize) -> [Bytes4; 4] {
    // SAFETY: as above; no alignment is needed.
    rows.map(|row| unsafe { vld1q_u8(row.add(offset)) })
}

/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fifth_bits(rows: &Rows, offset: usize) -> [Bytes4; 8] {
    // SAFETY: the caller's promise.
    let words = unsafe { load_words(rows, offset) }[0];
    let bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    // Vector `i` holds bytes `i / 4 * 2` and the next of row `i % 4`.
    [0, 1, 2, 3, 4, 5, 6, 7].map(|i: u64| {
        let byte = 4 * (i % 4) + i / 4 * 2;
        let all = |byte: u64| byte * 0x0101_0101_0101_0101;
        bits_at(words, [all(byte), all(byte + 1)], bits)
    })
}

#[inline]
#[target_feature(enable = "neon")]
fn store_values(panel: &mut Panel, first: usize, group: usize, bytes: Bytes4) {
    let at = (group / 4 * LANES + first + group % 4) * 16;
    let to: &mut [u8] = &mut panel.values[at..at + 16];
    // SAFETY: just sliced to this length.
    unsafe { store(to.as_mut_ptr(), bytes) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_f32s(to: &mut [f32], at: usize, numbers: F32s) {
    let to: &mut [f32] = &mut to[at..at + VECTOR_LANES];
    // SAFETY: just sliced to this length.
    unsafe { store_f32(to.as_mut_ptr(), numbers) }
}
