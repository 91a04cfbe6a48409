//! Compares every kernel that this CPU can run with the scalar one and with f64.

use half::f16;
use ndarray::{Array2, s};

use super::*;
use crate::testing::{noise, with_threads};
use crate::{Cpu, available};

/// Pseudo-random Q8_0 rows that include all int8 values.
fn weights(n_out: usize, n_in: usize, seed: u32) -> Vec<u8> {
    let numbers = noise(n_out, n_in, seed);
    let scales = noise(n_out, n_in / BLOCK, seed + 1);
    let mut bytes = Vec::new();
    for (row, scales) in numbers.rows().into_iter().zip(scales.rows()) {
        let row = row.to_vec();
        for (block, scale) in row.chunks(BLOCK).zip(scales) {
            bytes.extend(f16::from_f32(0.01 * scale).to_le_bytes());
            bytes.extend(block.iter().map(|v| (v * 128.0).floor() as i8 as u8));
        }
    }
    bytes
}

fn quantized(x: &Array2<f32>, kernel: &Int8Kernel) -> QuantizedRows {
    let mut rows = QuantizedRows::default();
    rows.quantize(&x.view(), kernel);
    rows
}

fn scalar() -> &'static Int8Kernel {
    Int8Kernel::for_cpu(Cpu::Scalar)
}

/// In f64, from the quantized activations.
fn reference(x: &QuantizedRows, weights: &[u8], n_out: usize) -> Array2<f64> {
    let blocks = x.width() / BLOCK;
    let row_bytes = blocks * Q8_0_BLOCK_BYTES;
    let expand = |j: usize, k: usize| {
        let block = &weights[j * row_bytes + k / BLOCK * Q8_0_BLOCK_BYTES..][..Q8_0_BLOCK_BYTES];
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f64();
        scale * f64::from(block[2 + k % BLOCK] as i8)
    };
    let rows: Vec<Vec<f32>> = (0..x.len()).map(|i| x.to_f32(i)).collect();
    Array2::from_shape_fn((x.len(), n_out), |(i, j)| {
        (0..x.width())
            .map(|k| f64::from(rows[i][k]) * expand(j, k))
            .sum()
    })
}

fn run(cpu: Cpu, x: &Array2<f32>, weights: &[u8], n_out: usize) -> Array2<f32> {
    let matrix = Int8Matrix::pack(&[weights], x.ncols(), cpu);
    let mut out = Array2::from_elem((x.nrows(), n_out), 7.0);
    let x = quantized(x, matrix.kernel());
    matmul(&x, &matrix, None, Epilogue::Store, out.view_mut());
    out
}

/// Row counts and widths just below, at and above the sizes of tiles, panels, groups and chunks.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let rows = (1..=13).chain([CHUNK - 1, CHUNK, CHUNK + 1]);
    let outs = [1, 7, 8, 9, 31, 32, 33, GROUP - 1, GROUP, GROUP + 1];
    let few = rows.flat_map(move |m| outs.map(|n| (m, n, 64)));
    few.chain([32, 96, DEPTH - BLOCK, DEPTH, DEPTH + BLOCK, 2 * DEPTH].map(|k| (5, 40, k)))
}

