//! Layer normalization of rows.

use ndarray::{Array2, ArrayView2, Axis, Zip};

use crate::quantized::{OwnedQuantizedActivations, QuantScheme};
use crate::vectorized;

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, for each row.
pub struct LayerNorm {
    /// `[n_embd]`
    pub weight: Vec<f32>,
    /// `[n_embd]`
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

/// Independent partial sums: enough to fill vector registers, always combined in the same order.
const LANES: usize = 16;

impl LayerNorm {
    /// Normalizes the rows of `x` into `out`, both `[n, n_embd]` with contiguous rows.
    pub fn forward(&self, x: &ArrayView2<f32>, out: &mut Array2<f32>) {
        Zip::from(out.axis_iter_mut(Axis(0)))
            .and(x.axis_iter(Axis(0)))
            .par_for_each(|mut out, x| {
                let x = x.to_slice().expect("rows must be contiguous");
                let out = out.as_slice_mut().expect("rows must be contiguous");
                vectorized(|| self.row(x, out));
            });
    }

    /// Normalizes the rows of `x: [n, n_embd]`, contiguous, and quantizes them for a matmul, in a
    /// fine scheme.
    ///
    /// # Panics
    /// If the scheme is not fine, or `n_embd` is not a multiple of the block size.
    pub fn quantize(
        &self,
        x: &ArrayView2<f32>,
        scheme: QuantScheme,
        out: &mut OwnedQuantizedActivations,
    ) {
        out.fill(x.dim(), scheme, |i, row| {
            let x = x.row(i);
            self.row(x.to_slice().expect("rows must be contiguous"), row);
        });
    }

    /// The same in place.
    pub fn forward_in_place(&self, x: &mut Array2<f32>) {
        Zip::from(x.axis_iter_mut(Axis(0))).par_for_each(|mut row| {
            let row = row.as_slice_mut().expect("rows must be contiguous");
            let x = row.to_vec();
            vectorized(|| self.row(&x, row));
        });
    }

    /// Two passes: first the mean, then the variance of the differences, which loses no digits to a
    /// large mean.
    #[inline(always)]
    fn row(&self, x: &[f32], out: &mut [f32]) {
        let n = x.len() as f32;
        let mean = sum(x, |v| v) / n;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / n;
        let scale = 1.0 / (variance + self.eps).sqrt();
        let affine = self.weight.iter().zip(&self.bias);
        for ((out, x), (weight, bias)) in out.iter_mut().zip(x).zip(affine) {
            *out = (x - mean) * scale * weight + bias;
        }
    }
}

/// The sum of `f` over all values, in an order that depends only on their number.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&v| f(v)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantized::{QuantFormat, QuantizedKernel};
    use crate::testing::{max_diff, noise};

    fn reference(norm: &LayerNorm, x: &Array2<f32>) -> Array2<f32> {
        Array2::from_shape_fn(x.dim(), |(i, j)| {
            let row: Vec<f64> = x.row(i).iter().map(|&v| f64::from(v)).collect();
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let unit = (row[j] - mean) / (variance + f64::from(norm.eps)).sqrt();
            (unit * f64::from(norm.weight[j]) + f64::from(norm.bias[j])) as f32
        })
    }

    #[test]
    fn equals_the_definition_at_every_tail_and_with_a_large_mean() {
        for n_embd in (1..70).chain([128, 1024]) {
            let norm = LayerNorm {
                weight: noise(1, n_embd, 3).into_raw_vec_and_offset().0,
                bias: noise(1, n_embd, 4).into_raw_vec_and_offset().0,
                eps: 1e-5,
            };
            let x = noise(3, n_embd, 5) + 10.0;
            let mut out = Array2::zeros(x.dim());
            norm.forward(&x.view(), &mut out);
            assert!(max_diff(&out, &reference(&norm, &x)) < 1e-4, "{n_embd}");
            let mut in_place = x;
            norm.forward_in_place(&mut in_place);
            assert_eq!(in_place, out, "{n_embd}");
        }
    }

    #[test]
    fn quantize_equals_forward_then_quantize() {
        let norm = LayerNorm {
            weight: noise(1, 96, 3).into_raw_vec_and_offset().0,
            bias: noise(1, 96, 4).into_raw_vec_and_offset().0,
            eps: 1e-5,
        };
        let scheme = QuantFormat::Q4K.scheme().with_fine_activations();
        let kernel = QuantizedKernel::fine();
        let x = noise(13, 96, 5);
        let mut out = Array2::zeros(x.dim());
        norm.forward(&x.view(), &mut out);
        let [mut expected, mut found] = [0; 2].map(|_| OwnedQuantizedActivations::default());
        expected.quantize(&out.view(), scheme, kernel);
        norm.quantize(&x.view(), scheme, &mut found);
        for i in 0..x.nrows() {
            assert_eq!(found.to_f32(i), expected.to_f32(i), "row {i}");
        }
    }
}
