//! One interface to the matmuls with quantized and with other weights.
//!
//! [`matmul()`] and [`matmul_quantized`] compute a layer on rayon: several matrices with the same
//! input, a bias and an epilogue.
//!
//! [`Matmul`] is for callers with threads of their own. A graph may hold weights of both kinds.
//! [`WeightMatrix::input_type`] says in which type a matrix takes its activations. The caller
//! converts them once for all matrices of the same type ([`MatmulInput::fill`]) and runs the tasks
//! of a [`Matmul`] on its threads.
#![allow(unsafe_code)]

use crate::float::{FloatActivations, FloatKernel, FloatMatmul, FloatMatrix};
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::quantized::{
    OwnedQuantizedActivations, QuantFormat, QuantScheme, QuantizedActivations, QuantizedKernel,
    QuantizedMatmul, QuantizedMatrix,
};
use crate::{Cpu, Epilogue, SharedOutput, float, quantized};

/// Weights `[n_out, n_in]` for which there is a kernel.
#[derive(Clone, Copy, Debug)]
pub enum WeightMatrix<'a> {
    /// Q4_0, Q5_0, Q8_0, Q4_K, Q5_K or Q6_K.
    Quantized(QuantizedMatrix<'a>),
    /// F16, BF16, or any weights that can be expanded.
    Float(FloatMatrix<'a>),
}

/// The input of a layer, `[n, n_in]`.
pub enum LayerInput<'a> {
    /// Rows contiguous.
    F32(ArrayView2<'a, f32>),
    /// Quantized, in the [fine scheme](fine_scheme) of its weights.
    Quantized(&'a OwnedQuantizedActivations),
}

impl LayerInput<'_> {
    /// Number of rows.
    pub fn n(&self) -> usize {
        match self {
            Self::F32(x) => x.nrows(),
            Self::Quantized(x) => x.n(),
        }
    }
}

/// The scheme, with a scale per 32 activations, in which all these formats take their input. `None`
/// if they take different ones.
///
/// One scale per 256 activations, as llama.cpp has with K-quants, is enough for a decoder. In CLIP
/// three channels are a hundred times larger than the rest, and would spoil those beside them.
pub fn fine_scheme(formats: impl IntoIterator<Item = QuantFormat>) -> Option<QuantScheme> {
    let mut schemes = formats
        .into_iter()
        .map(|format| format.scheme().with_fine_activations());
    let first = schemes.next()?;
    schemes.all(|scheme| scheme == first).then_some(first)
}

/// Computes `epilogue(x W^T + bias)` on rayon's current pool and stores it in `out: [n, n_out]`, rows
/// contiguous; `out` may be part of a wider array. `W` consists of `parts`, one below the other, all
/// quantized in one scheme or all of one other type.
///
/// If a row of `x` holds a NaN or an infinity, no output of that row is finite. In f32 both
/// propagate as usual.
///
/// # Panics
/// If the shapes do not agree, or the input has another type than the weights take.
pub fn matmul(
    x: &LayerInput,
    parts: &[WeightMatrix],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: ArrayViewMut2<f32>,
) {
    match x {
        LayerInput::Quantized(x) => {
            quantized::matmul_of_parts(x, &quantized_parts(parts), bias, epilogue, out);
        }
        LayerInput::F32(x) => {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| match part {
                    WeightMatrix::Float(matrix) => *matrix,
                    WeightMatrix::Quantized(_) => {
                        panic!("quantized weights: expected int8 activations, found f32")
                    }
                })
                .collect();
            float::matmul_of_parts(x, &parts, bias, epilogue, Cpu::chosen(), out);
        }
    }
}

/// The same with quantized weights and the output quantized for the next layer, in a fine scheme,
/// while it is in the cache: for the inner activations of an MLP.
///
/// # Panics
/// As [`matmul()`], or if `epilogue` is `Add`, or the outputs of a part are not whole blocks of 32.
pub fn matmul_quantized(
    x: &OwnedQuantizedActivations,
    parts: &[WeightMatrix],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    scheme: QuantScheme,
    out: &mut OwnedQuantizedActivations,
) {
    let parts = quantized_parts(parts);
    quantized::matmul_of_parts_quantized(x, &parts, bias, epilogue, scheme, out);
}

fn quantized_parts<'a>(parts: &[WeightMatrix<'a>]) -> Vec<QuantizedMatrix<'a>> {
    let parts = parts.iter().map(|part| match part {
        WeightMatrix::Quantized(matrix) => *matrix,
        WeightMatrix::Float(_) => panic!("expected f32 activations, found int8"),
    });
    parts.collect()
}

