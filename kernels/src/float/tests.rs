//! Compares every kernel that this CPU can run with the definition in f64.

use half::slice::HalfFloatSliceExt;
use ndarray::{Array2, Axis, concatenate, s};

use super::*;
use crate::testing::{noise, with_threads};
use crate::{Cpu, SharedOutput, available};

/// A matrix of numbers in -1..1 in both types.
struct TestWeights {
    f16: Vec<f16>,
    bf16: Vec<bf16>,
    n_in: usize,
}

impl TestWeights {
    fn new(n_out: usize, n_in: usize, seed: u32) -> Self {
        let numbers = noise(n_out, n_in, seed).into_raw_vec_and_offset().0;
        let (mut f16, mut bf16) = (
            vec![f16::ZERO; numbers.len()],
            vec![bf16::ZERO; numbers.len()],
        );
        f16.convert_from_f32_slice(&numbers);
        bf16.convert_from_f32_slice(&numbers);
        Self { f16, bf16, n_in }
    }

    fn both(&self) -> [FloatMatrix<'_>; 2] {
        [Float16Slice::F16(&self.f16), Float16Slice::Bf16(&self.bf16)]
            .map(|w| FloatMatrix::new(w, w.len() / self.n_in, self.n_in).unwrap())
    }
}

fn slice<'a>(matrix: &FloatMatrix<'a>) -> Float16Slice<'a> {
    match matrix.weights() {
        FloatWeights::Float16(weights) => weights,
        FloatWeights::Expanded(_) => panic!("expected 16-bit weights"),
    }
}

fn expanded(matrix: &FloatMatrix) -> Array2<f64> {
    let numbers = match slice(matrix) {
        Float16Slice::F16(w) => w.iter().map(|v| v.to_f64()).collect(),
        Float16Slice::Bf16(w) => w.iter().map(|v| v.to_f64()).collect(),
    };
    Array2::from_shape_vec((matrix.n_out(), matrix.n_in()), numbers).unwrap()
}

/// The kernels of a level that take these weights.
fn kernels(cpu: Cpu, weights: Float16Slice) -> Vec<FloatKernel> {
    let all = [FloatKernel::in_f32(cpu), FloatKernel::in_bf16(cpu)];
    all.into_iter()
        .filter(|k| k.takes(&FloatWeights::Float16(weights)))
        .collect()
}

fn run(x: &Array2<f32>, matrix: FloatMatrix, kernel: FloatKernel) -> Array2<f32> {
    let mut out = Array2::from_elem((x.nrows(), matrix.n_out()), f32::NAN);
    matmul(&x.view(), matrix, kernel, out.view_mut());
    out
}

/// The largest error, relative to the typical size of a sum of `n_in` products of numbers in -1..1.
fn off(found: &Array2<f32>, expected: &Array2<f64>, n_in: usize) -> f64 {
    let off = (found.iter().zip(expected)).map(|(f, e)| (f64::from(*f) - e).abs());
    // Not `max`, which ignores NaN.
    let off = off.fold(0.0, |most, off| if off <= most { most } else { off });
    off / (n_in as f64).sqrt()
}

/// Rows, outputs and inputs just below, at and above the sizes of registers, panels, chunks and blocks.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let deep = depth::<f32>();
    let rows = (1..=18).flat_map(|n| [1, 3, 4, 5, 7].map(|n_out| (n, n_out, 40)));
    let outs = [15, 16, 17, 31, 47, 48, 49, 63, 64, 65, 97, 129];
    let outs = outs
        .into_iter()
        .flat_map(|n_out| [(1, n_out, 33), (9, n_out, 33)]);
    let ins = (1..=34).chain([63, 64, 65, 255, 256, 257, deep - 1, deep, deep + 1]);
    let ins = ins
        .chain([2 * deep - 1, 2 * deep + 1])
        .flat_map(|n_in| [(1, 5, n_in), (9, 5, n_in)]);
    let wide = (1..=MAX_GEMV_ROWS).map(|n| (n, 5, 2 * 4096 + 50));
    let chunks = [(511, 5, 20), (512, 5, 20), (513, 5, 20), (1030, 3, 20)];
    rows.chain(outs).chain(ins).chain(wide).chain(chunks)
}

#[test]
fn every_kernel_equals_f64() {
    let mut failures = Vec::new();
    for (n, n_out, n_in) in shapes() {
        let (x, weights) = (noise(n, n_in, 1), TestWeights::new(n_out, n_in, 2));
        for matrix in weights.both() {
            let w = expanded(&matrix);
            for cpu in available() {
                for kernel in kernels(cpu, slice(&matrix)) {
                    // The GEMV does not round activations.
                    let rounds = kernel.is_bf16() && n > MAX_GEMV_ROWS;
                    let x64 = x.mapv(|v| {
                        if rounds {
                            bf16::from_f32(v).to_f64()
                        } else {
                            v.into()
                        }
                    });
                    let off = off(&run(&x, matrix, kernel), &x64.dot(&w.t()), n_in);
                    if off.is_nan() || off > 2e-6 {
                        failures.push((cpu, kernel.is_bf16(), n, n_out, n_in, off));
                    }
                }
            }
        }
    }
    let some = &failures[..failures.len().min(5)];
    assert!(failures.is_empty(), "{some:?} of {}", failures.len());
}

