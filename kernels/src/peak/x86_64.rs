//! x86-64: the widest of AMX (for int8), AVX-512 and AVX2.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Loop, repeat};

/// Returns the loop if the CPU has the features that its function is compiled for. The features are
/// listed twice, here and at the function.
macro_rules! with {
    ($($feature:tt),+ => $run:ident, $operations:expr) => {
        if $(is_x86_feature_detected!($feature))&&+ {
            // SAFETY: just detected.
            let run = || unsafe { $run() };
            return Some(Loop { run, operations: $operations });
        }
    };
}

pub fn f32_loop() -> Option<Loop> {
    with!("avx512f" => f32_avx512, 2 * 16);
    with!("avx2", "fma" => f32_avx2, 2 * 8);
    None
}

pub fn bf16_loop() -> Option<Loop> {
    with!("avx512f", "avx512bf16" => bf16_avx512, 4 * 16);
    None
}

pub fn int8_loop() -> Option<Loop> {
    if crate::amx::is_available() {
        // SAFETY: just checked.
        let run = || unsafe { int8_amx() };
        return Some(Loop {
            run,
            operations: 2 * 16 * 16 * 64 / TILE_STEPS,
        });
    }
    with!("avx512f", "avx512vnni" => int8_avx512, 8 * 16);
    with!("avx2", "avxvnni" => int8_avx_vnni, 8 * 8);
    with!("avx2" => int8_avx2, 8 * 8);
    None
}

#[target_feature(enable = "avx512f")]
fn f32_avx512() {
    let (a, b) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
    repeat!(_mm512_setzero_ps(), |sum| _mm512_fmadd_ps(sum, a, b));
}

#[target_feature(enable = "avx2,fma")]
fn f32_avx2() {
    let (a, b) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
    repeat!(_mm256_setzero_ps(), |sum| _mm256_fmadd_ps(sum, a, b));
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_avx512() {
    let a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
    repeat!(_mm512_setzero_ps(), |sum| _mm512_dpbf16_ps(sum, a, a));
}

/// Instructions of the other loops that one tile product replaces: it takes sixteen cycles.
const TILE_STEPS: usize = 16;

/// # Safety
/// AMX is available.
unsafe fn int8_amx() {
    // SAFETY: the caller's promise. The tiles hold zeros, and no other code uses them meanwhile.
    unsafe {
        let _guard = crate::amx::TileConfigGuard::configure();
        for _ in 0..super::STEPS * super::SUMS / TILE_STEPS / 4 {
            std::arch::asm!(
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_avx512() {
    let (a, b) = (_mm512_set1_epi8(3), _mm512_set1_epi8(-5));
    repeat!(_mm512_setzero_si512(), |sum| _mm512_dpbusd_epi32(sum, a, b));
}

#[target_feature(enable = "avx2,avxvnni")]
fn int8_avx_vnni() {
    let (a, b) = (_mm256_set1_epi8(3), _mm256_set1_epi8(-5));
    repeat!(_mm256_setzero_si256(), |sum| _mm256_dpbusd_avx_epi32(
        sum, a, b
    ));
}

/// Three instructions for what VNNI does in one. One operand is the sum; otherwise the compiler
/// would hoist them out of the loop.
#[target_feature(enable = "avx2")]
fn int8_avx2() {
    let (a, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    repeat!(_mm256_setzero_si256(), |sum| _mm256_add_epi32(
        sum,
        _mm256_madd_epi16(_mm256_maddubs_epi16(a, sum), ones)
    ));
}