/// Whether this process multiplies BF16 faster than f32.
pub fn is_bf16_fast() -> bool {
    crate::cpu::bf16_is_fast(Cpu::chosen())
}

/// Bytes of `n` packed rows of width `n_in`, for [`matmul()`] with weights that are not quantized.
pub fn packed_bytes(n: usize, n_in: usize) -> usize {
    FloatActivations::packed_bytes(n, n_in, FloatKernel::in_f32(Cpu::chosen()))
}

/// Bytes that each thread keeps for matmuls.
pub fn scratch_bytes() -> usize {
    quantized::scratch_bytes() + float::scratch_bytes()
}

/// The type to which activations are converted before the matmul. Matrices with the same input and input
/// type share the converted activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputType {
    /// int8, quantized for weights of this scheme.
    Int8(QuantScheme),
    /// f32, packed.
    F32,
    /// bf16, packed.
    Bf16,
}

/// The kernels that this process uses.
#[derive(Clone, Copy)]
pub struct MatmulKernels {
    /// For quantized weights. Others take [`Cpu::chosen`].
    pub quantized: &'static QuantizedKernel,
}

impl MatmulKernels {
    /// The kernel for weights that are not quantized; it depends on their type.
    fn float(self, matrix: &FloatMatrix) -> FloatKernel {
        matrix.kernel(Cpu::chosen())
    }

    /// Whether they are faster than llama.cpp's for `n` rows of activations.
    pub fn are_faster_than_ggml(self, matrix: &WeightMatrix, n: usize) -> bool {
        match matrix {
            WeightMatrix::Quantized(matrix) => {
                self.quantized.is_faster_than_ggml(matrix.format(), n)
            }
            WeightMatrix::Float(matrix) => self.float(matrix).is_faster_than_ggml(),
        }
    }
}

impl WeightMatrix<'_> {
    /// Width of the input.
    pub fn n_in(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.n_in(),
            Self::Float(matrix) => matrix.n_in(),
        }
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.n_out(),
            Self::Float(matrix) => matrix.n_out(),
        }
    }

    /// The type in which it takes `n` rows of activations.
    pub fn input_type(&self, n: usize, kernels: MatmulKernels) -> InputType {
        match self {
            Self::Quantized(matrix) => {
                InputType::Int8(kernels.quantized.activation_scheme(matrix.format(), n))
            }
            Self::Float(matrix) if kernels.float(matrix).is_bf16() => InputType::Bf16,
            Self::Float(_) => InputType::F32,
        }
    }

    /// Whether [`Matmul::plus`] can add the matmul with this matrix to the one with `base`.
    pub fn adds_to(&self, base: &Self, kernels: MatmulKernels) -> bool {
        match (self, base) {
            (Self::Quantized(_), Self::Quantized(_)) => true,
            (Self::Float(_), Self::Float(_)) => {
                self.input_type(1, kernels) == base.input_type(1, kernels)
            }
            _ => false,
        }
    }

    /// Bytes that `n` rows of activations take in this matrix's input type.
    pub fn input_bytes(&self, n: usize, kernels: MatmulKernels) -> usize {
        match self {
            Self::Quantized(matrix) => {
                QuantizedActivations::bytes(n, matrix.n_in(), kernels.quantized)
            }
            Self::Float(matrix) => FloatActivations::bytes(n, matrix.n_in(), kernels.float(matrix)),
        }
    }

    /// Room for `n` rows of activations in this matrix's input type, at `memory`.
    ///
    /// # Safety
    /// `memory` points to [`Self::input_bytes`] initialized bytes, aligned to 4, which stay valid as long as
    /// the result and its copies are used.
    pub unsafe fn input(&self, memory: *mut u8, n: usize, kernels: MatmulKernels) -> MatmulInput {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Quantized(matrix) => {
                    let kernel = kernels.quantized;
                    let n_in = matrix.n_in();
                    let scheme = kernel.activation_scheme(matrix.format(), n);
                    let rows = QuantizedActivations::new(memory, n, n_in, scheme, kernel);
                    MatmulInput::Int8(rows)
                }
                Self::Float(matrix) => {
                    let kernel = kernels.float(matrix);
                    let rows = FloatActivations::new(memory, n, matrix.n_in(), kernel);
                    MatmulInput::Packed(rows)
                }
            }
        }
    }
}

