//! `y = x W^T + b` with `W` in its stored type and a fused epilogue.

use half::slice::HalfBitsSliceExt;
use ndarray::{ArrayView2, ArrayViewMut2};
use xc2_kernels::{
    Epilogue,
    float::{Expand, Float16Slice, FloatMatrix},
    matmul::{self, LayerInput, WeightMatrix, fine_scheme, matmul, matmul_quantized},
    quantized::{BLOCK, OwnedQuantizedActivations, QuantFormat, QuantScheme, QuantizedMatrix},
};

use super::{Precision, arena::WideBuffer};
use crate::model::{
    quant::{GgmlType, dequantize},
    tensor::Tensor,
};

/// A linear layer with an optional bias, from one weight tensor or several with the same input.
///
/// The weights stay mapped and are multiplied as they are: quantized ones in int8, F16 in f32, and BF16 in bf16 where
/// that is faster than f32. Types without kernels are dequantized within the matmul.
pub struct Linear {
    /// Each `[n_out, n_in]` in its stored type; stacked from the top they are the matrix.
    parts: Vec<Tensor>,
    /// `[n_out]`
    bias: Option<Vec<f32>>,
    backend: Backend,
}

/// How a matrix is multiplied.
#[derive(Clone, Copy)]
enum Backend {
    /// In int8, with activations quantized in this scheme.
    Quantized(QuantScheme),
    /// With 16-bit weights as they are.
    Float16,
    /// Dequantized, in f32.
    Expanded,
}

/// Weights that are dequantized within the matmul.
#[derive(Debug)]
struct Dequantized<'a>(&'a Tensor);

impl Expand for Dequantized<'_> {
    fn expand(&self, row: usize, first: usize, to: &mut [f32]) {
        let Self(tensor) = self;
        let bytes = |n| tensor.ty.row_bytes(n).expect("checked when it was loaded");
        let from = row * bytes(tensor.n_cols()) + bytes(first);
        dequantize(tensor.ty, &tensor.data[from..from + bytes(to.len())], to);
    }
}

/// The format for which there are kernels.
fn quant_format(ty: GgmlType) -> Option<QuantFormat> {
    Some(match ty {
        GgmlType::Q4_0 => QuantFormat::Q4_0,
        GgmlType::Q5_0 => QuantFormat::Q5_0,
        GgmlType::Q8_0 => QuantFormat::Q8_0,
        GgmlType::Q4_K => QuantFormat::Q4K,
        GgmlType::Q5_K => QuantFormat::Q5K,
        GgmlType::Q6_K => QuantFormat::Q6K,
        _ => return None,
    })
}

/// A tensor as a matrix of the kernels, if its type has kernels and its values are aligned.
fn weight_matrix(tensor: &Tensor) -> Option<WeightMatrix<'_>> {
    let (n_out, n_in) = (tensor.n_rows(), tensor.n_cols());
    let weights = match tensor.ty {
        GgmlType::F16 => Float16Slice::F16(aligned(&tensor.data)?.reinterpret_cast()),
        GgmlType::BF16 => Float16Slice::Bf16(aligned(&tensor.data)?.reinterpret_cast()),
        ty => {
            let matrix = QuantizedMatrix::new(quant_format(ty)?, &tensor.data, n_out, n_in)?;
            return Some(WeightMatrix::Quantized(matrix));
        }
    };
    FloatMatrix::new(weights, n_out, n_in).map(WeightMatrix::Float)
}

/// Little-endian words, if they are aligned and this machine has the same order.
fn aligned(bytes: &[u8]) -> Option<&[u16]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    bytemuck::try_cast_slice(bytes).ok()
}