#[test]
fn a_row_does_not_depend_on_other_rows() {
    let (n_in, n_out) = (300, 70);
    let weights = TestWeights::new(n_out, n_in, 3);
    for matrix in weights.both() {
        for kernel in available()
            .into_iter()
            .flat_map(|cpu| kernels(cpu, slice(&matrix)))
        {
            for all in [MAX_GEMV_ROWS, 600] {
                let x = noise(all, n_in, 4);
                let together = run(&x, matrix, kernel);
                for n in if all == MAX_GEMV_ROWS {
                    1..MAX_GEMV_ROWS
                } else {
                    MAX_GEMV_ROWS + 1..20
                } {
                    let x = x.slice(s![all - n.., ..]).to_owned();
                    let found = run(&x, matrix, kernel);
                    assert_eq!(found, together.slice(s![all - n.., ..]), "{kernel:?} {n}");
                }
            }
        }
    }
}

#[test]
fn plus_equals_a_matmul_with_concatenated_inputs() {
    const FACTOR: f32 = 0.5;
    let (base, adapter) = (TestWeights::new(50, 290, 5), TestWeights::new(50, 70, 6));
    for n in [1, 8, 9, 100] {
        let (x, small) = (noise(n, 290, 7), noise(n, 70, 8));
        for (base, adapter) in base.both().into_iter().zip(adapter.both()) {
            let w = concatenate![Axis(1), expanded(&base), expanded(&adapter)];
            let all = concatenate![Axis(1), x, small.mapv(|v| FACTOR * v)];
            for kernel in available()
                .into_iter()
                .flat_map(|cpu| kernels(cpu, slice(&base)))
            {
                let rounds = kernel.is_bf16() && n > MAX_GEMV_ROWS;
                let all = all.mapv(|v| {
                    if rounds {
                        bf16::from_f32(v).to_f64()
                    } else {
                        v.into()
                    }
                });
                let found = sum(&x, base, &small, adapter, FACTOR, kernel);
                assert!(off(&found, &all.dot(&w.t()), 360) < 2e-6, "{kernel:?} {n}");
            }
        }
    }
}

/// `x W^T + factor * small A^T`
#[allow(unsafe_code)]
fn sum(
    x: &Array2<f32>,
    base: FloatMatrix,
    small: &Array2<f32>,
    adapter: FloatMatrix,
    factor: f32,
    kernel: FloatKernel,
) -> Array2<f32> {
    let mut out = Array2::from_elem((x.nrows(), base.n_out()), f32::NAN);
    let mut memories = [x, small].map(|x| {
        let bytes = FloatActivations::bytes(x.nrows(), x.ncols(), kernel);
        vec![0.0_f32; bytes.div_ceil(4)]
    });
    let rows = [(x, 1.0), (small, factor)].into_iter().zip(&mut memories);
    let rows = rows.map(|((x, factor), memory)| {
        // SAFETY: the memory has the required size, and there is only one thread.
        unsafe {
            let memory = memory.as_mut_ptr().cast();
            let rows = FloatActivations::new(memory, x.nrows(), x.ncols(), kernel).scaled(factor);
            (0..rows.pieces()).for_each(|piece| rows.pack(x.as_slice().unwrap(), piece));
            rows
        }
    });
    let rows: Vec<_> = rows.collect();
    let to = SharedOutput::new(out.as_mut_ptr(), base.n_out());
    let product = FloatMatmul::new(base, rows[0], to).plus(adapter, rows[1]);
    // SAFETY: the rows are packed, and there is only one thread.
    (0..product.tasks(2)).for_each(|i| unsafe { product.run(i, 2) });
    out
}

#[test]
fn nan_and_infinity_propagate_within_their_row_or_column() {
    let (mut x, weights) = (noise(12, 30, 1).abs() + 0.1, noise(50, 30, 2).abs() + 0.1);
    x[[3, 29]] = f32::NAN;
    x[[5, 0]] = f32::INFINITY;
    let mut weights = weights.mapv(bf16::from_f32);
    weights[[48, 7]] = bf16::NAN;
    let weights = Float16Slice::Bf16(weights.as_slice().unwrap());
    let matrix = FloatMatrix::new(weights, 50, 30).unwrap();
    for kernel in available()
        .into_iter()
        .flat_map(|cpu| kernels(cpu, weights))
    {
        for n in [6, 12] {
            let out = run(&x.slice(s![..n, ..]).to_owned(), matrix, kernel);
            for ((i, j), v) in out.indexed_iter() {
                let none = i == 3 || j == 48;
                let found = (v.is_nan(), *v == f32::INFINITY);
                assert_eq!(found, (none, !none && i == 5), "{kernel:?} {i} {j}");
            }
        }
    }
}

