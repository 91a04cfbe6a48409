//! AVX-512: `vcvtph2ps` and FMA, sixteen elements at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::Float16Slice;
use super::gemv::{self, Float16Gemv, Vector};
use super::kernel::FloatOps;
use crate::Cpu;

pub static OPS: FloatOps = FloatOps {
    cpu: Cpu::Avx512,
    gemv,
    to_f32,
};

/// # Safety
/// As [`FloatOps::gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn gemv(of: &Float16Gemv) {
    // SAFETY: compiled for these instructions; the rest is the caller's promise.
    unsafe { gemv::gemv::<__m512, 1>(of) }
}

/// # Safety
/// As [`FloatOps::to_f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn to_f32(from: Float16Slice, to: &mut [f32]) {
    // SAFETY: compiled for these instructions.
    unsafe { gemv::to_f32::<__m512>(from, to) }
}

// SAFETY: each function accesses sixteen elements.
unsafe impl Vector for __m512 {
    const LANES: usize = 16;
    const SUM_REGISTERS: usize = 24;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait requires; also for all below.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above. A bf16 is the upper half of an f32.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(self, by, to) }
    }
}
