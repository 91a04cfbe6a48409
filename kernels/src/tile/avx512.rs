//! AVX-512: f32 with FMA, bf16 with `vdpbf16ps`.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::bf16;

use super::{LANES, ROWS, Start, Tile, avx2, check};
use crate::cpu::Cpu;

/// Steps of the inner loop, unrolled.
const UNROLL: usize = 4;

/// AVX-512 F, BW, VL, DQ, for f32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

/// The same with BF16, for bf16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Bf16(());

impl Avx512 {
    /// Returns a value if `cpu` includes the set and this CPU has it.
    pub(crate) fn new(cpu: Cpu) -> Option<Self> {
        (cpu >= Cpu::Avx512 && cpu.is_available()).then_some(Self(()))
    }
}

impl Avx512Bf16 {
    /// Returns a value if `cpu` includes the set and this CPU has it.
    pub(crate) fn new(cpu: Cpu) -> Option<Self> {
        (cpu >= Cpu::Avx512Bf16 && cpu.is_available()).then_some(Self(()))
    }
}

impl Tile for Avx512 {
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
        // SAFETY: `self` exists, so the CPU has AVX-512, and AVX2 with it.
        unsafe { avx2::transpose(rows, width, to) }
    }

    fn multiply(self, a: &[f32], b: &[f32], width: usize, start: Start, c: &mut [f32]) {
        check(a, b, width, start, c);
        // SAFETY: `self` exists, so the CPU has AVX-512.
        unsafe {
            match width / LANES {
                1 => multiply_f32::<1>(a, b, start, c),
                2 => multiply_f32::<2>(a, b, start, c),
                _ => multiply_f32::<3>(a, b, start, c),
            }
        }
    }
}

impl Tile for Avx512Bf16 {
    type Element = bf16;

    fn convert(self, from: &[f32], scale: f32, to: &mut [bf16]) {
        assert_eq!(
            from.len(),
            to.len(),
            "both slices must have the same length"
        );
        // SAFETY: `self` exists, so the CPU has AVX-512 with BF16.
        unsafe { convert(from, scale, to) }
    }

    fn transpose(self, rows: [&[bf16]; ROWS], width: usize, to: &mut [bf16]) {
        // Pairs of inputs move together, as words of 32 bits.
        // SAFETY: any bits are a valid f32.
        let words = rows.map(|row| unsafe { row.align_to::<f32>() });
        let is_aligned = |row: &(&[bf16], &[f32], &[bf16])| row.0.is_empty() && row.2.is_empty();
        // SAFETY: any bits are a valid bf16 too.
        if let ([], to, _) = unsafe { to.align_to_mut::<f32>() }
            && words.iter().all(is_aligned)
        {
            // SAFETY: `self` exists, so the CPU has AVX-512, and AVX2 with it.
            return unsafe { avx2::transpose(words.map(|(_, row, _)| row), width, to) };
        }
        super::transpose(rows, width, to);
    }