#[test]
fn every_kernel_is_close_to_f64_and_equals_scalar_bit_for_bit() {
    let mut failures = Vec::new();
    for (m, n, k) in shapes() {
        let weights = weights(n, k, 3);
        let x = noise(m, k, 4);
        let expected = reference(&quantized(&x, scalar()), &weights, n);
        let scalar = run(Cpu::Scalar, &x, &weights, n);
        let largest = expected.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
        for cpu in available() {
            let found = run(cpu, &x, &weights, n);
            let off = found
                .iter()
                .zip(&expected)
                .any(|(f, e)| (f64::from(*f) - e).abs() > 1e-5 * largest);
            if off || found != scalar {
                failures.push((cpu, m, n, k));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{:?} ...",
        &failures[..failures.len().min(3)]
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn the_256_bit_kernel_works_in_evex_encoding() {
    if !available().contains(&Cpu::Avx512Vnni) {
        return;
    }
    let kernel = &avx_vnni::evex::KERNEL;
    let (k, n) = (96, kernel.lanes);
    let weights = weights(n, k, 5);
    let numbers = noise(kernel.rows, k, 6);
    let x = quantized(&numbers, kernel);
    let matrix = Int8Matrix::pack_for(kernel, &[&weights], k);
    let expected = run(Cpu::Scalar, &numbers, &weights, n);
    for rows in 1..=kernel.rows {
        let mut out = Array2::<f32>::zeros((rows, n));
        let (values, scales, init_sums) = x.tile(0, 0..k / BLOCK);
        let tile = Int8Tile {
            values: values.as_ptr(),
            scales: scales.as_ptr(),
            init_sums: init_sums.as_ptr(),
            panel: matrix.panel(0, 0..k / BLOCK).as_ptr(),
            blocks: matrix.blocks(),
            out: out.as_mut_ptr(),
            stride: n,
            add: false,
        };
        // SAFETY: the CPU has these instructions (checked above); all operands have at least `rows`
        // rows.
        unsafe { (kernel.tile)(&tile, rows) }
        assert_eq!(out, expected.slice(s![..rows, ..]), "{rows} rows");
    }
}

#[test]
fn the_largest_products_do_not_saturate() {
    for (a, w) in [
        (127.0, -128_i8),
        (-127.0, -128),
        (127.0, 127),
        (-127.0, 127),
    ] {
        let x = Array2::from_elem((1, BLOCK), a);
        let mut weights = f16::ONE.to_le_bytes().to_vec();
        weights.extend([w as u8; BLOCK]);
        for cpu in available() {
            let out = run(cpu, &x, &weights, 1);
            assert_eq!(
                out[[0, 0]],
                a * f32::from(w) * BLOCK as f32,
                "{cpu:?}: {a} * {w}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "this CPU lacks")]
fn packing_for_a_missing_instruction_set_panics() {
    let lacking = Cpu::ALL.into_iter().find(|c| !available().contains(c));
    Int8Matrix::pack(&[], BLOCK, lacking.expect("no CPU has all levels"));
}

#[test]
fn an_outlier_affects_only_its_block() {
    let (n, k) = (8, 256);
    let weights = weights(n, k, 9);
    let mut x = noise(1, k, 10);
    let exact = |x: &Array2<f32>| reference(&quantized(x, scalar()), &weights, n);
    let fine = exact(&x);
    x[[0, 200]] = 1000.0;
    let coarse = exact(&x);
    x.slice_mut(s![.., 192..224]).fill(0.0);
    let mut rest = noise(1, k, 10);
    rest.slice_mut(s![.., 192..224]).fill(0.0);
    assert_eq!(exact(&x), exact(&rest), "other blocks must not change");
    assert_ne!(fine, coarse);
}

/// Smallest and mean cosine similarity of rows.
fn cosines(a: &Array2<f64>, b: &Array2<f64>) -> (f64, f64) {
    let rows = a.rows().into_iter().zip(b.rows());
    let all: Vec<f64> = rows
        .map(|(a, b)| a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt())
        .collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    (all.into_iter().fold(1.0, f64::min), mean)
}

/// One channel is a hundred times larger than the rest, as after CLIP's layer norms, and its
/// weights are as much smaller; otherwise it would dominate the result, and errors elsewhere would
/// not show.
#[test]
fn block_scales_limit_the_error_of_massive_activations() {
    const K: usize = 1024;
    let (m, n, outlier) = (24, 256, 333);
    let mut x = noise(m, K, 13);
    x.column_mut(outlier).mapv_inplace(|v| 100.0 * v.signum());
    let mut weights = noise(n, K, 14);
    weights.column_mut(outlier).mapv_inplace(|w| w / 100.0);
    let exact = x.mapv(f64::from).dot(&weights.mapv(f64::from).t());

    let step = 100.0 / 127.0;
    let coarse = x.mapv(|v| f64::from((v / step).round() * step));
    let one_scale = coarse.dot(&weights.mapv(f64::from).t());
    let (least, mean) = cosines(&one_scale, &exact);
    assert!(least < 0.93 && mean < 0.95, "one scale: {least}, {mean}");

    let bytes = quantize_q8_0(&weights);
    for cpu in available() {
        let found = run(cpu, &x, &bytes, n).mapv(f64::from);
        let (least, mean) = cosines(&found, &exact);
        assert!(least > 0.996 && mean > 0.997, "{cpu:?}: {least}, {mean}");
    }

    // Outside the outlier's block the result is that of rows without an outlier.
    x.column_mut(outlier).fill(0.0);
    weights.column_mut(outlier).fill(0.0);
    let exact = x.mapv(f64::from).dot(&weights.mapv(f64::from).t());
    let bytes = quantize_q8_0(&weights);
    let found = run(Cpu::chosen(), &x, &bytes, n).mapv(f64::from);
    let (least, mean) = cosines(&found, &exact);
    assert!(least > 0.9999 && mean > 0.9999, "{least}, {mean}");
}

/// Quantizes as ggml's Q8_0: an f16 scale, the largest magnitude divided by 127, and the nearest
/// values.
fn quantize_q8_0(weights: &Array2<f32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in weights.rows() {
        for block in row.to_vec().chunks(BLOCK) {
            let step = block.iter().fold(0.0_f32, |m, w| m.max(w.abs())) / 127.0;
            bytes.extend(f16::from_f32(step).to_le_bytes());
            bytes.extend(block.iter().map(|w| (w / step).round() as i8 as u8));
        }
    }
    bytes
}

#[test]
fn nan_in_a_row_propagates_to_that_row_only() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = noise(9, 64, 11);
        x[[4, 33]] = bad;
        let weights = weights(40, 64, 12);
        for cpu in available() {
            let out = run(cpu, &x, &weights, 40);
            for (i, row) in out.rows().into_iter().enumerate() {
                assert!(
                    row.iter().all(|v| v.is_finite() == (i != 4)),
                    "{cpu:?}, row {i}"
                );
            }
        }
    }
}

#[test]
fn parts_are_stacked_and_bias_and_epilogue_applied() {
    let (a, b) = (weights(24, 64, 1), weights(40, 64, 2));
    let x = noise(10, 64, 3);
    let bias = noise(1, 64, 4).into_raw_vec_and_offset().0;
    for cpu in available() {
        let matrix = Int8Matrix::pack(&[&a, &b], 64, cpu);
        let before = noise(10, 64, 5);
        let mut out = before.clone();
        matmul(
            &quantized(&x, matrix.kernel()),
            &matrix,
            Some(&bias),
            Epilogue::Add,
            out.view_mut(),
        );
        let first = run(cpu, &x, &a, 24);
        let second = run(cpu, &x, &b, 40);
        for ((i, j), found) in out.indexed_iter() {
            let product = if j < 24 {
                first[[i, j]]
            } else {
                second[[i, j - 24]]
            };
            assert_eq!(
                *found,
                before[[i, j]] + (product + bias[j]),
                "{cpu:?} at {i}, {j}"
            );
        }
    }
}

#[test]
fn the_result_does_not_depend_on_the_thread_count() {
    let weights = weights(300, 96, 1);
    let x = noise(500, 96, 2);
    let run = || run(Cpu::chosen(), &x, &weights, 300);
    assert_eq!(with_threads(1, run), with_threads(3, run));
}

#[test]
fn matmul_quantized_equals_matmul_then_quantize() {
    for (m, n) in [(1, 32), (5, 64), (13, 96), (CHUNK + 1, GROUP + 32)] {
        let (weights, x) = (weights(n, 96, 1), noise(m, 96, 2));
        let bias = noise(1, n, 3).into_raw_vec_and_offset().0;
        for cpu in available() {
            let matrix = Int8Matrix::pack(&[&weights], 96, cpu);
            let x = quantized(&x, matrix.kernel());
            let mut plain = Array2::zeros((m, n));
            let epilogue = Epilogue::QuickGelu;
            matmul(&x, &matrix, Some(&bias), epilogue, plain.view_mut());
            let expected = quantized(&plain, matrix.kernel());
            let mut found = QuantizedRows::default();
            matmul_quantized(&x, &matrix, Some(&bias), epilogue, &mut found);
            for i in 0..m {
                assert_eq!(
                    found.to_f32(i),
                    expected.to_f32(i),
                    "{cpu:?}, {m} x {n}, row {i}"
                );
            }
        }
    }
}
