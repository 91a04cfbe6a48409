//! Blocks of sixteen outputs to a panel, with AVX-512: one nibble of all lanes at a time.
//!
//! Sixteen bytes of each of sixteen rows are read at once and turned, so that a register has the same four
//! bytes of all; what follows is the same for all lanes.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx512::LANES;
use super::kernel::Panel;
use super::{BlockFormat, BlockMatrix, SUPER};

/// Lanes of a register.
const WIDE: usize = 16;
/// The same bytes of sixteen rows.
type Rows = [*const u8; WIDE];

/// # Safety
/// As [`super::kernel::Kernel::unpack`].
pub unsafe fn unpack(panel: &mut Panel, matrix: &BlockMatrix, output: usize, superblock: usize) {
    let format = matrix.format();
    let blocks = matrix.superblock(output, superblock);
    let n = blocks.len() / format.block_bytes();
    let last = matrix.n_out() - 1 - output;
    for first in (0..LANES).step_by(WIDE) {
        let rows = std::array::from_fn(|lane| {
            // SAFETY: an output of the matrix, by `last`.
            unsafe {
                blocks
                    .as_ptr()
                    .add((first + lane).min(last) * matrix.row_bytes)
            }
        });
        // SAFETY: the caller vouches for the instructions; the rows are those of a superblock of `n`
        // blocks, and `first` leaves room for sixteen lanes.
        unsafe {
            match format {
                BlockFormat::Q4_0 => q4_0(panel, first, rows, n),
                BlockFormat::Q8_0 => q8_0(panel, first, rows, n),
                BlockFormat::Q4K => q4_k(panel, first, rows),
                BlockFormat::Q5K => q5_k(panel, first, rows),
                BlockFormat::Q6K => q6_k(panel, first, rows),
            }
        }
    }
}

/// Sixteen bytes at `offset` of each row, turned: word `i` of lane `l` is the `i`th of row `l`.
///
/// # Safety
/// So many bytes may be read from each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn words(rows: &Rows, offset: usize) -> [__m512i; 4] {
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
unsafe fn halves(rows: &Rows, offset: usize) -> __m512 {
    // SAFETY: as above; unaligned.
    let half: [u16; WIDE] =
        std::array::from_fn(|i| unsafe { rows[i].add(offset).cast::<u16>().read_unaligned() });
    // SAFETY: 32 bytes of the array.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(half.as_ptr().cast()) })
}

/// Puts four inputs of sixteen outputs into group `group`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn put(panel: &mut Panel, first: usize, group: usize, bytes: __m512i) {
    let at = (group * LANES + first) * 4;
    let to: &mut [u8] = &mut panel.values[at..at + 64];
    // SAFETY: 64 bytes may be written there, unaligned.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn put_scale(panel: &mut Panel, first: usize, run: usize, scale: __m512) {
    let at = run * LANES + first;
    let to: &mut [f32] = &mut panel.scales[at..at + WIDE];
    // SAFETY: sixteen numbers may be written there, unaligned.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), scale) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn low(x: __m512i) -> __m512i {
    _mm512_and_si512(x, _mm512_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn high(x: __m512i) -> __m512i {
    low(_mm512_srli_epi16::<4>(x))
}

/// Scales, minima and what they are multiples of; 16 bytes at the begin of a block.
///
/// # Safety
/// The rows are blocks of Q4_K or Q5_K.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn k_header(panel: &mut Panel, first: usize, rows: &Rows) {
    // SAFETY: a block begins with these 16 bytes.
    let [d, a, b, c] = unsafe { words(rows, 0) };
    let scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(d));
    let min_scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(d)));
    let to: &mut [f32] = &mut panel.min_scales[first..first + WIDE];
    // SAFETY: sixteen numbers may be written there, unaligned.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), min_scale) };

    let six = _mm512_set1_epi8(63);
    let top = |x| {
        let bits = _mm512_and_si512(_mm512_srli_epi16::<6>(x), _mm512_set1_epi8(3));
        _mm512_slli_epi16::<4>(bits)
    };
    let scales = [_mm512_and_si512(a, six), _mm512_or_si512(low(c), top(a))];
    let minima = [_mm512_and_si512(b, six), _mm512_or_si512(high(c), top(b))];
    let byte = _mm512_set1_epi32(255);
    for (i, four) in scales.into_iter().enumerate() {
        let mut rest = four;
        for run in 4 * i..4 * i + 4 {
            let s = _mm512_cvtepi32_ps(_mm512_and_si512(rest, byte));
            put_scale(panel, first, run, _mm512_mul_ps(s, scale));
            rest = _mm512_srli_epi32::<8>(rest);
        }
    }
    for (i, four) in minima.into_iter().enumerate() {
        for (pair, shifted) in [(2 * i, four), (2 * i + 1, _mm512_srli_epi32::<16>(four))] {
            let second =
                _mm512_slli_epi32::<8>(_mm512_and_si512(shifted, _mm512_set1_epi32(0xff00)));
            let both = _mm512_or_si512(_mm512_and_si512(shifted, byte), second);
            let at = (pair * LANES + first) * 2;
            let to: &mut [i16] = &mut panel.minima[at..at + 2 * WIDE];
            // SAFETY: 64 bytes may be written there, unaligned.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), both) }
        }
    }
}