/// Activations `[n, width]` in the type that a matrix takes. [`Self::fill`] converts them piece by piece.
#[derive(Clone, Copy)]
pub enum MatmulInput {
    /// For quantized weights.
    Int8(QuantizedActivations),
    /// For 16-bit weights.
    Packed(FloatActivations),
}

impl MatmulInput {
    /// Number of rows.
    pub fn n(&self) -> usize {
        match self {
            Self::Int8(rows) => rows.n(),
            Self::Packed(rows) => rows.n(),
        }
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        match self {
            Self::Int8(rows) => rows.width(),
            Self::Packed(rows) => rows.width(),
        }
    }

    /// The same place for rows that [`Self::fill`] multiplies by `factor`.
    pub fn scaled(self, factor: f32) -> Self {
        match self {
            Self::Int8(rows) => Self::Int8(rows.scaled(factor)),
            Self::Packed(rows) => Self::Packed(rows.scaled(factor)),
        }
    }

    /// Number of pieces that can be filled independently.
    pub fn pieces(&self) -> usize {
        match self {
            Self::Int8(rows) => rows.pieces(),
            Self::Packed(rows) => rows.pieces(),
        }
    }

    /// Converts piece `piece` of `x: [n, width]`.
    ///
    /// # Safety
    /// No other thread writes this piece or reads it meanwhile.
    pub unsafe fn fill(&self, x: &[f32], piece: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Int8(rows) => rows.quantize(x, piece),
                Self::Packed(rows) => rows.pack(x, piece),
            }
        }
    }
}

/// `input W^T`, partitioned into tasks that any thread may run.
#[derive(Clone, Copy)]
pub enum Matmul<'a> {
    /// With quantized weights.
    Quantized(QuantizedMatmul<'a>),
    /// With 16-bit weights.
    Float(FloatMatmul<'a>),
}

impl<'a> Matmul<'a> {
    /// `input: [n, n_in]` times `matrix: [n_out, n_in]`, transposed, to `out: [n, n_out]`.
    ///
    /// # Panics
    /// If the input has another type or width than the matrix takes.
    pub fn new(
        matrix: WeightMatrix<'a>,
        input: MatmulInput,
        out: SharedOutput,
        kernels: MatmulKernels,
    ) -> Self {
        match (matrix, input) {
            (WeightMatrix::Quantized(matrix), MatmulInput::Int8(rows)) => {
                Self::Quantized(QuantizedMatmul::new(matrix, rows, out, kernels.quantized))
            }
            (WeightMatrix::Float(matrix), MatmulInput::Packed(rows)) => {
                Self::Float(FloatMatmul::new(matrix, rows, out))
            }
            (WeightMatrix::Quantized(_), MatmulInput::Packed(_)) => {
                panic!("quantized weights: expected int8 activations, found packed ones")
            }
            (WeightMatrix::Float(_), MatmulInput::Int8(_)) => {
                panic!("16-bit weights: expected packed activations, found int8")
            }
        }
    }

    /// The same plus `input W^T` with another matrix, such as an adapter's.
    ///
    /// # Panics
    /// Unless the matrix [adds to](WeightMatrix::adds_to) the first one and has as many outputs.
    pub fn plus(self, matrix: WeightMatrix<'a>, input: MatmulInput) -> Self {
        match (self, matrix, input) {
            (Self::Quantized(base), WeightMatrix::Quantized(matrix), MatmulInput::Int8(rows)) => {
                Self::Quantized(base.plus(matrix, rows))
            }
            (Self::Float(base), WeightMatrix::Float(matrix), MatmulInput::Packed(rows)) => {
                Self::Float(base.plus(matrix, rows))
            }
            _ => panic!("expected a second matrix and input of the same kind as the first"),
        }
    }

    /// Number of tasks for `n_threads`. It does not change the result.
    pub fn tasks(&self, n_threads: usize) -> usize {
        match self {
            Self::Quantized(matmul) => matmul.tasks(n_threads),
            Self::Float(matmul) => matmul.tasks(n_threads),
        }
    }

    /// Runs task `task` of those for `n_threads`.
    ///
    /// # Safety
    /// - This CPU has the kernels' instructions.
    /// - All pieces of the inputs are filled and nobody writes them meanwhile.
    /// - `out` is valid for writes, and no other thread accesses what this task writes.
    pub unsafe fn run(&self, task: usize, n_threads: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Quantized(matmul) => matmul.run(task, n_threads),
                Self::Float(matmul) => matmul.run(task, n_threads),
            }
        }
    }
}
