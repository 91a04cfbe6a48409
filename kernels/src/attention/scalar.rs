//! Plain Rust: the reference implementation.

use super::{RunningSoftmax, Softmax};
use crate::tile::{Element, Scalar};

impl<E: Element> Softmax for Scalar<E> {
    fn update(self, scores: &[f32], width: usize, running: &mut RunningSoftmax, weights: &mut [E]) {
        let unit = running.unit;
        let max = &mut running.max[..width];
        let rescale = &mut running.rescale[..width];
        rescale.copy_from_slice(max);
        for scores in scores.chunks_exact(width) {
            for (max, &s) in max.iter_mut().zip(scores) {
                let s = s * unit;
                *max = if s > *max { s } else { *max };
            }
        }
        let sum = &mut running.sum[..width];
        for ((rescale, max), sum) in rescale.iter_mut().zip(&*max).zip(&mut *sum) {
            *rescale = exp2(*rescale - max);
            *sum *= *rescale;
        }
        for (key, scores) in scores.chunks_exact(width).enumerate() {
            let weights = &mut weights[key / E::GROUP * width * E::GROUP + key % E::GROUP..];
            for (i, score) in scores.iter().enumerate() {
                let weight = exp2(score * unit - max[i]);
                sum[i] += weight;
                weights[i * E::GROUP] = E::from_f32(weight);
            }
        }
    }
}

/// `2^x` for `x <= 0`, within 2 ULP; below -126 it gives 1.2e-38 instead of a subnormal or zero.
///
/// The nearest integer goes into the exponent. The rest, at most a half, goes into the polynomial
/// with the smallest relative error (2e-9) of those of this degree that give 1 at 0.
#[inline(always)]
pub(super) fn exp2(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

    // Not `max`, which would turn NaN into a number.
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = POLYNOMIAL[0];
    for c in &POLYNOMIAL[1..] {
        p = p * r + c;
    }
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    p * f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// Coefficients for `2^r` with `|r| <= 1/2`, highest power first.
pub(super) const POLYNOMIAL: [f32; 7] = [
    1.535_336_2e-4,
    1.339_887_4e-3,
    9.618_437e-3,
    5.550_332_5e-2,
    0.240_226_48,
    std::f32::consts::LN_2,
    1.0,
];
