//! Plain Rust: the reference implementation.
#![allow(unsafe_code)]

use half::{bf16, f16};

use super::gemv::{self, Vector};
use super::kernel::FloatOps;
use crate::Cpu;

pub static OPS: FloatOps = FloatOps {
    cpu: Cpu::Scalar,
    gemv: gemv::gemv::<f32, 16>,
    to_f32: gemv::to_f32::<f32>,
};

// SAFETY: each function accesses one element.
unsafe impl Vector for f32 {
    const LANES: usize = 1;
    const SUM_REGISTERS: usize = 384;

    #[inline(always)]
    unsafe fn zero() -> Self {
        0.0
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the trait requires; also for all below.
        unsafe { from.read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as above.
        unsafe { from.read_unaligned().to_f32() }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above.
        unsafe { from.read_unaligned().to_f32() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        self * by + to
    }
}
