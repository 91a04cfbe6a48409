//! `y = x W^T + b` with `W` in its stored type, and what is fused behind it.

use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use xc2_kernels::{Epilogue, finish, gemm};

use crate::tensor::Tensor;

/// Outputs that one task computes: it expands that many rows of the matrix and multiplies.
///
/// Few enough that the panel (256 kB for rows of 1024) stays in the second-level cache and that
/// 1024 outputs make sixteen tasks. Fixed, so that the cut does not depend on the thread count.
pub const PANEL: usize = 64;
/// Rows of a panel that are expanded at a time, to be turned while they are in the first-level cache.
const STRIP: usize = 4;

/// A matrix with an optional bias.
///
/// The matrix stays a window into the model file; it is expanded panel by panel within the product,
/// which costs a few percent of its time and saves a second copy of the tower, four bytes a weight.
/// A panel is expanded transposed, since the product takes it as it is then: 104 to 110 GFLOP/s on
/// a core whose peak is 118, against 92 to 96 for a panel of rows.
pub struct Linear {
    /// `[n_out, n_in]` in its stored type.
    weight: Tensor,
    /// `[n_out]`
    bias: Option<Vec<f32>>,
}

/// A thread's buffers, kept for its next task. They are borrowed only where nothing waits for
/// another task, so rayon cannot start a second one in between.
#[derive(Default)]
struct Scratch {
    strip: Vec<f32>,   // [STRIP, n_in]
    weights: Vec<f32>, // [n_in, PANEL]
    product: Vec<f32>, // [n, PANEL]
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Linear {
    /// From a matrix `[n_in, n_out]` (GGUF order) that has been checked, and a bias of `n_out`.
    pub fn new(weight: Tensor, bias: Option<Vec<f32>>) -> Self {
        if let Some(bias) = &bias {
            assert_eq!(bias.len(), weight.n_rows(), "a bias for each output");
        }
        Self { weight, bias }
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.weight.n_cols()
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.weight.n_rows()
    }

    /// Bytes that one thread needs besides input and output, for an input of `n` rows.
    pub fn scratch_bytes(&self, n: usize) -> usize {
        (PANEL.min(self.n_out()) * (self.n_in() + n) + STRIP * self.n_in()) * size_of::<f32>()
    }

    /// `x: [n, n_in]` to `out: [n, n_out]`, rows contiguous; `out` may be part of a wider array.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn forward(&self, x: &ArrayView2<f32>, epilogue: Epilogue, mut out: ArrayViewMut2<f32>) {
        assert_eq!(x.ncols(), self.n_in(), "width of the input");
        assert_eq!(out.dim(), (x.nrows(), self.n_out()), "shape of the output");
        let panels: Vec<_> = out.axis_chunks_iter_mut(Axis(1), PANEL).collect();
        panels
            .into_par_iter()
            .enumerate()
            .with_max_len(1)
            .for_each(|(i, out)| self.panel(i * PANEL, x, epilogue, out));
    }

    /// The outputs from `first` on, as many as `out: [n, ..]` has columns.
    fn panel(
        &self,
        first: usize,
        x: &ArrayView2<f32>,
        then: Epilogue,
        mut out: ArrayViewMut2<f32>,
    ) {
        let (n, width) = out.dim();
        let n_in = self.n_in();
        SCRATCH.with_borrow_mut(|scratch| {
            let weights = sized(&mut scratch.weights, n_in * width);
            self.expand_transposed(first, width, &mut scratch.strip, weights);
            let weights = ArrayView2::from_shape((n_in, width), weights).expect("just sized");

            let product = sized(&mut scratch.product, n * width);
            let mut result = ArrayViewMut2::from_shape((n, width), product).expect("just sized");
            gemm(1.0, x, &weights, &mut result);
            let product = &mut scratch.product[..n * width];

            let bias = self.bias.as_ref().map(|b| &b[first..first + width]);
            finish(product, width, bias, then, &mut out);
        });
    }

