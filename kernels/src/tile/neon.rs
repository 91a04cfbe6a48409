//! NEON: f32 with `fmla`, bf16 with `bfdot`.
//!
//! Both multiply one 32-bit element of `a` (an f32 or a pair of bf16) by a vector of `b`, so the
//! two kernels differ only in the instruction. Of the 32 registers, 24 hold sums (eight rows by
//! three vectors), two a step of `a` and three a step of `b`.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

use half::bf16;

use super::{Element, ROWS, Start, Tile, check};
use crate::cpu::Cpu;

/// Elements of a vector.
pub(crate) const LANES: usize = 4;

/// NEON as every AArch64 CPU has it, for f32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

/// The same with BF16, for bf16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeonBf16(());

impl Neon {
    /// Returns a value if `cpu` includes the set and this CPU has it.
    pub(crate) fn new(cpu: Cpu) -> Option<Self> {
        (cpu >= Cpu::Neon && cpu.is_available()).then_some(Self(()))
    }
}

impl NeonBf16 {
    /// Returns a value if `cpu` includes the set and this CPU has it.
    pub(crate) fn new(cpu: Cpu) -> Option<Self> {
        (cpu >= Cpu::NeonI8mm && cpu.is_available()).then_some(Self(()))
    }
}

impl Tile for Neon {
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

    fn multiply(self, a: &[f32], b: &[f32], width: usize, start: Start, c: &mut [f32]) {
        check(a, b, width, start, c);
        // SAFETY: `self` exists, so the CPU has NEON.
        unsafe { with_fmla::multiply(vectors(a), vectors(b), width, start, c) }
    }
}

impl Tile for NeonBf16 {
    type Element = bf16;

    fn convert(self, from: &[f32], scale: f32, to: &mut [bf16]) {
        assert_eq!(
            from.len(),
            to.len(),
            "both slices must have the same length"
        );
        // SAFETY: `self` exists, so the CPU has NEON with BF16.
        unsafe { convert(from, scale, to) }
    }

    fn multiply(self, a: &[bf16], b: &[bf16], width: usize, start: Start, c: &mut [f32]) {
        check(a, b, width, start, c);
        // SAFETY: `self` exists, so the CPU has NEON with BF16.
        unsafe { with_bfdot::multiply(vectors(a), vectors(b), width, start, c) }
    }
}

#[target_feature(enable = "neon,bf16")]
fn convert(from: &[f32], scale: f32, to: &mut [bf16]) {
    let (chunks, rest) = from.as_chunks::<LANES>();
    let (to_chunks, to_rest) = to.as_chunks_mut::<LANES>();
    for (from, to) in chunks.iter().zip(to_chunks) {
        store_half(bfcvtn(vmulq_n_f32(load(from), scale)), to);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = bf16::from_f32(scale * from);
    }
}

/// The bytes of a vector: four f32, or four pairs of bf16.
type Vector = [u8; 16];

/// Operands as vectors.
fn vectors<E: Element>(numbers: &[E]) -> &[Vector] {
    // SAFETY: an element is f32 or bf16, which have no padding, and bytes need no alignment.
    let bytes =
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers)) };
    let (vectors, rest) = bytes.as_chunks();
    debug_assert!(rest.is_empty(), "panels must be whole vectors");
    vectors
}

/// The matmul with one of the two instructions.
macro_rules! matmul {
    ($name:ident, $features:literal, $instruction:ident) => {
        mod $name {
            use super::*;

            /// Panel by panel; three vectors of columns at a time where that many are left, else
            /// two.
            #[target_feature(enable = $features)]
            pub(super) fn multiply(
                a: &[Vector],
                b: &[Vector],
                width: usize,
                start: Start,
                c: &mut [f32],
            ) {
                let columns = width / LANES;
                let (a, _) = a.as_chunks::<{ ROWS / LANES }>();
                let steps = b.len() / columns;
                for (i, c) in c.chunks_exact_mut(ROWS * width).enumerate() {
                    let a = &a[i * steps..][..steps];
                    let (c, _) = c.as_chunks_mut::<LANES>();
                    let mut column = 0;
                    while column < columns {
                        let left = columns - column;
                        if left % 2 == 1 || left % 3 == 0 {
                            accumulate::<3>(a, b, column, columns, start, c);
                            column += 3;
                        } else {
                            accumulate::<2>(a, b, column, columns, start, c);
                            column += 2;
                        }
                    }
                }
            }

            /// A panel times `N` vectors of columns from `column` on, of `columns`.
            #[target_feature(enable = $features)]
            fn accumulate<const N: usize>(
                a: &[[Vector; ROWS / LANES]],
                b: &[Vector],
                column: usize,
                columns: usize,
                start: Start,
                c: &mut [[f32; LANES]],
            ) {
                let mut sums = init_sums::<N>(start, column, columns, c);
                for (a, b) in a.iter().zip(b.chunks_exact(columns)) {
                    let mut vectors = [vdupq_n_f32(0.0); N];
                    for (vector, b) in vectors.iter_mut().zip(&b[column..column + N]) {
                        *vector = load_vector(b);
                    }
                    for (sums, a) in sums.chunks_exact_mut(LANES).zip(a) {
                        let a = load_vector(a);
                        for (j, b) in vectors.into_iter().enumerate() {
                            sums[0][j] = $instruction::<0>(sums[0][j], b, a);
                            sums[1][j] = $instruction::<1>(sums[1][j], b, a);
                            sums[2][j] = $instruction::<2>(sums[2][j], b, a);
                            sums[3][j] = $instruction::<3>(sums[3][j], b, a);
                        }
                    }
                }
                for (sums, c) in sums.iter().zip(c.chunks_exact_mut(columns)) {
                    for (j, sum) in sums.iter().enumerate() {
                        store(*sum, &mut c[column + j]);
                    }
                }
            }
        }
    };
}