#[test]
fn every_16_bit_float_converts_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let f16: Vec<_> = all.iter().map(|bits| f16::from_bits(*bits)).collect();
    let bf16: Vec<_> = all.iter().map(|bits| bf16::from_bits(*bits)).collect();
    let same = |found: &[f32], expected: &dyn Fn(usize) -> f32| {
        let pairs = found.iter().enumerate().map(|(i, v)| (*v, expected(i)));
        pairs
            .filter(|(v, e)| v.to_bits() != e.to_bits() && !(v.is_nan() && e.is_nan()))
            .count()
    };
    for cpu in available() {
        let mut found = vec![0.0; all.len()];
        let ops = FloatKernel::in_f32(cpu).ops;
        for n in [all.len(), all.len() - 1] {
            #[allow(unsafe_code)]
            // SAFETY: the CPU has the instructions.
            unsafe {
                (ops.to_f32)(Float16Slice::F16(&f16[..n]), &mut found[..n]);
                assert_eq!(same(&found[..n], &|i| f16[i].to_f32()), 0, "{cpu:?}");
                (ops.to_f32)(Float16Slice::Bf16(&bf16[..n]), &mut found[..n]);
                assert_eq!(same(&found[..n], &|i| bf16[i].to_f32()), 0, "{cpu:?}");
            }
        }
    }
}

#[test]
fn the_result_does_not_depend_on_the_thread_count() {
    let weights = TestWeights::new(200, 300, 9);
    for matrix in weights.both() {
        for n in [5, 200] {
            let x = noise(n, 300, 10);
            let kernel = matrix.kernel(Cpu::chosen());
            let run = || run(&x, matrix, kernel);
            assert_eq!(with_threads(1, run), with_threads(3, run));
        }
    }
}

#[test]
fn matrices_of_another_size_are_refused() {
    let numbers = [f16::ONE; 6];
    let matrix = |n_out, n_in| FloatMatrix::new(Float16Slice::F16(&numbers), n_out, n_in);
    assert!(matrix(2, 3).is_some());
    assert!(matrix(2, 4).is_none());
    assert!(matrix(usize::MAX, 3).is_none());
    assert!(FloatMatrix::new(Float16Slice::F16(&[]), 0, 3).is_none());
}

/// F32 weights, row by row.
impl Expand for Array2<f32> {
    fn expand(&self, row: usize, first: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.row(row).to_slice().unwrap()[first..][..to.len()]);
    }
}

#[test]
fn expanded_weights_of_parts_are_stacked_and_bias_and_epilogue_applied() {
    use crate::Epilogue::{Add, Gelu, QuickGelu, Store};
    let bias = noise(1, 120, 4).into_raw_vec_and_offset().0;
    for (n, n_in) in [(1, 1), (7, 255), (9, 588), (17, 1025)] {
        let parts = [noise(49, n_in, 1), noise(1, n_in, 2), noise(70, n_in, 3)];
        let matrices = parts
            .each_ref()
            .map(|part| FloatMatrix::expanded(part, part.nrows(), n_in).unwrap());
        let all = concatenate(Axis(0), &parts.each_ref().map(|part| part.view())).unwrap();
        let x = noise(n, n_in, 5);
        let product = x.mapv(f64::from).dot(&all.mapv(f64::from).t());
        for (cpu, epilogue) in available()
            .into_iter()
            .flat_map(|cpu| [Store, Add, QuickGelu, Gelu].map(|e| (cpu, e)))
        {
            // The output is part of a wider array.
            let mut wide = noise(n, 130, 6);
            let before = wide.clone();
            let out = wide.slice_mut(s![.., 5..125]);
            matmul_of_parts(&x.view(), &matrices, Some(&bias), epilogue, cpu, out);
            for ((i, j), found) in wide.indexed_iter() {
                let expected = if (5..125).contains(&j) {
                    let mut value = [product[[i, j - 5]] as f32 + bias[j - 5]];
                    match epilogue {
                        Store => {}
                        Add => value[0] += before[[i, j]],
                        QuickGelu => crate::activation::quick_gelu(&mut value),
                        Gelu => crate::activation::gelu(&mut value),
                    }
                    value[0]
                } else {
                    before[[i, j]]
                };
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{cpu:?} {epilogue:?} {i} {j}"
                );
            }
        }
    }
}