    /// Rows `first..first + width` as the columns of `out: [n_in, width]`.
    fn expand_transposed(&self, first: usize, width: usize, strip: &mut Vec<f32>, out: &mut [f32]) {
        let n_in = self.n_in();
        for column in (0..width).step_by(STRIP) {
            let n_rows = STRIP.min(width - column);
            let strip = sized(strip, n_rows * n_in);
            let row = first + column;
            self.weight.rows_into(row..row + n_rows, strip);
            for (k, out) in out.chunks_exact_mut(width).enumerate() {
                for (r, value) in out[column..column + n_rows].iter_mut().enumerate() {
                    *value = strip[r * n_in + k];
                }
            }
        }
    }
}

/// The first `len` numbers, which may hold anything.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ndarray::{Array2, s};

    use super::*;
    use xc2_kernels::activation;

    use crate::quant::{GgmlType, quantize_rows};
    use xc2_kernels::testing::{max_diff, noise, with_threads};

    fn linear(ty: GgmlType, n_in: usize, n_out: usize, bias: bool) -> Linear {
        let values = noise(n_out, n_in, 7).into_raw_vec_and_offset().0;
        let mut data = vec![0; ty.row_bytes(n_in).unwrap() * n_out];
        quantize_rows(ty, &values, n_in, &mut data);
        let weight = Tensor {
            name: "test".to_owned(),
            ty,
            shape: vec![n_in, n_out],
            data: Bytes::from(data),
        };
        let bias = bias.then(|| noise(1, n_out, 8).into_raw_vec_and_offset().0);
        Linear::new(weight, bias)
    }

    /// Plain loops over the expanded matrix.
    fn reference(linear: &Linear, x: &Array2<f32>, then: Epilogue, out: &mut Array2<f32>) {
        let weights = linear.weight.to_f32();
        for ((i, j), out) in out.indexed_iter_mut() {
            let row = &weights[j * linear.n_in()..][..linear.n_in()];
            let dot: f64 = row
                .iter()
                .zip(x.row(i))
                .map(|(w, x)| f64::from(w * x))
                .sum();
            let mut value = [dot as f32 + linear.bias.as_ref().map_or(0.0, |b| b[j])];
            match then {
                Epilogue::Store => {}
                Epilogue::Add => value[0] += *out,
                Epilogue::QuickGelu => activation::quick_gelu(&mut value),
                Epilogue::Gelu => activation::gelu(&mut value),
            }
            *out = value[0];
        }
    }

    #[test]
    fn equals_plain_loops_for_every_type_epilogue_and_panel_edge() {
        use Epilogue::{Add, Gelu, QuickGelu, Store};
        let types = GgmlType::all().filter(|&ty| ty != GgmlType::I8);
        let mut failures = Vec::new();
        for (ty, then) in types.flat_map(|ty| [Store, Add, QuickGelu, Gelu].map(|e| (ty, e))) {
            for n_out in [1, PANEL - 1, PANEL, PANEL + 1] {
                let linear = linear(ty, 256, n_out, then != Store);
                let x = noise(5, 256, 9);
                let before = noise(5, n_out, 10);
                let (mut found, mut expected) = (before.clone(), before);
                linear.forward(&x.view(), then, found.view_mut());
                reference(&linear, &x, then, &mut expected);
                let diff = max_diff(&found, &expected);
                if diff > 1e-4 {
                    failures.push((ty, then, n_out, diff));
                }
            }
        }
        assert!(failures.is_empty(), "{failures:?}");
    }

    #[test]
    fn a_slice_of_a_wider_array_may_take_the_result() {
        let linear = linear(GgmlType::F16, 64, 200, true);
        let x = noise(4, 64, 1);
        let mut alone = Array2::zeros((4, 200));
        linear.forward(&x.view(), Epilogue::Store, alone.view_mut());
        let mut wide = Array2::from_elem((4, 600), 9.0);
        linear.forward(&x.view(), Epilogue::Store, wide.slice_mut(s![.., 200..400]));
        assert_eq!(wide.slice(s![.., 200..400]), alone);
        assert!(wide.slice(s![.., ..200]).iter().all(|&v| v == 9.0));
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let linear = linear(GgmlType::Q8_0, 96, 700, true);
        let x = noise(37, 96, 2);
        let run = || {
            let mut out = Array2::zeros((37, 700));
            linear.forward(&x.view(), Epilogue::QuickGelu, out.view_mut());
            out
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
