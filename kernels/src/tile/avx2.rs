//! AVX2 with FMA, for f32. The sixteen registers hold a quarter of a tile: four rows by three
//! vectors.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{ROWS, Start, Tile, check, depth_of};
use crate::cpu::{Cpu, available};

/// Elements of a vector.
pub(crate) const LANES: usize = 8;
/// Rows that are computed at a time.
const PART: usize = 4;

/// AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Returns a value if `cpu` includes the set and this CPU has it.
    pub(crate) fn new(cpu: Cpu) -> Option<Self> {
        (cpu >= Cpu::Avx2 && available().contains(&cpu)).then_some(Self(()))
    }
}

impl Tile for Avx2 {
    type Element = f32;

    fn convert(self, from: &[f32], scale: f32, to: &mut [f32]) {
        assert_eq!(
            from.len(),
            to.len(),
            "both slices must have the same length"
        );
        for (to, from) in to.iter_mut().zip(from) {
            *to = scale * from;
        }
    }

    fn transpose(self, rows: [&[f32]; ROWS], width: usize, to: &mut [f32]) {
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { transpose(rows, width, to) }
    }

    fn multiply(self, a: &[f32], b: &[f32], width: usize, start: Start, c: &mut [f32]) {
        check(a, b, width, start, c);
        // SAFETY: `self` exists, so the CPU has AVX2 and FMA.
        unsafe { multiply(a, b, width, start, c) }
    }
}

/// Panel by panel; three vectors of columns at a time where that many are left, else two.
#[target_feature(enable = "avx2,fma")]
fn multiply(a: &[f32], b: &[f32], width: usize, start: Start, c: &mut [f32]) {
    let depth = b.len() / width;
    let columns = width / LANES;
    let (b, _) = b.as_chunks::<LANES>();
    for (i, c) in c.chunks_exact_mut(ROWS * width).enumerate() {
        let (a, _) = a[i * ROWS * depth..][..ROWS * depth].as_chunks::<ROWS>();
        let (c, _) = c.as_chunks_mut::<LANES>();
        let mut column = 0;
        while column < columns {
            let three = (columns - column) % 2 == 1 || columns - column == 6;
            for part in 0..ROWS / PART {
                let c = &mut c[part * PART * columns..][..PART * columns];
                if three {
                    accumulate::<3>(a, part * PART, b, column, columns, start, c);
                } else {
                    accumulate::<2>(a, part * PART, b, column, columns, start, c);
                }
            }
            column += if three { 3 } else { 2 };
        }
    }
}

/// Rows `row..row + PART` of a panel times `N` vectors of columns from `column` on, of `columns`.
#[target_feature(enable = "avx2,fma")]
fn accumulate<const N: usize>(
    a: &[[f32; ROWS]],
    row: usize,
    b: &[[f32; LANES]],
    column: usize,
    columns: usize,
    start: Start,
    c: &mut [[f32; LANES]],
) {
    let mut sums = [[_mm256_setzero_ps(); N]; PART];
    if !matches!(start, Start::Zero) {
        for (sums, c) in sums.iter_mut().zip(c.chunks_exact(columns)) {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = load(&c[column + j]);
            }
        }
    }
    if let Start::Scaled(by) = start {
        let (by, _) = by.as_chunks::<LANES>();
        for sums in &mut sums {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_mul_ps(*sum, load(&by[column + j]));
            }
        }
    }
    for (a, b) in a.iter().zip(b.chunks_exact(columns)) {
        let mut vectors = [_mm256_setzero_ps(); N];
        for (vector, b) in vectors.iter_mut().zip(&b[column..column + N]) {
            *vector = load(b);
        }
        for (sums, a) in sums.iter_mut().zip(&a[row..row + PART]) {
            let a = _mm256_set1_ps(*a);
            for (sum, b) in sums.iter_mut().zip(vectors) {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
    }
    for (sums, c) in sums.iter().zip(c.chunks_exact_mut(columns)) {
        for (j, sum) in sums.iter().enumerate() {
            store(*sum, &mut c[column + j]);
        }
    }
}

/// [`Tile::transpose`], eight steps at a time.
#[target_feature(enable = "avx2")]
pub(crate) fn transpose(rows: [&[f32]; ROWS], width: usize, to: &mut [f32]) {
    let depth = depth_of(&rows);
    let whole = depth / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let mut square = [_mm256_setzero_ps(); ROWS];
        for (vector, row) in square.iter_mut().zip(rows) {
            let row = row[first..].first_chunk();
            *vector = load(row.expect("a row has a whole vector here"));
        }
        for (k, column) in transpose_8x8(square).into_iter().enumerate() {
            let to = to[(first + k) * width..].first_chunk_mut();
            store(column, to.expect("to has room for every step"));
        }
    }
    for k in whole..depth {
        for (to, row) in to[k * width..][..ROWS].iter_mut().zip(rows) {
            *to = row[k];
        }
    }
}

/// Transposes 8 x 8 elements: interleaves pairs, then fours, then swaps halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(rows: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = rows;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut fours = pairs;
    for i in [0, 4] {
        for (j, (low, high)) in [(0, 2), (1, 3)].into_iter().enumerate() {
            let (low, high) = (pairs[i + low], pairs[i + high]);
            fours[i + 2 * j] = _mm256_shuffle_ps::<0b01_00_01_00>(low, high);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(low, high);
        }
    }
    let mut columns = fours;
    for i in 0..4 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    columns
}

#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn load(from: &[f32; LANES]) -> __m256 {
    // SAFETY: eight numbers are valid for reads; the load needs no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn store(value: __m256, to: &mut [f32; LANES]) {
    // SAFETY: eight numbers are valid for writes; the store needs no alignment.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
}
