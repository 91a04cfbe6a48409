//! Compares every level that this CPU has, in every precision, with the definition in f64.

use half::{bf16, f16};
use ndarray::Array2;

use super::*;
use crate::cpu::available;
use crate::quantized::{QuantFormat, QuantizedKernel};
use crate::testing::{max_diff, noise, with_threads};

/// The definition, in f64.
fn reference(qkv: &Array2<f32>, n_head: usize) -> Array2<f32> {
    let (n, width) = qkv.dim();
    let n_embd = width / 3;
    let d = n_embd / n_head;
    let at = |i: usize, part: usize, c: usize| f64::from(qkv[[i, part * n_embd + c]]);
    Array2::from_shape_fn((n, n_embd), |(i, c)| {
        let head = c / d * d;
        let dot = |j| {
            (head..head + d)
                .map(|c| at(i, 0, c) * at(j, 1, c))
                .sum::<f64>()
        };
        let weights: Vec<f64> = (0..n).map(|j| (dot(j) / (d as f64).sqrt()).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mix: f64 = weights
            .iter()
            .enumerate()
            .map(|(j, w)| w * at(j, 2, c))
            .sum();
        (mix / sum) as f32
    })
}

/// For results of size 1 from operands in -1..1. Rounding changes operands by up to one in 512, so
/// scores of size 1 change by some thousandths, and the weights with them.
const BF16_TOLERANCE: f32 = 1e-2;
/// The same for f16: operands change by up to one in 4096, and sums are rounded too.
const F16_TOLERANCE: f32 = 2e-3;

/// The results of every level and precision, with a name and the tolerance.
fn all_results(qkv: &Array2<f32>, n_head: usize) -> Vec<(String, Array2<f32>, f32)> {
    let zeros = Array2::zeros((qkv.nrows(), qkv.ncols() / 3));
    let mut results = Vec::new();
    for cpu in available() {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let mut out = zeros.clone();
            attention_on(cpu, &qkv.view(), n_head, precision, out.view_mut());
            let tolerance = match precision {
                Precision::Bf16 if cpu.has_bf16() => BF16_TOLERANCE,
                Precision::F16 if cpu.has_f16() => F16_TOLERANCE,
                _ => 1e-5,
            };
            results.push((format!("{cpu:?} {precision:?}"), out, tolerance));
        }
    }
    let out = in_scalar::<bf16>(qkv, n_head);
    results.push(("Scalar with bf16".to_owned(), out, BF16_TOLERANCE));
    let out = in_scalar::<f16>(qkv, n_head);
    results.push(("Scalar with f16".to_owned(), out, F16_TOLERANCE));
    results
}

/// The result of plain Rust with operands of type `E`.
fn in_scalar<E: Element>(qkv: &Array2<f32>, n_head: usize) -> Array2<f32> {
    let mut out = Array2::zeros((qkv.nrows(), qkv.ncols() / 3));
    let pieces = split_output(&qkv.view(), n_head, out.view_mut());
    let kernels = Scalar::<E>::default();
    run(kernels, &qkv.view(), n_head, pieces, store);
    out
}

/// The results whose error is too large, with the error.
fn failures(qkv: &Array2<f32>, n_head: usize) -> Vec<String> {
    let expected = reference(qkv, n_head);
    let size = format!("{} tokens, {} wide", qkv.nrows(), qkv.ncols() / 3 / n_head);
    let results = all_results(qkv, n_head).into_iter();
    let off = results.filter_map(|(name, out, tolerance)| {
        let diff = max_diff(&out, &expected);
        // Not `>=`: NaN is a failure, and `max_diff` would hide it.
        let fine = diff < tolerance && out.iter().all(|v| v.is_finite());
        (!fine).then(|| format!("{size}, {name}: {diff}"))
    });
    off.collect()
}

