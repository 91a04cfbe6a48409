//! Blocks to a panel with AVX-512: sixteen outputs at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx512::LANES;
use super::kernel::Panel;
use super::unpack::unpack_with;
use super::{BlockFormat, BlockMatrix, SUPER};

const WIDE: usize = 16;
type Words = __m512i;
type Numbers = __m512;

unpack_with!("avx512f,avx512bw");

/// Sixteen bytes at `offset` of each row, turned: word `i` of lane `l` is the `i`th of row `l`.
///
/// # Safety
/// So many bytes may be read from each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn words(rows: &Rows, offset: usize) -> [Words; 4] {
    // SAFETY: as above; unaligned.
    let load = |row: usize| unsafe { _mm_loadu_si128(rows[row].add(offset).cast()) };
    // Rows 4 apart share a register, so that turning within 128 bits leaves the rows in order.
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

/// The f16 at `offset` of each row.
///
/// # Safety
/// Two bytes may be read there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn halves(rows: &Rows, offset: usize) -> Numbers {
    // SAFETY: as above; unaligned.
    let half: [u16; WIDE] =
        std::array::from_fn(|i| unsafe { rows[i].add(offset).cast::<u16>().read_unaligned() });
    // SAFETY: 32 bytes of the array.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(half.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn low_halves(x: Words) -> Numbers {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn high_halves(x: Words) -> Numbers {
    low_halves(_mm512_srli_epi32::<16>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn only<const BITS: i8>(x: Words) -> Words {
    _mm512_and_si512(x, _mm512_set1_epi8(BITS))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn left<const N: u32>(x: Words) -> Words {
    _mm512_slli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn right<const N: u32>(x: Words) -> Words {
    _mm512_srli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn or(x: Words, y: Words) -> Words {
    _mm512_or_si512(x, y)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn flip(x: Words) -> Words {
    _mm512_xor_si512(x, _mm512_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn times(a: Numbers, b: Numbers) -> Numbers {
    _mm512_mul_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn nothing() -> Numbers {
    _mm512_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn unsigned(x: Words) -> [Numbers; 4] {
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
pub(super) fn signed(x: Words) -> [Numbers; 4] {
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
pub(super) fn wider(x: Words) -> [Words; 2] {
    let pair = |x| {
        let second = _mm512_slli_epi32::<8>(_mm512_and_si512(x, _mm512_set1_epi32(0xff00)));
        _mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi32(255)), second)
    };
    [pair(x), pair(_mm512_srli_epi32::<16>(x))]
}

/// # Safety
/// 64 bytes may be written there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn store(to: *mut u8, x: Words) {
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(to.cast(), x) }
}

/// # Safety
/// Sixteen numbers may be written there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn store_numbers(to: *mut f32, x: Numbers) {
    // SAFETY: as above.
    unsafe { _mm512_storeu_ps(to, x) }
}