    fn multiply(self, a: &[bf16], b: &[bf16], width: usize, start: Start, c: &mut [f32]) {
        check(a, b, width, start, c);
        // SAFETY: `self` exists, so the CPU has AVX-512 with BF16.
        unsafe {
            match width / LANES {
                1 => multiply_bf16::<1>(a, b, start, c),
                2 => multiply_bf16::<2>(a, b, start, c),
                _ => multiply_bf16::<3>(a, b, start, c),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn convert(from: &[f32], scale: f32, to: &mut [bf16]) {
    let factor = _mm512_set1_ps(scale);
    let (chunks, rest) = from.as_chunks::<LANES>();
    let (to_chunks, to_rest) = to.as_chunks_mut::<LANES>();
    for (from, to) in chunks.iter().zip(to_chunks) {
        store_half(_mm512_mul_ps(load(from), factor), to);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = bf16::from_f32(scale * from);
    }
}

/// Panel by panel; `width` is `N` vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn multiply_f32<const N: usize>(a: &[f32], b: &[f32], start: Start, c: &mut [f32]) {
    let (b, _) = b.as_chunks::<LANES>();
    let depth = b.len() / N;
    for (i, c) in c.chunks_exact_mut(ROWS * N * LANES).enumerate() {
        let (a, _) = a[i * ROWS * depth..][..ROWS * depth].as_chunks::<ROWS>();
        let (c, _) = c.as_chunks_mut::<LANES>();
        let mut sums = init_sums::<N>(start, c);
        // Unrolled, because the loop's own instructions would compete for the FMA ports.
        let (a_steps, a_rest) = a.as_chunks::<UNROLL>();
        let mut b_steps = b.chunks_exact(UNROLL * N);
        for (a, b) in a_steps.iter().zip(&mut b_steps) {
            for i in 0..UNROLL {
                step(&a[i], &b[i * N..][..N], &mut sums);
            }
        }
        for (a, b) in a_rest.iter().zip(b_steps.remainder().chunks_exact(N)) {
            step(a, b, &mut sums);
        }
        store_sums(&sums, c);
    }
}

/// One step of the summed dimension.
#[inline]
#[target_feature(enable = "avx512f")]
fn step<const N: usize>(a: &[f32; ROWS], b: &[[f32; LANES]], sums: &mut [[__m512; N]; ROWS]) {
    let mut columns = [_mm512_setzero_ps(); N];
    for (column, b) in columns.iter_mut().zip(b) {
        *column = load(b);
    }
    for (sums, a) in sums.iter_mut().zip(a) {
        let a = _mm512_set1_ps(*a);
        for (sum, b) in sums.iter_mut().zip(columns) {
            *sum = _mm512_fmadd_ps(a, b, *sum);
        }
    }
}

/// Panel by panel; `width` is `N` vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn multiply_bf16<const N: usize>(a: &[bf16], b: &[bf16], start: Start, c: &mut [f32]) {
    let (b, _) = b.as_chunks::<{ 2 * LANES }>();
    let steps = b.len() / N;
    for (i, c) in c.chunks_exact_mut(ROWS * N * LANES).enumerate() {
        let (a, _) = a[i * 2 * ROWS * steps..][..2 * ROWS * steps].as_chunks::<{ 2 * ROWS }>();
        let (c, _) = c.as_chunks_mut::<LANES>();
        let mut sums = init_sums::<N>(start, c);
        for (a, b) in a.iter().zip(b.chunks_exact(N)) {
            let mut columns = [load_pairs(&b[0]); N];
            for (column, b) in columns.iter_mut().zip(b) {
                *column = load_pairs(b);
            }
            let (a, _) = a.as_chunks::<2>();
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = spread_pair(a);
                for (sum, b) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
        store_sums(&sums, c);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn init_sums<const N: usize>(start: Start, c: &[[f32; LANES]]) -> [[__m512; N]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); N]; ROWS];
    if matches!(start, Start::Zero) {
        return sums;
    }
    for (sums, c) in sums.iter_mut().zip(c.chunks_exact(N)) {
        for (sum, c) in sums.iter_mut().zip(c) {
            *sum = load(c);
        }
    }
    if let Start::Scaled(by) = start {
        let (by, _) = by.as_chunks::<LANES>();
        for sums in &mut sums {
            for (sum, by) in sums.iter_mut().zip(by) {
                *sum = _mm512_mul_ps(*sum, load(by));
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_sums<const N: usize>(sums: &[[__m512; N]; ROWS], c: &mut [[f32; LANES]]) {
    for (sums, c) in sums.iter().zip(c.chunks_exact_mut(N)) {
        for (sum, c) in sums.iter().zip(c) {
            store(*sum, c);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(from: &[f32; LANES]) -> __m512 {
    // SAFETY: sixteen numbers are valid for reads; the load needs no alignment.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(value: __m512, to: &mut [f32; LANES]) {
    // SAFETY: sixteen numbers are valid for writes; the store needs no alignment.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_pairs(from: &[bf16; 2 * LANES]) -> __m512bh {
    // SAFETY: 64 bytes are valid for reads, the load needs no alignment, and every pattern of bits is
    // a vector of bf16.
    unsafe { std::mem::transmute(_mm512_loadu_si512(from.as_ptr().cast())) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn spread_pair(pair: &[bf16; 2]) -> __m512bh {
    // SAFETY: four bytes are valid for reads, unaligned, and every pattern of bits is a vector of
    // bf16. A 32-bit broadcast is a single instruction.
    unsafe {
        let pair = pair.as_ptr().cast::<i32>().read_unaligned();
        std::mem::transmute(_mm512_set1_epi32(pair))
    }
}

/// Sixteen f32, rounded to the nearest bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn store_half(value: __m512, to: &mut [bf16; LANES]) {
    // SAFETY: 32 bytes are valid for writes, the store needs no alignment, and bf16 is two bytes of
    // any pattern.
    unsafe {
        let half: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
        _mm256_storeu_si256(to.as_mut_ptr().cast(), half);
    }
}

/// Interleaves the lanes of two consecutive steps, as bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn store_pairs(first: __m512, second: __m512, to: &mut [bf16; 2 * LANES]) {
    const SIDE_BY_SIDE: [i16; 32] = {
        let mut order = [0; 32];
        let mut lane = 0;
        while lane < 16 {
            order[2 * lane] = lane as i16;
            order[2 * lane + 1] = lane as i16 + 16;
            lane += 1;
        }
        order
    };
    // SAFETY: `SIDE_BY_SIDE` is 64 bytes, `to` takes as many, neither access needs an alignment,
    // and vectors and bf16 take any pattern of bits.
    unsafe {
        let order = _mm512_loadu_si512(SIDE_BY_SIDE.as_ptr().cast());
        let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
        let pairs = _mm512_permutexvar_epi16(order, both);
        _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
    }
}
