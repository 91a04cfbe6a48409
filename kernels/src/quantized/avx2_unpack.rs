//! Unpacks blocks into a panel with AVX2, eight outputs at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::LANES;
use super::kernel::Panel;
use super::unpack::unpack_with;
use super::{QuantFormat, QuantizedMatrix, SUPERBLOCK};

const VECTOR_LANES: usize = 8;
type Bytes4 = __m256i;
type F32s = __m256;

unpack_with!("avx2,f16c");

/// Sixteen bytes at `offset` of each row, transposed: word `i` of lane `l` is the `i`th of row `l`.
///
/// # Safety
/// Sixteen bytes at `offset` of each row are valid for reads.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_words(rows: &Rows, offset: usize) -> [Bytes4; 4] {
    // SAFETY: as above; unaligned.
    let load = |row: usize| unsafe { _mm_loadu_si128(rows[row].add(offset).cast()) };
    // Rows 4 apart share a register, so that transposing within 128 bits leaves the rows in order.
    let two = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(i)), load(i + 4));
    let (a, b, c, d) = (two(0), two(1), two(2), two(3));
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab2, cd2),
        _mm256_unpackhi_epi64(ab2, cd2),
    ]
}

/// The f16 at `offset` of each row, as f32.
///
/// # Safety
/// Two bytes are valid for reads there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_f16(rows: &Rows, offset: usize) -> F32s {
    // SAFETY: as above; unaligned.
    let half = |i: usize| unsafe { rows[i].add(offset).cast::<i16>().read_unaligned() };
    _mm256_cvtph_ps(_mm_set_epi16(
        half(7),
        half(6),
        half(5),
        half(4),
        half(3),
        half(2),
        half(1),
        half(0),
    ))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn low_f16(x: Bytes4) -> F32s {
    high_f16(_mm256_slli_epi32::<16>(x))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn high_f16(x: Bytes4) -> F32s {
    let x = _mm256_srli_epi32::<16>(x);
    let (low, high) = (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    _mm256_cvtph_ps(_mm_packus_epi32(low, high))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn mask<const BITS: i8>(x: Bytes4) -> Bytes4 {
    _mm256_and_si256(x, _mm256_set1_epi8(BITS))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn shl<const N: i32>(x: Bytes4) -> Bytes4 {
    _mm256_slli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn shr<const N: i32>(x: Bytes4) -> Bytes4 {
    _mm256_srli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn or(x: Bytes4, y: Bytes4) -> Bytes4 {
    _mm256_or_si256(x, y)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn spread(x: Bytes4, i: usize) -> Bytes4 {
    let bytes = _mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
    let bytes = _mm_add_epi8(bytes, _mm_set1_epi8(i as i8 / 2));
    let x = _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(bytes));
    let bits = _mm256_set1_epi32(0x0804_0201 << (4 * (i % 2)));
    let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(x, bits), bits);
    _mm256_and_si256(is_set, _mm256_set1_epi8(16))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn flip_sign(x: Bytes4) -> Bytes4 {
    _mm256_xor_si256(x, _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn mul(a: F32s, b: F32s) -> F32s {
    _mm256_mul_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn zero() -> F32s {
    _mm256_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn from_u8(x: Bytes4) -> [F32s; 4] {
    let number = |x| _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(255)));
    [
        number(x),
        number(_mm256_srli_epi32::<8>(x)),
        number(_mm256_srli_epi32::<16>(x)),
        number(_mm256_srli_epi32::<24>(x)),
    ]
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn from_i8(x: Bytes4) -> [F32s; 4] {
    let number = |x| _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(x));
    [
        number(_mm256_slli_epi32::<24>(x)),
        number(_mm256_slli_epi32::<16>(x)),
        number(_mm256_slli_epi32::<8>(x)),
        number(x),
    ]
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_to_i16(x: Bytes4) -> [Bytes4; 2] {
    let pair = |x| {
        let second = _mm256_slli_epi32::<8>(_mm256_and_si256(x, _mm256_set1_epi32(0xff00)));
        _mm256_or_si256(_mm256_and_si256(x, _mm256_set1_epi32(255)), second)
    };
    [pair(x), pair(_mm256_srli_epi32::<16>(x))]
}

/// # Safety
/// 32 bytes are valid for writes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn store(to: *mut u8, x: Bytes4) {
    // SAFETY: as above.
    unsafe { _mm256_storeu_si256(to.cast(), x) }
}

/// # Safety
/// Eight elements are valid for writes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn store_f32(to: *mut f32, x: F32s) {
    // SAFETY: as above.
    unsafe { _mm256_storeu_ps(to, x) }
}
