//! AArch64: NEON, with the dot product and matrix multiply instructions that the CPU has.
//!
//! The int8 and bf16 instructions have no stable intrinsics, so they are inline assembly.
#![allow(unsafe_code)]

use std::arch::{aarch64::*, asm, is_aarch64_feature_detected as has};

use super::{Loop, repeat};

pub fn f32_loop() -> Option<Loop> {
    Some(Loop {
        run: || repeat!(f32x4(0.0), |sum| multiply_add(sum)),
        operations: 2 * 4,
    })
}

pub fn bf16_loop() -> Option<Loop> {
    // SAFETY: just detected.
    let run = || unsafe { bf16() };
    has!("bf16").then_some(Loop {
        run,
        operations: 2 * 2 * 4,
    })
}

pub fn int8_loop() -> Option<Loop> {
    if has!("i8mm") {
        // SAFETY: just detected.
        let run = || unsafe { int8_i8mm() };
        // Two rows of eight by two columns.
        return Some(Loop {
            run,
            operations: 2 * 2 * 2 * 8,
        });
    }
    // SAFETY: just detected.
    let run = || unsafe { int8_dotprod() };
    has!("dotprod").then_some(Loop {
        run,
        operations: 2 * 4 * 4,
    })
}

fn f32x4(value: f32) -> float32x4_t {
    // SAFETY: every AArch64 CPU has NEON.
    unsafe { vdupq_n_f32(value) }
}

#[inline(always)]
fn multiply_add(sum: float32x4_t) -> float32x4_t {
    // SAFETY: every AArch64 CPU has NEON.
    unsafe { vfmaq_f32(f32x4(0.25), sum, f32x4(0.5)) }
}

/// One instruction `sum += a * b` on registers.
macro_rules! step {
    ($text:literal, $sum:ident, $a:ident) => {{
        let mut sum = $sum;
        // SAFETY: it accesses only the named registers, and the enclosing function is called only
        // where the CPU has the instruction.
        unsafe {
            asm!($text, sum = inout(vreg) sum, a = in(vreg) $a,
                 options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }};
}

#[target_feature(enable = "neon,bf16")]
fn bf16() {
    let a = vdupq_n_u16(0x3f00); // 0.5
    repeat!(vdupq_n_f32(0.0), |sum| step!(
        "bfdot {sum:v}.4s, {a:v}.8h, {a:v}.8h",
        sum,
        a
    ));
}

#[target_feature(enable = "neon,dotprod")]
fn int8_dotprod() {
    let a = vdupq_n_s8(3);
    repeat!(vdupq_n_s32(0), |sum| step!(
        "sdot {sum:v}.4s, {a:v}.16b, {a:v}.16b",
        sum,
        a
    ));
}

#[target_feature(enable = "neon,i8mm")]
fn int8_i8mm() {
    let a = vdupq_n_s8(3);
    repeat!(vdupq_n_s32(0), |sum| step!(
        "smmla {sum:v}.4s, {a:v}.16b, {a:v}.16b",
        sum,
        a
    ));
}