matmul!(with_fmla, "neon", vfmaq_laneq_f32);
matmul!(with_bfdot, "neon,bf16", bfdot);

#[inline]
#[target_feature(enable = "neon")]
fn init_sums<const N: usize>(
    start: Start,
    column: usize,
    columns: usize,
    c: &[[f32; LANES]],
) -> [[float32x4_t; N]; ROWS] {
    let mut sums = [[vdupq_n_f32(0.0); N]; ROWS];
    if matches!(start, Start::Zero) {
        return sums;
    }
    for (sums, c) in sums.iter_mut().zip(c.chunks_exact(columns)) {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = load(&c[column + j]);
        }
    }
    if let Start::Scaled(by) = start {
        let (by, _) = by.as_chunks::<LANES>();
        for sums in &mut sums {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = vmulq_f32(*sum, load(&by[column + j]));
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load(from: &[f32; LANES]) -> float32x4_t {
    // SAFETY: four numbers are valid for reads; the load needs no alignment.
    unsafe { vld1q_f32(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn store(value: float32x4_t, to: &mut [f32; LANES]) {
    // SAFETY: four numbers are valid for writes; the store needs no alignment.
    unsafe { vst1q_f32(to.as_mut_ptr(), value) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_vector(from: &Vector) -> float32x4_t {
    // SAFETY: sixteen bytes are valid for reads, the load needs no alignment, and vectors take any
    // pattern of bits.
    unsafe { vreinterpretq_f32_u8(vld1q_u8(from.as_ptr())) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_half(value: uint16x4_t, to: &mut [bf16; LANES]) {
    // SAFETY: eight bytes are valid for writes, the store needs no alignment, and bf16 is two bytes of
    // any pattern.
    unsafe { vst1_u16(to.as_mut_ptr().cast(), value) }
}

/// Interleaves the lanes of two consecutive steps, as bf16.
#[inline]
#[target_feature(enable = "neon,bf16")]
pub(crate) fn store_pairs(first: float32x4_t, second: float32x4_t, to: &mut [bf16; 2 * LANES]) {
    let (first, second) = (bfcvtn(first), bfcvtn(second));
    let pairs = vcombine_u16(vzip1_u16(first, second), vzip2_u16(first, second));
    // SAFETY: sixteen bytes are valid for writes, the store needs no alignment, and bf16 is two bytes
    // of any pattern.
    unsafe { vst1q_u16(to.as_mut_ptr().cast(), pairs) }
}

/// `sum[i] + b[2 i..][..2] . a[2 I..][..2]`, in bf16.
///
/// Inline assembly because the intrinsic, `vbfdotq_laneq_f32`, and vectors of bf16 are not stable.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfdot<const I: usize>(mut sum: float32x4_t, b: float32x4_t, a: float32x4_t) -> float32x4_t {
    // SAFETY: one instruction of the features above, which accesses only these registers.
    unsafe {
        asm!(
            "bfdot {sum:v}.4s, {b:v}.8h, {a:v}.2h[{i}]",
            sum = inout(vreg) sum,
            b = in(vreg) b,
            a = in(vreg) a,
            i = const I,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Four f32, rounded to the nearest bf16. Inline assembly for the same reason.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfcvtn(value: float32x4_t) -> uint16x4_t {
    let half;
    // SAFETY: one instruction of the features above, which accesses only these registers.
    unsafe {
        asm!(
            "bfcvtn {half:v}.4h, {value:v}.4s",
            half = out(vreg) half,
            value = in(vreg) value,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    half
}
