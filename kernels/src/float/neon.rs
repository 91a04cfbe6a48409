//! NEON as every AArch64 CPU has it: `fcvtl` and `fmla`, four elements at a time.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::Float16Slice;
use super::gemv::{self, Float16Gemv, Vector};
use super::kernel::FloatOps;
use crate::Cpu;

pub static OPS: FloatOps = FloatOps {
    cpu: Cpu::Neon,
    gemv,
    to_f32,
};

/// # Safety
/// As [`FloatOps::gemv`].
#[target_feature(enable = "neon")]
unsafe fn gemv(of: &Float16Gemv) {
    // SAFETY: compiled for these instructions; the rest is the caller's promise.
    unsafe { gemv::gemv::<float32x4_t, 4>(of) }
}

/// # Safety
/// As [`FloatOps::to_f32`].
#[target_feature(enable = "neon")]
unsafe fn to_f32(from: Float16Slice, to: &mut [f32]) {
    // SAFETY: compiled for these instructions.
    unsafe { gemv::to_f32::<float32x4_t>(from, to) }
}

// SAFETY: each function accesses four elements.
unsafe impl Vector for float32x4_t {
    const LANES: usize = 4;
    const SUM_REGISTERS: usize = 24;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait requires; also for all below.
        unsafe { vdupq_n_f32(0.0) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as above. Inline assembly because the intrinsic is not stable; it accesses only
        // its registers.
        unsafe {
            let (f16s, numbers): (_, Self);
            f16s = vld1_u16(from.cast());
            asm!(
                "fcvtl {numbers:v}.4s, {f16s:v}.4h",
                numbers = lateout(vreg) numbers,
                f16s = in(vreg) f16s,
                options(pure, nomem, nostack, preserves_flags)
            );
            numbers
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above. A bf16 is the upper half of an f32.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { vst1q_f32(to, self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as above.
        unsafe { vfmaq_f32(to, self, by) }
    }
}