/// # Safety
/// The rows are blocks of Q4_K.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn q4_k(panel: &mut Panel, first: usize, rows: Rows) {
    // SAFETY: offsets are within the 144 bytes of a block.
    unsafe {
        k_header(panel, first, &rows);
        for chunk in 0..8 {
            // 32 bytes have a run in their low nibbles and the next in their high ones.
            let group = chunk / 2 * 16 + chunk % 2 * 4;
            for (i, w) in words(&rows, 16 + chunk * 16).into_iter().enumerate() {
                put(panel, first, group + i, low(w));
                put(panel, first, group + i + 8, high(w));
            }
        }
    }
}

/// # Safety
/// The rows are blocks of Q5_K.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn q5_k(panel: &mut Panel, first: usize, rows: Rows) {
    // SAFETY: offsets are within the 176 bytes of a block.
    unsafe {
        k_header(panel, first, &rows);
        let bits = [words(&rows, 16), words(&rows, 32)];
        let one = _mm512_set1_epi8(16);
        for chunk in 0..8 {
            let group = chunk / 2 * 16 + chunk % 2 * 4;
            // The fifth bits of the run and of the next one, at 16 in each byte.
            let shift = _mm_cvtsi32_si128(chunk as i32 / 2 * 2);
            for (i, w) in words(&rows, 48 + chunk * 16).into_iter().enumerate() {
                let bits = _mm512_srl_epi16(bits[chunk % 2][i], shift);
                let lower = _mm512_and_si512(_mm512_slli_epi16::<4>(bits), one);
                let upper = _mm512_and_si512(_mm512_slli_epi16::<3>(bits), one);
                put(panel, first, group + i, _mm512_or_si512(low(w), lower));
                put(panel, first, group + i + 8, _mm512_or_si512(high(w), upper));
            }
        }
    }
}

/// # Safety
/// The rows are blocks of Q6_K.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn q6_k(panel: &mut Panel, first: usize, rows: Rows) {
    // SAFETY: offsets are within the 210 bytes of a block.
    unsafe {
        let d = halves(&rows, 208);
        for (i, four) in words(&rows, 192).into_iter().enumerate() {
            let mut rest = four;
            for j in (0..4).rev() {
                let s = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(rest));
                put_scale(panel, first, 4 * i + j, _mm512_mul_ps(s, d));
                rest = _mm512_slli_epi32::<8>(rest);
            }
        }
        let two = _mm512_set1_epi8(48);
        for half in 0..2 {
            for chunk in 0..2 {
                let lower = words(&rows, 64 * half + 16 * chunk);
                let upper = words(&rows, 64 * half + 16 * chunk + 32);
                let bits = words(&rows, 128 + 32 * half + 16 * chunk);
                for i in 0..4 {
                    let group = 32 * half + 4 * chunk + i;
                    let (l, u, h) = (lower[i], upper[i], bits[i]);
                    let top = |x| _mm512_and_si512(x, two);
                    let first_two = top(_mm512_slli_epi16::<4>(h));
                    let second_two = top(_mm512_slli_epi16::<2>(h));
                    let last_two = top(_mm512_srli_epi16::<2>(h));
                    put(panel, first, group, _mm512_or_si512(low(l), first_two));
                    put(panel, first, group + 8, _mm512_or_si512(low(u), second_two));
                    put(panel, first, group + 16, _mm512_or_si512(high(l), top(h)));
                    put(panel, first, group + 24, _mm512_or_si512(high(u), last_two));
                }
            }
        }
    }
}

/// # Safety
/// The rows are `n` blocks of Q8_0.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn q8_0(panel: &mut Panel, first: usize, rows: Rows, n: usize) {
    let sign = _mm512_set1_epi8(-128);
    for block in 0..n {
        // SAFETY: offsets are within the `n` blocks of 34 bytes.
        unsafe {
            put_scale(panel, first, block, halves(&rows, block * 34));
            for chunk in 0..2 {
                let w = words(&rows, block * 34 + 2 + chunk * 16);
                for (i, w) in w.into_iter().enumerate() {
                    let group = block * 8 + chunk * 4 + i;
                    put(panel, first, group, _mm512_xor_si512(w, sign));
                }
            }
        }
    }
    clear(panel, first, n);
}

/// # Safety
/// The rows are `n` blocks of Q4_0.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn q4_0(panel: &mut Panel, first: usize, rows: Rows, n: usize) {
    for block in 0..n {
        // SAFETY: offsets are within the `n` blocks of 18 bytes.
        unsafe {
            put_scale(panel, first, block, halves(&rows, block * 18));
            for (i, w) in words(&rows, block * 18 + 2).into_iter().enumerate() {
                put(panel, first, block * 8 + i, low(w));
                put(panel, first, block * 8 + i + 4, high(w));
            }
        }
    }
    clear(panel, first, n);
}

/// Where a row has ended, after `n` runs of 32, weights are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn clear(panel: &mut Panel, first: usize, n: usize) {
    for run in n..SUPER / 32 {
        put_scale(panel, first, run, _mm512_setzero_ps());
    }
}