#[test]
fn equals_the_definition_around_the_block_sizes() {
    for n in [
        1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129,
        193,
    ] {
        assert_eq!(failures(&noise(n, 3 * 48, n as u32), 3), [""; 0]);
    }
}

#[test]
fn equals_the_definition_for_every_width_of_a_head() {
    for head_dim in (1..=18).chain([48, 63, 64, 65, 72, 80, 128]) {
        let qkv = noise(70, 3 * 2 * head_dim, head_dim as u32);
        assert_eq!(failures(&qkv, 2), [""; 0]);
    }
}

#[test]
fn sharp_attention_is_as_exact_in_f32() {
    for cpu in available() {
        for n in [1, 2, 15, 17, 47, 48, 49, 130] {
            let qkv = noise(n, 3 * 48, n as u32) * 4.0;
            let mut out = Array2::zeros((n, 48));
            attention_on(cpu, &qkv.view(), 3, Precision::F32, out.view_mut());
            let diff = max_diff(&out, &reference(&qkv, 3));
            assert!(diff < 1e-5, "{cpu:?}, {n} tokens: {diff}");
        }
    }
}

#[test]
fn operands_need_not_be_contiguous() {
    let qkv = noise(50, 3 * 32, 6);
    let transposed = qkv.t().as_standard_layout().into_owned();
    let run = |qkv: ArrayView2<f32>, mut out: ArrayViewMut2<f32>| {
        attention(&qkv, 2, Precision::F32, out.view_mut());
    };
    let (mut plain, mut other) = (Array2::zeros((50, 32)), Array2::zeros((32, 50)));
    run(qkv.view(), plain.view_mut());
    run(transposed.t(), other.view_mut().reversed_axes());
    assert_eq!(plain, other.t());
}

#[test]
fn zero_tokens_are_allowed() {
    let mut out = Array2::zeros((0, 48));
    attention(
        &Array2::zeros((0, 144)).view(),
        3,
        Precision::F32,
        out.view_mut(),
    );
}

#[test]
fn scratch_fits_scratch_bytes() {
    for (n, head_dim) in [(1, 1), (50, 17), (1226, 64), (300, 128)] {
        assert!(scratch_of::<f32>(n, head_dim) <= scratch_bytes(n, head_dim));
        assert!(scratch_of::<f16>(n, head_dim) <= scratch_bytes(n, head_dim));
    }
}

fn scratch_of<E: Element>(n: usize, head_dim: usize) -> usize {
    let s = AttentionScratch::<E>::new(n, head_dim);
    let packed = [&s.keys, &s.values, &s.query, &s.weights, &s.rows];
    let packed: usize = packed.map(|b| Buffer::<E>::bytes(b.len())).iter().sum();
    let sums = [&s.scores, &s.mixed, &s.result];
    let sums: usize = sums.map(|b| Buffer::<f32>::bytes(b.len())).iter().sum();
    packed + sums + size_of_val(&s) + size_of::<RunningSoftmax>()
}

#[test]
fn f16_handles_operands_of_any_magnitude() {
    for (q, k, v) in [
        (1e5, 1e-5, 1.0),
        (1e-9, 1e9, 1e12),
        (1.0, 1.0, 1e-12),
        (1e-20, 1e20, 1e5),
    ] {
        let mut qkv = noise(130, 3 * 64, 3);
        for (part, size) in [q, k, v].into_iter().enumerate() {
            let columns = s![.., 64 * part..64 * (part + 1)];
            qkv.slice_mut(columns).mapv_inplace(|v| v * size);
        }
        let expected = reference(&qkv, 1) / v;
        for cpu in available() {
            let mut out = Array2::zeros((130, 64));
            attention_on(cpu, &qkv.view(), 1, Precision::F16, out.view_mut());
            let diff = max_diff(&(out / v), &expected);
            assert!(diff < F16_TOLERANCE, "{cpu:?}, {q} {k} {v}: {diff}");
        }
    }
}

