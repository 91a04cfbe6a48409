//! Quantization of f32 to int8, the first step of every int8 matmul.

/// Blocks whose largest magnitude is below this become zero: the reciprocal of the scale would be
/// infinite, and such a block adds nothing to an f32 sum.
pub const MIN_MAGNITUDE: f32 = 1e-30;
/// 1.5 * 2^23. Adding it leaves the nearest integer in the low bits of the sum.
pub const ROUND: f32 = 12_582_912.0;

/// Quantizes a block and returns the scale, which is the largest magnitude divided by 127. If the
/// block holds a NaN or an infinity, the scale is not finite.
#[inline(always)]
pub fn quantize_block<const N: usize>(block: &[f32; N], values: &mut [i8; N]) -> f32 {
    // The bits of non-negative floats, compared as integers, have the order of the floats, with
    // infinity and NaN on top. So both survive the maximum and give a scale that is not finite.
    let bits = block
        .iter()
        .fold(0, |max, v| (v.to_bits() & 0x7fff_ffff).max(max));
    let largest = f32::from_bits(bits);
    let (scale, inverse) = if largest < MIN_MAGNITUDE {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    for (value, v) in values.iter_mut().zip(block) {
        *value = (v * inverse + ROUND)
            .to_bits()
            .wrapping_sub(ROUND.to_bits()) as i8;
    }
    scale
}