/// `x` in the form that `linear` takes; `quantized` is the buffer for int8.
pub fn input<'a>(
    x: ArrayView2<'a, f32>,
    linear: &Linear,
    quantized: &'a mut OwnedQuantizedActivations,
) -> LayerInput<'a> {
    match linear.scheme() {
        None => LayerInput::F32(x),
        Some(scheme) => {
            quantized.quantize_fine(&x, scheme);
            LayerInput::Quantized(quantized)
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
        let backend = match precision {
            Precision::Stored => Backend::of(&parts),
            Precision::F32 => Backend::Expanded,
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
        match self.backend {
            Backend::Quantized(_) => true,
            Backend::Float16 => self.parts[0].ty == GgmlType::BF16 && matmul::is_bf16_fast(),
            Backend::Expanded => false,
        }
    }

    /// The stored types of its parts.
    pub fn types(&self) -> impl Iterator<Item = GgmlType> {
        self.parts.iter().map(|p| p.ty)
    }

    /// The scheme in which it takes input in int8, if the matmul uses int8.
    pub fn scheme(&self) -> Option<QuantScheme> {
        match self.backend {
            Backend::Quantized(scheme) => Some(scheme),
            Backend::Float16 | Backend::Expanded => None,
        }
    }

    /// Scratch memory shared by all threads for an input of `n` rows, in bytes.
    pub fn shared_bytes(&self, n: usize) -> usize {
        match self.backend {
            Backend::Quantized(_) => 0,
            Backend::Float16 | Backend::Expanded => matmul::packed_bytes(n, self.n_in()),
        }
    }

    /// `x: [n, n_in]` to `out: [n, n_out]`, rows contiguous; `out` may be part of a wider array.
    ///
    /// # Panics
    /// If the shapes do not match, or `x` is in another form than the matrix takes.
    pub fn forward(&self, x: &LayerInput, epilogue: Epilogue, out: ArrayViewMut2<f32>) {
        let bias = self.bias.as_deref();
        self.with_matrices(|parts| matmul(x, parts, bias, epilogue, out));
    }

    /// [`Self::forward`] with an activation; the result is in the form that `next` takes. `wide` and `quantized` are
    /// buffers for it.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_for<'a>(
        &self,
        x: &LayerInput,
        activation: Epilogue,
        next: &Self,
        wide: &'a mut WideBuffer,
        quantized: &'a mut OwnedQuantizedActivations,
    ) -> LayerInput<'a> {
        let whole_blocks = self.parts.iter().all(|p| p.n_rows().is_multiple_of(BLOCK));
        match (x, next.scheme()) {
            (LayerInput::Quantized(x), Some(scheme)) if whole_blocks => {
                let bias = self.bias.as_deref();
                self.with_matrices(|parts| {
                    matmul_quantized(x, parts, bias, activation, scheme, quantized);
                });
                LayerInput::Quantized(quantized)
            }
            _ => {
                let (n, n_out) = (x.n(), self.n_out());
                self.forward(x, activation, wide.view_mut(n, n_out));
                input(wide.view(n, n_out), next, quantized)
            }
        }
    }

    /// Calls `f` with the parts as matrices of the kernels.
    fn with_matrices<R>(&self, f: impl FnOnce(&[WeightMatrix]) -> R) -> R {
        if !matches!(self.backend, Backend::Expanded) {
            let matrices: Option<Vec<_>> = self.parts.iter().map(weight_matrix).collect();
            return f(&matrices.expect("checked when the backend was chosen"));
        }
        let parts: Vec<_> = self.parts.iter().map(Dequantized).collect();
        let matrices = parts.iter().map(|part| {
            let (n_out, n_in) = (part.0.n_rows(), part.0.n_cols());
            let matrix = FloatMatrix::expanded(part, n_out, n_in);
            WeightMatrix::Float(matrix.expect("no matrix is empty"))
        });
        f(&matrices.collect::<Vec<_>>())
    }
}

impl Backend {
    /// The fastest for these matrices.
    fn of(parts: &[Tensor]) -> Self {
        if parts.iter().any(|part| weight_matrix(part).is_none()) {
            return Self::Expanded;
        }
        let formats: Option<Vec<_>> = parts.iter().map(|part| quant_format(part.ty)).collect();
        if let Some(scheme) = formats.and_then(fine_scheme) {
            return Self::Quantized(scheme);
        }
        let same = parts.iter().all(|part| part.ty == parts[0].ty);
        match parts[0].ty {
            GgmlType::F16 | GgmlType::BF16 if same => Self::Float16,
            _ => Self::Expanded,
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
            data: Bytes::from(data),
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
                linear.forward(&LayerInput::F32(x.view()), then, found.view_mut());
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
            &LayerInput::F32(x.view()),
            Epilogue::Store,
            alone.view_mut(),
        );
        let mut wide = Array2::from_elem((4, 600), 9.0);
        linear.forward(
            &LayerInput::F32(x.view()),
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
                &LayerInput::F32(x.view()),
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
            let mut quantized = OwnedQuantizedActivations::default();
            let x = input(x.view(), linear, &mut quantized);
            linear.forward(&x, Epilogue::Store, out.view_mut());
            out
        };
        let expected = product(&layer(Precision::F32));
        let int8 = layer(Precision::Stored);
        assert!(int8.scheme().is_some());
        let found: Vec<_> = (0..16).into_par_iter().map(|_| product(&int8)).collect();
        let norm = |a: &Array2<f32>| a.iter().map(|v| v * v).sum::<f32>().sqrt();
        let error = norm(&(&found[0] - &expected)) / norm(&expected);
        assert!(error < 0.01, "relative error {error}");
        assert!(found.iter().all(|f| *f == found[0]));
    }
}