#[test]
fn an_outlier_does_not_reduce_the_precision_of_small_numbers_in_f16() {
    let mut qkv = noise(130, 3 * 64, 5);
    for row in [0, 50, 129] {
        qkv[[row, 64 + 7]] = 3e3; // a key, at the column of the queries above
        qkv[[row, 128 + 9]] = 3e3; // of a value
    }
    qkv.column_mut(7).fill(1e-3);
    let expected = reference(&qkv, 1);
    let others: Vec<usize> = (0..64).filter(|&c| c != 9).collect();
    for cpu in available() {
        let mut out = Array2::zeros((130, 64));
        attention_on(cpu, &qkv.view(), 1, Precision::F16, out.view_mut());
        let diff = max_diff(
            &out.select(Axis(1), &others),
            &expected.select(Axis(1), &others),
        );
        assert!(diff < F16_TOLERANCE, "{cpu:?}: {diff}");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut qkv = noise(70, 3 * 16, 1);
    qkv.slice_mut(s![.., ..32]).mapv_inplace(|v| v * 1e4);
    for (name, out, _) in all_results(&qkv, 1) {
        let within = |v: &f32| v.abs() <= 1.0001; // a mean of numbers in -1..1
        assert!(out.iter().all(within), "{name}");
    }
}

#[test]
fn nan_in_a_query_propagates_to_its_row_only() {
    let mut qkv = noise(40, 3 * 16, 4);
    qkv[[7, 3]] = f32::NAN; // of a query
    for (name, out, _) in all_results(&qkv, 1) {
        for (i, row) in out.rows().into_iter().enumerate() {
            assert!(
                row.iter().all(|v| v.is_nan() == (i == 7)),
                "{name}, row {i}"
            );
        }
    }
}

#[test]
fn nan_in_a_key_or_value_propagates_to_every_row() {
    for column in [16 + 3, 32 + 3] {
        let mut qkv = noise(40, 3 * 16, 4);
        qkv[[7, column]] = f32::NAN;
        for (name, out, _) in all_results(&qkv, 1) {
            assert!(out.column(3).iter().all(|v| v.is_nan()), "{name}");
        }
    }
}

#[test]
fn equal_keys_give_the_mean_of_the_values() {
    let mut qkv = noise(33, 3 * 8, 2);
    qkv.slice_mut(s![.., 8..16]).fill(0.25);
    let mean = qkv.slice(s![.., 16..]).mean_axis(Axis(0)).unwrap();
    let expected = mean.broadcast((33, 8)).unwrap().to_owned();
    for (name, out, tolerance) in all_results(&qkv, 2) {
        assert!(max_diff(&out, &expected) < tolerance / 2.0, "{name}");
    }
}

#[test]
fn the_result_does_not_depend_on_the_thread_count() {
    let qkv = noise(250, 3 * 64, 3);
    for n in [2, 3, 5] {
        let run = || all_results(&qkv, 4);
        for (one, many) in with_threads(1, run).into_iter().zip(with_threads(n, run)) {
            assert_eq!(one, many, "{n} threads");
        }
    }
}

#[test]
fn attention_quantized_equals_attention_then_quantize() {
    for n in [1, 5, 6, 47, 191, 192, 193, 205] {
        let qkv = noise(n, 3 * 128, n as u32);
        let scheme = QuantFormat::Q4K.scheme().with_fine_activations();
        let kernel = QuantizedKernel::fine();
        let mut plain = Array2::zeros((n, 128));
        attention(&qkv.view(), 2, Precision::F32, plain.view_mut());
        let [mut expected, mut found] = [0; 2].map(|_| OwnedQuantizedActivations::default());
        expected.quantize(&plain.view(), scheme, kernel);
        attention_quantized(&qkv.view(), 2, Precision::F32, scheme, &mut found);
        for i in 0..n {
            assert_eq!(found.to_f32(i), expected.to_f32(i), "row {i} of {n}");
        }
    }
}
