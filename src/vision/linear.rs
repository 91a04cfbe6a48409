//! `y = x W^T + b` with `W` in its stored type and a fused epilogue.

use std::{ops::Range, sync::OnceLock};

use ndarray::{ArrayView2, ArrayViewMut2};
use xc2_kernels::{
    Cpu, Epilogue,
    bf16::Bf16Matrix,
    float,
    int8::{self, Int8Kernel, Int8Matrix, QuantizedRows},
};

use super::{Precision, arena::WideBuffer};
use crate::model::{quant::GgmlType, tensor::Tensor};

/// A linear layer with an optional bias, from one weight tensor or several with the same input.
///
/// At the first matmul, Q8_0 is packed for the int8 kernels, and BF16 for the bf16 kernels where those are faster than
/// f32's; then the mapped pages are released. Every other type stays mapped and is dequantized within the matmul.
pub struct Linear {
    /// Each `[n_out, n_in]` in its stored type; stacked from the top they are the matrix.
    parts: Vec<Tensor>,
    /// `[n_out]`
    bias: Option<Vec<f32>>,
    backend: Backend,
}

/// The kernels that multiply a matrix. Its packed form is made at the first matmul.
enum Backend {
    F32,
    Int8(OnceLock<Int8Matrix>),
    Bf16(OnceLock<Bf16Matrix>),
}

/// The input of a matmul, `[n, n_in]`.
pub enum LinearInput<'a> {
    /// In f32, rows contiguous.
    F32(ArrayView2<'a, f32>),
    /// Quantized for int8 kernels.
    Int8(&'a QuantizedRows),
}

impl<'a> LinearInput<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.nrows(),
            Self::Int8(x) => x.len(),
        }
    }

    /// Converts `x` to the form that `linear` takes; `quantized` is the buffer for int8.
    pub fn of(x: ArrayView2<'a, f32>, linear: &Linear, quantized: &'a mut QuantizedRows) -> Self {
        match linear.int8_kernel() {
            None => Self::F32(x),
            Some(kernel) => {
                quantized.quantize(&x, kernel);
                Self::Int8(quantized)
            }
        }
    }
}

impl Linear {
    /// A layer from checked matrices `[n_in, n_out]` (GGUF order) and a bias for all outputs.
    pub fn new(parts: Vec<Tensor>, bias: Option<Vec<f32>>, precision: Precision) -> Self {
        let n_in = parts[0].n_cols();
        assert!(
            parts.iter().all(|p| p.n_cols() == n_in),
            "the same input width"
        );
        let all = |ty| precision == Precision::Stored && parts.iter().all(|p| p.ty == ty);
        let backend = if all(GgmlType::Q8_0) {
            Backend::Int8(OnceLock::new())
        } else if all(GgmlType::BF16) && Bf16Matrix::is_fast() {
            Backend::Bf16(OnceLock::new())
        } else {
            Backend::F32
        };
        let linear = Self {
            parts,
            bias,
            backend,
        };
        if let Some(bias) = &linear.bias {
            assert_eq!(bias.len(), linear.n_out(), "one bias per output");
        }
        linear
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.parts[0].n_cols()
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.parts.iter().map(Tensor::n_rows).sum()
    }

    /// Whether the matmul uses int8 or bf16 instead of f32.
    pub fn is_low_precision(&self) -> bool {
        !matches!(self.backend, Backend::F32)
    }

    /// The stored types of its parts.
    pub fn types(&self) -> impl Iterator<Item = GgmlType> {
        self.parts.iter().map(|p| p.ty)
    }

    /// The kernel for input in int8, if the matmul uses int8.
    pub fn int8_kernel(&self) -> Option<&'static Int8Kernel> {
        matches!(self.backend, Backend::Int8(_)).then(|| Int8Kernel::for_cpu(Cpu::chosen()))
    }

    /// Scratch memory per thread, in bytes.
    pub fn scratch_bytes(&self) -> usize {
        match self.backend {
            Backend::Int8(_) => int8::scratch_bytes(),
            Backend::Bf16(_) => Bf16Matrix::scratch_bytes(),
            Backend::F32 => float::scratch_bytes(self.n_in()),
        }
    }

    /// Scratch memory shared by all threads for an input of `n` rows, in bytes.
    pub fn shared_bytes(&self, n: usize) -> usize {
        match self.backend {
            Backend::Int8(_) => 0,
            Backend::Bf16(_) => Bf16Matrix::shared_bytes(n, self.n_in()),
            Backend::F32 => float::shared_bytes(n, self.n_in()),
        }
    }

    /// `x: [n, n_in]` to `out: [n, n_out]`, rows contiguous; `out` may be part of a wider array.
    ///
    /// # Panics
    /// If the shapes do not match, or `x` is in int8 and the matrix is not.
    pub fn forward(&self, x: &LinearInput, epilogue: Epilogue, out: ArrayViewMut2<f32>) {
        let bias = self.bias.as_deref();
        let x = match (x, &self.backend) {
            (LinearInput::Int8(x), _) => return int8::matmul(x, self.int8(), bias, epilogue, out),
            (LinearInput::F32(x), Backend::Bf16(matrix)) => {
                let matrix = matrix.get_or_init(|| self.pack_bf16());
                return matrix.matmul(x, bias, epilogue, out);
            }
            (LinearInput::F32(x), _) => x,
        };
        float::matmul(x, self, bias, epilogue, out);
    }

    /// [`Self::forward`] with an activation; the result is in the form that `next` takes. `wide` and `quantized` are
    /// buffers for it.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_for<'a>(
        &self,
        x: &LinearInput,
        activation: Epilogue,
        next: &Self,
        wide: &'a mut WideBuffer,
        quantized: &'a mut QuantizedRows,
    ) -> LinearInput<'a> {
        match (x, next.int8_kernel()) {
            (LinearInput::Int8(x), Some(_)) => {
                let bias = self.bias.as_deref();
                int8::matmul_quantized(x, self.int8(), bias, activation, quantized);
                LinearInput::Int8(quantized)
            }
            _ => {
                let (n, n_out) = (x.len(), self.n_out());
                self.forward(x, activation, wide.view_mut(n, n_out));
                LinearInput::of(wide.view(n, n_out), next, quantized)
            }
        }
    }

    /// The packed int8 matrix.
    fn int8(&self) -> &Int8Matrix {
        let Backend::Int8(matrix) = &self.backend else {
            panic!("int8 input for a matrix that is not int8");
        };
        matrix.get_or_init(|| {
            let packed = Int8Matrix::pack(&self.bytes(), self.n_in(), Cpu::chosen());
            self.parts.iter().for_each(|p| p.data.release());
            packed
        })
    }

    fn pack_bf16(&self) -> Bf16Matrix {
        let packed = Bf16Matrix::new(&self.bytes(), self.n_in());
        self.parts.iter().for_each(|p| p.data.release());
        packed
    }

    fn bytes(&self) -> Vec<&[u8]> {
        self.parts.iter().map(|p| &p.data[..]).collect()
    }
}

