//! Unpacks blocks into a panel with AVX-512, sixteen outputs at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx512::LANES;
use super::kernel::Panel;
use super::unpack::unpack_with;
use super::{QuantFormat, QuantizedMatrix, SUPERBLOCK};

const VECTOR_LANES: usize = 16;
type Bytes4 = __m512i;
type F32s = __m512;

unpack_with!("avx512f,avx512bw");

/// Sixteen bytes at `offset` of each row, transposed: word `i` of lane `l` is the `i`th of row `l`.
///
/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_words(rows: &Rows, offset: usize) -> [Bytes4; 4] {
    // SAFETY: as above; unaligned.
    let load = |row: usize| unsafe { _mm_loadu_si128(rows[row].add(offset).cast()) };
    // Rows 4 apart share a register, so that transposing within 128 bits leaves the rows in order.
    let four = |i: usize| {
        let x = _mm512_castsi128_si512(load(i));
        let x = _mm512_inserti32x4::<1>(x, load(i + 4));
        let x = _mm512_inserti32x4::<2>(x, load(i + 8));
        _mm512_inserti32x4::<3>(x, load(i + 12))
    };
    let (a, b, c, d) = (four(0), four(1), four(2), four(3));
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab2, cd2),
        _mm512_unpackhi_epi64(ab2, cd2),
    ]
}

/// The f16 at `offset` of each row, as f32.
///
/// # Safety
/// Two bytes are valid for reads there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_f16(rows: &Rows, offset: usize) -> F32s {
    // SAFETY: as above; unaligned.
    let half: [u16; VECTOR_LANES] =
        std::array::from_fn(|i| unsafe { rows[i].add(offset).cast::<u16>().read_unaligned() });
    // SAFETY: 32 bytes of the array.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(half.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn low_f16(x: Bytes4) -> F32s {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn high_f16(x: Bytes4) -> F32s {
    low_f16(_mm512_srli_epi32::<16>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn mask<const BITS: i8>(x: Bytes4) -> Bytes4 {
    _mm512_and_si512(x, _mm512_set1_epi8(BITS))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn shl<const N: u32>(x: Bytes4) -> Bytes4 {
    _mm512_slli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn shr<const N: u32>(x: Bytes4) -> Bytes4 {
    _mm512_srli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn or(x: Bytes4, y: Bytes4) -> Bytes4 {
    _mm512_or_si512(x, y)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn spread(x: Bytes4, i: usize) -> Bytes4 {
    let bytes = _mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
    let bytes = _mm_add_epi8(bytes, _mm_set1_epi8(i as i8 / 2));
    let x = _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(bytes));
    let bits = _mm512_set1_epi32(0x0804_0201 << (4 * (i % 2)));
    _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(x, bits), _mm512_set1_epi8(16))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn flip_sign(x: Bytes4) -> Bytes4 {
    _mm512_xor_si512(x, _mm512_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn mul(a: F32s, b: F32s) -> F32s {
    _mm512_mul_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn zero() -> F32s {
    _mm512_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn from_u8(x: Bytes4) -> [F32s; 4] {
    let number = |x| _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32(255)));
    [
        number(x),
        number(_mm512_srli_epi32::<8>(x)),
        number(_mm512_srli_epi32::<16>(x)),
        number(_mm512_srli_epi32::<24>(x)),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn from_i8(x: Bytes4) -> [F32s; 4] {
    let number = |x| _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(x));
    [
        number(_mm512_slli_epi32::<24>(x)),
        number(_mm512_slli_epi32::<16>(x)),
        number(_mm512_slli_epi32::<8>(x)),
        number(x),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn widen_to_i16(x: Bytes4) -> [Bytes4; 2] {
    let pair = |x| {
        let second = _mm512_slli_epi32::<8>(_mm512_and_si512(x, _mm512_set1_epi32(0xff00)));
        _mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi32(255)), second)
    };
    [pair(x), pair(_mm512_srli_epi32::<16>(x))]
}

/// # Safety
/// 64 bytes are valid for writes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn store(to: *mut u8, x: Bytes4) {
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(to.cast(), x) }
}

/// # Safety
/// Sixteen elements are valid for writes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn store_f32(to: *mut f32, x: F32s) {
    // SAFETY: as above.
    unsafe { _mm512_storeu_ps(to, x) }
}
