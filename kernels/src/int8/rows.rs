//! Activations, quantized to int8 in blocks.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::BLOCK;
use crate::vectorized;

/// Rows of numbers in int8 with a scale for each block of [`BLOCK`].
///
/// A number is `scale * value` with `value` in -127..=127, the nearest one, and `scale` the largest
/// absolute value of the block divided by 127: llama.cpp's Q8_0 with the scale in f32.
#[derive(Default)]
pub struct QuantizedRows {
    width: usize,
    /// `[n, width]`
    values: Vec<i8>,
    /// `[n, width / BLOCK]`
    scales: Vec<f32>,
    /// `-128 * sum of values`, for kernels whose weights are 128 too large: `[n, width / BLOCK]`.
    offsets: Vec<i32>,
}

impl QuantizedRows {
    /// Rows of `x: [n, width]`, in place of those that were here before; no allocation if they fit.
    ///
    /// # Panics
    /// If a row is not whole blocks or not contiguous.
    pub fn quantize(&mut self, x: &ArrayView2<f32>) {
        let (n, width) = x.dim();
        self.resize(n, width);
        if n * width == 0 {
            return;
        }
        let blocks = width / BLOCK;
        let rows = self.values.par_chunks_exact_mut(width);
        let scales = self.scales.par_chunks_exact_mut(blocks);
        let offsets = self.offsets.par_chunks_exact_mut(blocks);
        (rows, scales, offsets)
            .into_par_iter()
            .enumerate()
            .for_each(|(i, (values, scales, offsets))| {
                let row = x.row(i);
                let row = row.to_slice().expect("rows are contiguous");
                vectorized(|| quantize_row(row, values, scales, offsets));
            });
    }

    /// Bytes of `[n, width]`.
    pub fn bytes(n: usize, width: usize) -> usize {
        n * width + n * width / BLOCK * (size_of::<f32>() + size_of::<i32>())
    }

    /// Makes room for `[n, width]`; what is there is left as it is.
    fn resize(&mut self, n: usize, width: usize) {
        assert_eq!(width % BLOCK, 0, "whole blocks of {BLOCK}");
        self.width = width;
        self.values.resize(n * width, 0);
        self.scales.resize(n * width / BLOCK, 0.0);
        self.offsets.resize(n * width / BLOCK, 0);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values, scales and offsets from a row on.
    pub(super) fn from(&self, row: usize) -> (&[i8], &[f32], &[i32]) {
        let blocks = self.width / BLOCK;
        (
            &self.values[row * self.width..],
            &self.scales[row * blocks..],
            &self.offsets[row * blocks..],
        )
    }

    /// Row `i` as numbers again.
    pub fn to_f32(&self, i: usize) -> Vec<f32> {
        let (values, scales, _) = self.from(i);
        let numbers = values[..self.width].iter().enumerate();
        numbers
            .map(|(k, &v)| f32::from(v) * scales[k / BLOCK])
            .collect()
    }
}

/// One row: `values` as long as `row`, one scale and offset for each block.
#[inline(always)]
fn quantize_row(row: &[f32], values: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
    let (rows, _) = row.as_chunks::<BLOCK>();
    let (values, _) = values.as_chunks_mut::<BLOCK>();
    for (((block, values), scale), offset) in rows.iter().zip(values).zip(scales).zip(offsets) {
        (*scale, *offset) = quantize_block(block, values);
    }
}

/// Gives the scale and -128 times the sum of the values.
#[inline(always)]
fn quantize_block(block: &[f32; BLOCK], values: &mut [i8; BLOCK]) -> (f32, i32) {
    /// Adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    /// Below it the reciprocal is infinite; such a block is zero in every sum of a f32.
    const LEAST: f32 = 1e-30;

    // As whole numbers the bits of absolute values have their order, with infinity and then NaN on
    // top: neither is lost, and neither is a finite scale.
    let bits = block
        .iter()
        .fold(0, |max, v| (v.to_bits() & 0x7fff_ffff).max(max));
    let largest = f32::from_bits(bits);
    let (scale, inverse) = if largest < LEAST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    let mut sum = 0;
    for (value, v) in values.iter_mut().zip(block) {
        let rounded = (v * inverse + ROUND)
            .to_bits()
            .wrapping_sub(ROUND.to_bits()) as i8;
        *value = rounded;
        sum += i32::from(rounded);
    }
    (scale, -128 * sum)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::testing::noise;

    fn quantized(x: &Array2<f32>) -> QuantizedRows {
        let mut rows = QuantizedRows::default();
        rows.quantize(&x.view());
        rows
    }

    #[test]
    fn every_number_is_within_half_a_step_of_its_block() {
        let mut x = noise(3, 96, 1);
        x[[1, 40]] = 500.0; // an outlier coarsens its own block only
        let rows = quantized(&x);
        for (i, row) in x.rows().into_iter().enumerate() {
            let found = rows.to_f32(i);
            for (k, (&v, w)) in row.iter().zip(&found).enumerate() {
                let block = row.iter().skip(k / BLOCK * BLOCK).take(BLOCK);
                let step = block.fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
                assert!(
                    (v - w).abs() <= 0.501 * step,
                    "row {i}, column {k}: {v} became {w}"
                );
            }
        }
    }

    #[test]
    fn the_offset_is_minus_128_times_the_sum() {
        let rows = quantized(&noise(2, 64, 3));
        let (values, _, offsets) = rows.from(0);
        for (block, offset) in values.chunks(BLOCK).zip(offsets) {
            assert_eq!(
                *offset,
                -128 * block.iter().map(|&v| i32::from(v)).sum::<i32>()
            );
        }
    }

    #[test]
    fn zeros_and_the_smallest_numbers_become_zero() {
        let mut x = Array2::zeros((1, 64));
        x[[0, 33]] = 1e-38;
        assert!(quantized(&x).to_f32(0).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn what_is_no_finite_number_leaves_no_finite_scale() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = noise(1, 64, 5);
            x[[0, 7]] = bad;
            let rows = quantized(&x);
            assert!(!rows.scales[0].is_finite(), "{bad}");
            assert!(rows.scales[1].is_finite(), "{bad}");
        }
    }
}
