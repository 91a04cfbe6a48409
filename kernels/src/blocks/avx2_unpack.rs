//! Blocks to a panel with AVX2: eight outputs at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::LANES;
use super::kernel::Panel;
use super::unpack::unpack_with;
use super::{BlockFormat, BlockMatrix, SUPER};

const WIDE: usize = 8;
type Words = __m256i;
type Numbers = __m256;

unpack_with!("avx2,f16c");

/// Sixteen bytes at `offset` of each row, turned: word `i` of lane `l` is the `i`th of row `l`.
///
/// # Safety
/// So many bytes may be read from each row.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn words(rows: &Rows, offset: usize) -> [Words; 4] {
    // SAFETY: as above; unaligned.
    let load = |row: usize| unsafe { _mm_loadu_si128(rows[row].add(offset).cast()) };
    // Rows 4 apart share a register, so that turning within 128 bits leaves the rows in order.
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

/// The f16 at `offset` of each row.
///
/// # Safety
/// Two bytes may be read there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn halves(rows: &Rows, offset: usize) -> Numbers {
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
fn low_halves(x: Words) -> Numbers {
    high_halves(_mm256_slli_epi32::<16>(x))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn high_halves(x: Words) -> Numbers {
    let x = _mm256_srli_epi32::<16>(x);
    let (low, high) = (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    _mm256_cvtph_ps(_mm_packus_epi32(low, high))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn only<const BITS: i8>(x: Words) -> Words {
    _mm256_and_si256(x, _mm256_set1_epi8(BITS))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn left<const N: i32>(x: Words) -> Words {
    _mm256_slli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn right<const N: i32>(x: Words) -> Words {
    _mm256_srli_epi16::<N>(x)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn or(x: Words, y: Words) -> Words {
    _mm256_or_si256(x, y)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn flip(x: Words) -> Words {
    _mm256_xor_si256(x, _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn times(a: Numbers, b: Numbers) -> Numbers {
    _mm256_mul_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn nothing() -> Numbers {
    _mm256_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn unsigned(x: Words) -> [Numbers; 4] {
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
fn signed(x: Words) -> [Numbers; 4] {
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
fn wider(x: Words) -> [Words; 2] {
    let pair = |x| {
        let second = _mm256_slli_epi32::<8>(_mm256_and_si256(x, _mm256_set1_epi32(0xff00)));
        _mm256_or_si256(_mm256_and_si256(x, _mm256_set1_epi32(255)), second)
    };
    [pair(x), pair(_mm256_srli_epi32::<16>(x))]
}

/// # Safety
/// 32 bytes may be written there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn store(to: *mut u8, x: Words) {
    // SAFETY: as above.
    unsafe { _mm256_storeu_si256(to.cast(), x) }
}

/// # Safety
/// Eight numbers may be written there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn store_numbers(to: *mut f32, x: Numbers) {
    // SAFETY: as above.
    unsafe { _mm256_storeu_ps(to, x) }
}
