//! `y = x W^T + b` with `W` in its stored type, and what is fused behind it.

use std::{ops::Range, sync::OnceLock};

use ndarray::{ArrayView2, ArrayViewMut2};
use xc2_kernels::{
    Cpu, Epilogue,
    bf16::Bf16Matrix,
    float,
    int8::{self, Int8Kernel, Int8Matrix, QuantizedRows},
};

use super::{Precision, arena::Wide};
use crate::model::{quant::GgmlType, tensor::Tensor};

/// A matrix with an optional bias, of one tensor or several with the same input.
///
/// Q8_0 is packed at the first product for the int8 kernels, BF16 for the bf16 kernels where those
/// are faster than f32's, and the file's copy released. Every other type stays a window into the
/// model file and is expanded within the product.
pub struct Linear {
    /// Each `[n_out, n_in]` in its stored type; together they are the matrix, from the top.
    parts: Vec<Tensor>,
    /// `[n_out]`
    bias: Option<Vec<f32>>,
    way: Way,
}

/// In what a matrix is multiplied; packed at the first product.
enum Way {
    F32,
    Int8(OnceLock<Int8Matrix>),
    Bf16(OnceLock<Bf16Matrix>),
}

/// The input of a product, `[n, n_in]`.
pub enum LinearInput<'a> {
    /// As it is, rows contiguous.
    F32(ArrayView2<'a, f32>),
    /// As a matrix in int8 takes it.
    Int8(&'a QuantizedRows),
}

impl<'a> LinearInput<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.nrows(),
            Self::Int8(x) => x.len(),
        }
    }

    /// `x` as `linear` takes it; `quantized` is room for it in int8.
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
    /// From matrices `[n_in, n_out]` (GGUF order) that have been checked, and a bias of all outputs.
    pub fn new(parts: Vec<Tensor>, bias: Option<Vec<f32>>, precision: Precision) -> Self {
        let n_in = parts[0].n_cols();
        assert!(parts.iter().all(|p| p.n_cols() == n_in), "one input");
        let all = |ty| precision == Precision::Stored && parts.iter().all(|p| p.ty == ty);
        let way = if all(GgmlType::Q8_0) {
            Way::Int8(OnceLock::new())
        } else if all(GgmlType::BF16) && Bf16Matrix::is_fast() {
            Way::Bf16(OnceLock::new())
        } else {
            Way::F32
        };
        let linear = Self { parts, bias, way };
        if let Some(bias) = &linear.bias {
            assert_eq!(bias.len(), linear.n_out(), "a bias for each output");
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

    /// Whether it is computed in fewer bits than f32's.
    pub fn is_narrow(&self) -> bool {
        !matches!(self.way, Way::F32)
    }

    /// What its parts are stored in.
    pub fn types(&self) -> impl Iterator<Item = GgmlType> {
        self.parts.iter().map(|p| p.ty)
    }

    /// The kernel that takes its input in int8, if it is computed so.
    pub fn int8_kernel(&self) -> Option<&'static Int8Kernel> {
        matches!(self.way, Way::Int8(_)).then(|| Int8Kernel::for_cpu(Cpu::chosen()))
    }

    /// Bytes that one thread needs besides input and output.
    pub fn scratch_bytes(&self) -> usize {
        match self.way {
            Way::Int8(_) => int8::scratch_bytes(),
            Way::Bf16(_) => Bf16Matrix::scratch_bytes(),
            Way::F32 => float::scratch_bytes(self.n_in()),
        }
    }

    /// Bytes that all threads together need besides, for an input of `n` rows.
    pub fn shared_bytes(&self, n: usize) -> usize {
        match self.way {
            Way::Int8(_) => 0,
            Way::Bf16(_) => Bf16Matrix::shared_bytes(n, self.n_in()),
            Way::F32 => float::shared_bytes(n, self.n_in()),
        }
    }

    /// `x: [n, n_in]` to `out: [n, n_out]`, rows contiguous; `out` may be part of a wider array.
    ///
    /// # Panics
    /// If the shapes do not agree, or `x` is in int8 and the matrix is not.
    pub fn forward(&self, x: &LinearInput, epilogue: Epilogue, out: ArrayViewMut2<f32>) {
        let bias = self.bias.as_deref();
        let x = match (x, &self.way) {
            (LinearInput::Int8(x), _) => return int8::matmul(x, self.int8(), bias, epilogue, out),
            (LinearInput::F32(x), Way::Bf16(matrix)) => {
                let matrix = matrix.get_or_init(|| self.pack_bf16());
                return matrix.matmul(x, bias, epilogue, out);
            }
            (LinearInput::F32(x), _) => x,
        };
        float::matmul(x, self, bias, epilogue, out);
    }

    /// `activation` of [`Self::forward`], as `next` takes it. `wide` and `quantized` are room for it.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_for<'a>(
        &self,
        x: &LinearInput,
        activation: Epilogue,
        next: &Self,
        wide: &'a mut Wide,
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
                self.forward(x, activation, wide.of(n, n_out));
                LinearInput::of(wide.view(n, n_out), next, quantized)
            }
        }
    }

    /// The matrix in int8.
    fn int8(&self) -> &Int8Matrix {
        let Way::Int8(matrix) = &self.way else {
            panic!("an input in int8 for a matrix that is not");
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

    /// Plain loops over the expanded matrix.
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
    fn a_slice_of_a_wider_array_may_take_the_result() {
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
    fn int8_is_near_f32_also_from_many_tasks_at_once() {
        let of = |precision| {
            let one = linear(GgmlType::Q8_0, 256, 70, true);
            let parts = vec![one.parts[0].clone(), one.parts[0].clone()];
            let bias = one.bias.unwrap().repeat(2);
            Linear::new(parts, Some(bias), precision)
        };
        let x = noise(20, 256, 3);
        let product = |linear: &Linear| {
            let mut out = Array2::zeros((20, 140));
            let mut room = QuantizedRows::default();
            let x = LinearInput::of(x.view(), linear, &mut room);
            linear.forward(&x, Epilogue::Store, out.view_mut());
            out
        };
        let expected = product(&of(Precision::F32));
        let int8 = of(Precision::Stored);
        assert!(int8.int8_kernel().is_some());
        // All of them find the matrix not packed yet.
        let found: Vec<_> = (0..16).into_par_iter().map(|_| product(&int8)).collect();
        let norm = |a: &Array2<f32>| a.iter().map(|v| v * v).sum::<f32>().sqrt();
        let off = norm(&(&found[0] - &expected)) / norm(&expected);
        assert!(off < 0.01, "off by {off}");
        assert!(found.iter().all(|f| *f == found[0]));
    }
}
