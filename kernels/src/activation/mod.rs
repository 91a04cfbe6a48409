//! Element-wise functions over slices, written so that the compiler vectorizes them.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::vectorized;

/// `e^x` for finite `x`, within 2 ULP; below -87.3 it gives 1.2e-38 instead of a subnormal or zero.
///
/// Cody and Waite: `x = n ln 2 + r`, `|r| <= ln 2 / 2`; then a polynomial for `e^r`, and `n` goes
/// into the exponent. The polynomial is that of Cephes' `expf` (S. Moshier). The standard library's
/// `exp` is a function call per number, too slow for the 600 million exponentials of a picture's
/// attention.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

    let x = x.clamp(-87.3, 88.7);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * r + c;
    }
    let e_r = p * r * r + r + 1.0;
    // 2^n in two factors: `n` is up to 128, and 2^128 does not fit in f32.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    e_r * power(half) * power(n - half)
}

/// CLIP's approximation of GELU: `x * sigmoid(1.702 x)`.
pub fn quick_gelu(values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::Cpu::chosen() >= crate::Cpu::Avx512 {
        return avx512::quick_gelu(values);
    }
    quick_gelu_anywhere(values);
}

/// The same in plain Rust.
fn quick_gelu_anywhere(values: &mut [f32]) {
    vectorized(|| {
        for x in values {
            *x /= 1.0 + exp(-1.702 * *x);
        }
    });
}

/// Exact GELU, `x / 2 * (1 + erf(x / sqrt 2))`: PyTorch's `nn.GELU()`.
pub fn gelu(values: &mut [f32]) {
    vectorized(|| {
        for x in values {
            *x *= 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    });
}

/// The error function, within 3e-7.
///
/// Abramowitz and Stegun 7.1.26: `1 - (a1 t + ... + a5 t^5) e^(-x^2)`, `t = 1 / (1 + p |x|)`. Its
/// own error is 1.5e-7; the rest is rounding.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let mut p = 1.061_405_4_f32;
    for a in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + a;
    }
    let e = exp(-size * size);
    (1.0 - p * t * e).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every hundredth in -120..120, and numbers at the edges of the range reduction.
    fn samples() -> impl Iterator<Item = f32> {
        (-12_000..=12_000).map(|i| i as f32 / 100.0).chain([
            -0.0,
            1e-30,
            -1e-30,
            0.346_573_6,
            -0.346_573_6,
            88.7,
            -87.3,
        ])
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for x in samples().filter(|x| (-87.3..=88.7).contains(x)) {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}): {error:e}");
        }
    }

    #[test]
    fn exp_saturates_and_never_gives_infinity() {
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 1e-37);
        assert!(exp(1e30).is_finite() && exp(1e30) > 1e38);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_its_bound() {
        for x in samples() {
            let error = f64::from(erf(x)) - libm::erf(f64::from(x));
            assert!(error.abs() < 3e-7, "erf({x}): {error:e}");
        }
        assert!(erf(f32::NAN).is_nan());
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
    }

    #[test]
    fn both_gelus_follow_their_definitions() {
        for quick_gelu in [quick_gelu, quick_gelu_anywhere] {
            let mut found: Vec<f32> = samples().collect();
            quick_gelu(&mut found);
            for (x, found) in samples().zip(found) {
                let x = f64::from(x);
                let expected = x / (1.0 + (-1.702 * x).exp());
                let error = (f64::from(found) - expected).abs();
                assert!(error < 1e-6 * (1.0 + x.abs()), "{x}: {found}");
            }
        }
        for x in samples() {
            let t = f64::from(x);
            let mut found = [x];
            gelu(&mut found);
            let expected = 0.5 * t * (1.0 + libm::erf(t / 2.0_f64.sqrt()));
            assert!(
                (f64::from(found[0]) - expected).abs() < 1e-6 * (1.0 + t.abs()),
                "{x}"
            );
        }
    }

    #[test]
    fn quick_gelu_handles_limits_and_every_tail() {
        for quick_gelu in [quick_gelu, quick_gelu_anywhere] {
            let expected = 2.0 / (1.0 + (-3.404_f32).exp());
            for len in 0..40 {
                let mut found = vec![2.0; len];
                quick_gelu(&mut found);
                let near = |v: &f32| (v - expected).abs() < 1e-6;
                assert!(found.iter().all(near), "{len}");
            }
            let mut found = [f32::NAN, f32::INFINITY, 3e38, -3e38];
            quick_gelu(&mut found);
            assert!(found[0].is_nan());
            assert_eq!(found[1..3], [f32::INFINITY, 3e38]);
            assert!(found[3] <= 0.0 && found[3] > -1e10);
        }
    }
}
