//! Unpacks blocks into a panel with NEON, four outputs at a time.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::kernel::Panel;
use super::neon_dotprod::LANES;
use super::unpack::unpack_with;
use super::{QuantFormat, QuantizedMatrix, SUPERBLOCK};

pub(super) const VECTOR_LANES: usize = 4;
pub(super) type Bytes4 = uint8x16_t;
pub(super) type F32s = float32x4_t;

unpack_with!("neon");

/// Sixteen bytes at `offset` of each row, transposed: word `i` of lane `l` is the `i`th of row `l`.
///
/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn load_words(rows: &Rows, offset: usize) -> [Bytes4; 4] {
    // SAFETY: as above; no alignment is needed.
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u32_u8(unsafe { vld1q_u8(row.add(offset)) }));
    let pair = |x, y| {
        let (even, odd) = (vtrn1q_u32(x, y), vtrn2q_u32(x, y));
        (vreinterpretq_u64_u32(even), vreinterpretq_u64_u32(odd))
    };
    let ((ab, ab_odd), (cd, cd_odd)) = (pair(a, b), pair(c, d));
    let words = [
        vzip1q_u64(ab, cd),
        vzip1q_u64(ab_odd, cd_odd),
        vzip2q_u64(ab, cd),
        vzip2q_u64(ab_odd, cd_odd),
    ];
    words.map(|x| vreinterpretq_u8_u64(x))
}

/// The f16 at `offset` of each row, as f32.
///
/// # Safety
/// Two bytes are valid for reads there.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn load_f16(rows: &Rows, offset: usize) -> F32s {
    // SAFETY: as above; unaligned.
    let half = rows.map(|row| unsafe { row.add(offset).cast::<u16>().read_unaligned() });
    // SAFETY: the array has four elements.
    to_f32(unsafe { vld1_u16(half.as_ptr()) })
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn low_f16(x: Bytes4) -> F32s {
    to_f32(vmovn_u32(vreinterpretq_u32_u8(x)))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn high_f16(x: Bytes4) -> F32s {
    to_f32(vshrn_n_u32::<16>(vreinterpretq_u32_u8(x)))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn mask<const BITS: u8>(x: Bytes4) -> Bytes4 {
    vandq_u8(x, vdupq_n_u8(BITS))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn shl<const N: i32>(x: Bytes4) -> Bytes4 {
    vshlq_n_u8::<N>(x)
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn shr<const N: i32>(x: Bytes4) -> Bytes4 {
    vshrq_n_u8::<N>(x)
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn or(x: Bytes4, y: Bytes4) -> Bytes4 {
    vorrq_u8(x, y)
}

#[inline]
#[target_feature(enable = "neon")]
fn spread(x: Bytes4, i: usize) -> Bytes4 {
    let half = i as u8 / 2;
    let lane = |lane: u8| u64::from(4 * lane + half) * 0x0101_0101;
    let bits = vdupq_n_u32(0x0804_0201 << (4 * (i % 2)));
    bits_at(
        x,
        [lane(0) | lane(1) << 32, lane(2) | lane(3) << 32],
        vreinterpretq_u8_u32(bits),
    )
}

/// 16 in each byte whose bit of `bits` is set in the byte of `x` that its index names, zero in the
/// others.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn bits_at(x: Bytes4, indices: [u64; 2], bits: Bytes4) -> Bytes4 {
    let [low, high] = indices.map(|bytes| vcreate_u8(bytes));
    let is_set = vtstq_u8(vqtbl1q_u8(x, vcombine_u8(low, high)), bits);
    vandq_u8(is_set, vdupq_n_u8(16))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn flip_sign(x: Bytes4) -> Bytes4 {
    veorq_u8(x, vdupq_n_u8(128))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn mul(a: F32s, b: F32s) -> F32s {
    vmulq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zero() -> F32s {
    vdupq_n_f32(0.0)
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn from_u8(x: Bytes4) -> [F32s; 4] {
    let x = vreinterpretq_u32_u8(x);
    let number = |x| vcvtq_f32_u32(vandq_u32(x, vdupq_n_u32(255)));
    [
        number(x),
        number(vshrq_n_u32::<8>(x)),
        number(vshrq_n_u32::<16>(x)),
        number(vshrq_n_u32::<24>(x)),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn from_i8(x: Bytes4) -> [F32s; 4] {
    let x = vreinterpretq_s32_u8(x);
    let number = |x| vcvtq_f32_s32(vshrq_n_s32::<24>(x));
    [
        number(vshlq_n_s32::<24>(x)),
        number(vshlq_n_s32::<16>(x)),
        number(vshlq_n_s32::<8>(x)),
        number(x),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_to_i16(x: Bytes4) -> [Bytes4; 2] {
    let x = vreinterpretq_u32_u8(x);
    let pair = |x| {
        let second = vshlq_n_u32::<8>(vandq_u32(x, vdupq_n_u32(0xff00)));
        vreinterpretq_u8_u32(vorrq_u32(vandq_u32(x, vdupq_n_u32(255)), second))
    };
    [pair(x), pair(vshrq_n_u32::<16>(x))]
}

/// # Safety
/// Sixteen bytes are valid for writes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store(to: *mut u8, x: Bytes4) {
    // SAFETY: as above.
    unsafe { vst1q_u8(to, x) }
}

/// # Safety
/// Four elements are valid for writes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store_f32(to: *mut f32, x: F32s) {
    // SAFETY: as above.
    unsafe { vst1q_f32(to, x) }
}

/// Converts four f16 to f32.
///
/// Inline assembly because vectors of f16 are not stable in all Rust versions that build this.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn to_f32(f16s: uint16x4_t) -> float32x4_t {
    let numbers;
    // SAFETY: one instruction of every AArch64 CPU, which accesses only these registers.
    unsafe {
        std::arch::asm!(
            "fcvtl {numbers:v}.4s, {f16s:v}.4h",
            f16s = in(vreg) f16s,
            numbers = out(vreg) numbers,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    numbers
}