impl float::Weights for Linear {
    fn dim(&self) -> (usize, usize) {
        (self.n_in(), self.n_out())
    }

    fn expand(&self, rows: Range<usize>, out: &mut [f32]) {
        let (mut first, n_in) = (0, self.n_in());
        for part in &self.parts {
            let n = part.n_rows();
            let (from, to) = (rows.start.max(first), rows.end.min(first + n));
            if from < to {
                let out = &mut out[(from - rows.start) * n_in..(to - rows.start) * n_in];
                part.rows_into(from - first..to - first, out);
            }
            first += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ndarray::{Array2, s};
    use rayon::prelude::*;

    use super::*;
    use xc2_kernels::activation;

    use crate::model::quant::quantize_rows;
    use xc2_kernels::testing::{max_diff, noise, with_threads};

    fn linear(ty: GgmlType, n_in: usize, n_out: usize, bias: bool) -> Linear {
        let values = noise(n_out, n_in, 7).into_raw_vec_and_offset().0;
        let mut data = vec![0; ty.row_bytes(n_in).unwrap() * n_out];
        quantize_rows(ty, &values, n_in, &mut data);
        let weight = Tensor {
            name: "test".to_owned(),
            ty,
            shape: vec![n_in, n_out],
            data: Bytes::from(data).into(),
        };
        let bias = bias.then(|| noise(1, n_out, 8).into_raw_vec_and_offset().0);
        Linear::new(vec![weight], bias, Precision::F32)
    }

    /// Plain loops over the dequantized matrix.
    fn reference(linear: &Linear, x: &Array2<f32>, then: Epilogue, out: &mut Array2<f32>) {
        let weights = linear.parts[0].to_f32();
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
            for n_out in [1, 47, 48, 49] {
                let linear = linear(ty, 256, n_out, then != Store);
                let x = noise(5, 256, 9);
                let before = noise(5, n_out, 10);
                let (mut found, mut expected) = (before.clone(), before);
                linear.forward(&LinearInput::F32(x.view()), then, found.view_mut());
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
    fn the_output_may_be_a_slice_of_a_wider_array() {
        let linear = linear(GgmlType::F16, 64, 200, true);
        let x = noise(4, 64, 1);
        let mut alone = Array2::zeros((4, 200));
        linear.forward(
            &LinearInput::F32(x.view()),
            Epilogue::Store,
            alone.view_mut(),
        );
        let mut wide = Array2::from_elem((4, 600), 9.0);
        linear.forward(
            &LinearInput::F32(x.view()),
            Epilogue::Store,
            wide.slice_mut(s![.., 200..400]),
        );
        assert_eq!(wide.slice(s![.., 200..400]), alone);
        assert!(wide.slice(s![.., ..200]).iter().all(|&v| v == 9.0));
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let linear = linear(GgmlType::Q8_0, 96, 700, true);
        let x = noise(37, 96, 2);
        let run = || {
            let mut out = Array2::zeros((37, 700));
            linear.forward(
                &LinearInput::F32(x.view()),
                Epilogue::QuickGelu,
                out.view_mut(),
            );
            out
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }

    #[test]
    fn int8_is_close_to_f32_from_concurrent_tasks() {
        let layer = |precision| {
            let one = linear(GgmlType::Q8_0, 256, 70, true);
            let parts = vec![one.parts[0].clone(), one.parts[0].clone()];
            let bias = one.bias.unwrap().repeat(2);
            Linear::new(parts, Some(bias), precision)
        };
        let x = noise(20, 256, 3);
        let product = |linear: &Linear| {
            let mut out = Array2::zeros((20, 140));
            let mut quantized = QuantizedRows::default();
            let x = LinearInput::of(x.view(), linear, &mut quantized);
            linear.forward(&x, Epilogue::Store, out.view_mut());
            out
        };
        let expected = product(&layer(Precision::F32));
        let int8 = layer(Precision::Stored);
        assert!(int8.int8_kernel().is_some());
        // All tasks start before the matrix is packed.
        let found: Vec<_> = (0..16).into_par_iter().map(|_| product(&int8)).collect();
        let norm = |a: &Array2<f32>| a.iter().map(|v| v * v).sum::<f32>().sqrt();
        let error = norm(&(&found[0] - &expected)) / norm(&expected);
        assert!(error < 0.01, "relative error {error}");
        assert!(found.iter().all(|f| *f == found[0]));
    }
}
