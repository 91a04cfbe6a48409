//! AVX-512 with FP16: 32 multiply-adds per instruction, twice as many as in f32.
//!
//! Sums are in f16, so after [`DEPTH`] products they continue in f32. The instructions are inline
//! assembly because the intrinsics are newer than the Rust version that this crate requires.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use half::f16;

use super::avx512::{load, store};
use super::{Element, LANES, ROWS, Start, Tile, check};
use crate::cpu::Cpu;

/// Products that are summed in f16.
const DEPTH: usize = 64;

/// AVX-512 F, BW, VL, DQ, FP16, for f16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Fp16(());

impl Avx512Fp16 {
    /// Returns a value if `cpu` includes the set and this CPU has it.
    pub(crate) fn new(cpu: Cpu) -> Option<Self> {
        (cpu.has_f16() && cpu.is_available()).then_some(Self(()))
    }
}

impl Tile for Avx512Fp16 {
    type Element = f16;

    fn convert(self, from: &[f32], scale: f32, to: &mut [f16]) {
        assert_eq!(
            from.len(),
            to.len(),
            "both slices must have the same length"
        );
        // SAFETY: `self` exists, so the CPU has AVX-512.
        unsafe { convert(from, scale, to) }
    }

    fn max_finite_abs(self, values: &[f32]) -> f32 {
        // SAFETY: `self` exists, so the CPU has AVX-512.
        unsafe { max_finite_abs(values) }
    }

    fn multiply(self, a: &[f16], b: &[f16], width: usize, start: Start, c: &mut [f32]) {
        check(a, b, width, start, c);
        // SAFETY: `self` exists, so the CPU has AVX-512 with FP16.
        unsafe {
            match width / f16::LANES {
                1 => multiply::<1>(a, b, start, c),
                2 => multiply::<2>(a, b, start, c),
                _ => multiply::<3>(a, b, start, c),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn convert(from: &[f32], scale: f32, to: &mut [f16]) {
    let factor = _mm512_set1_ps(scale);
    let (chunks, rest) = from.as_chunks::<LANES>();
    let (to_chunks, to_rest) = to.as_chunks_mut::<LANES>();
    for (from, to) in chunks.iter().zip(to_chunks) {
        store_half(_mm512_mul_ps(load(from), factor), to);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = f16::from_f32(scale * from);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn max_finite_abs(values: &[f32]) -> f32 {
    let infinity = _mm512_set1_ps(f32::INFINITY);
    let more = |largest, values: &[f32; LANES]| {
        let size = _mm512_abs_ps(load(values));
        let finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(size, infinity);
        _mm512_mask_max_ps(largest, finite, largest, size)
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = chunks.iter().fold(_mm512_setzero_ps(), more);
    if !rest.is_empty() {
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        lanes = more(lanes, &last);
    }
    _mm512_reduce_max_ps(lanes)
}

/// Panel by panel; `width` is `N` vectors of 32.
///
/// # Safety
/// The CPU has FP16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn multiply<const N: usize>(a: &[f16], b: &[f16], start: Start, c: &mut [f32]) {
    let (b, _) = b.as_chunks::<{ 2 * LANES }>();
    let depth = b.len() / N;
    if depth == 0 {
        // SAFETY: the caller's promise.
        return unsafe { some_steps::<N>(&[], &[], 0, 0, start, c) };
    }
    for first in (0..depth).step_by(DEPTH) {
        let b = &b[first * N..][..DEPTH.min(depth - first) * N];
        let start = if first == 0 { start } else { Start::Add };
        // SAFETY: the caller's promise.
        unsafe { some_steps::<N>(a, b, first, depth, start, c) }
    }
}

/// The steps of `b`, which begin at step `first` of `a`.
///
/// # Safety
/// The CPU has FP16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn some_steps<const N: usize>(
    a: &[f16],
    b: &[[f16; 2 * LANES]],
    first: usize,
    depth: usize,
    start: Start,
    c: &mut [f32],
) {
    for (i, c) in c.chunks_exact_mut(ROWS * N * 2 * LANES).enumerate() {
        let (a, _) = a[(i * depth + first) * ROWS..][..b.len() / N * ROWS].as_chunks::<ROWS>();
        let mut sums = [[_mm512_setzero_si512(); N]; ROWS];
        for (a, b) in a.iter().zip(b.chunks_exact(N)) {
            // SAFETY: the caller's promise.
            unsafe { step(a, b, &mut sums) }
        }
        let (c, _) = c.as_chunks_mut::<{ 2 * LANES }>();
        store_sums(&sums, start, c);
    }
}

/// One step of the summed dimension.
///
/// # Safety
/// The CPU has FP16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn step<const N: usize>(
    a: &[f16; ROWS],
    b: &[[f16; 2 * LANES]],
    sums: &mut [[__m512i; N]; ROWS],
) {
    let mut columns = [_mm512_setzero_si512(); N];
    for (column, b) in columns.iter_mut().zip(b) {
        // SAFETY: 64 bytes are valid for reads; the load needs no alignment.
        *column = unsafe { _mm512_loadu_si512(b.as_ptr().cast()) };
    }
    macro_rules! rows {
        ($($row:literal)+) => {$(
            for (sum, column) in sums[$row].iter_mut().zip(columns) {
                // SAFETY: the caller's promise.
                *sum = unsafe { multiply_add::<{ 2 * $row }>(a, column, *sum) };
            }
        )+};
    }
    rows!(0 1 2 3 4 5 6 7);
}

/// `sum + a * b`, where `a` is the element `AT` bytes into the row.
///
/// # Safety
/// The CPU has FP16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply_add<const AT: usize>(a: &[f16; ROWS], b: __m512i, mut sum: __m512i) -> __m512i {
    const { assert!(AT < 2 * ROWS) };
    // SAFETY: two bytes are valid for reads `AT` bytes into `a` (asserted), and nothing else is
    // accessed.
    unsafe {
        asm!(
            "vfmadd231ph {sum}, {b}, word ptr [{a} + {at}]{{1to32}}",
            sum = inout(zmm_reg) sum,
            b = in(zmm_reg) b,
            a = in(reg) a.as_ptr(),
            at = const AT,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    sum
}

/// `c = start + sums`
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn store_sums<const N: usize>(
    sums: &[[__m512i; N]; ROWS],
    start: Start,
    c: &mut [[f32; 2 * LANES]],
) {
    for (sums, c) in sums.iter().zip(c.chunks_exact_mut(N)) {
        for (j, (sum, c)) in sums.iter().zip(c).enumerate() {
            let (c, _) = c.as_chunks_mut::<LANES>();
            let halves = [
                _mm512_castsi512_si256(*sum),
                _mm512_extracti64x4_epi64::<1>(*sum),
            ];
            for (k, (half, c)) in halves.into_iter().zip(c).enumerate() {
                let sum = _mm512_cvtph_ps(half);
                let value = match start {
                    Start::Zero => sum,
                    Start::Add => _mm512_add_ps(load(c), sum),
                    Start::Scaled(by) => {
                        let (by, _) = by.as_chunks::<LANES>();
                        _mm512_fmadd_ps(load(c), load(&by[2 * j + k]), sum)
                    }
                };
                store(value, c);
            }
        }
    }
}

/// Sixteen f32, rounded to the nearest f16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store_half(value: __m512, to: &mut [f16; LANES]) {
    let half = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
    // SAFETY: 32 bytes are valid for writes, the store needs no alignment, and f16 is two bytes of any
    // pattern.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), half) }
}
