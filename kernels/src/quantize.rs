//! Numbers to 8 bits: what every product with integers begins with.

/// Below it the reciprocal is infinite; such a block is zero in every sum of a f32.
pub const MIN_MAGNITUDE: f32 = 1e-30;
/// 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum.
pub const ROUND: f32 = 12_582_912.0;

/// Rounds a block to steps of a 127th of its largest number, and gives the step; it is not finite where
/// the block has a number that is not.
#[inline(always)]
pub fn quantize_block<const N: usize>(block: &[f32; N], values: &mut [i8; N]) -> f32 {
    // As whole numbers the bits of absolute values have their order, with infinity and then NaN on
    // top: neither is lost, and neither is a finite scale.
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
