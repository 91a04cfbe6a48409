//! AVX2, FMA and F16C: eight elements at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::Float16Slice;
use super::gemv::{self, Float16Gemv, Vector};
use super::kernel::FloatOps;
use crate::Cpu;

pub static OPS: FloatOps = FloatOps {
    cpu: Cpu::Avx2,
    gemv,
    to_f32,
};

/// # Safety
/// As [`FloatOps::gemv`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn gemv(of: &Float16Gemv) {
    // SAFETY: compiled for these instructions; the rest is the caller's promise.
    unsafe { gemv::gemv::<__m256, 2>(of) }
}

/// # Safety
/// As [`FloatOps::to_f32`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn to_f32(from: Float16Slice, to: &mut [f32]) {
    // SAFETY: compiled for these instructions.
    unsafe { gemv::to_f32::<__m256>(from, to) }
}

// SAFETY: each function accesses eight elements.
unsafe impl Vector for __m256 {
    const LANES: usize = 8;
    const SUM_REGISTERS: usize = 12;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait requires; also for all below.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above. A bf16 is the upper half of an f32.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(self, by, to) }
    }
}
