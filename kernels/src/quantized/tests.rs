//! Compares every kernel that this CPU can run with the definition in f64 and with the scalar
//! kernel.

use ndarray::Array2;

use super::format::Expanded;
use super::kernel::{MAX_LANES, Panel, PanelLayout};
use super::*;
use crate::testing::{noise, with_threads};
use crate::{Cpu, Epilogue, SharedOutput, available};

/// Blocks of random bytes with small finite scales.
fn weights(format: QuantFormat, n_out: usize, n_in: usize, seed: u32) -> Vec<u8> {
    let len = format.row_bytes(n_in).unwrap() * n_out;
    let mut bytes: Vec<u8> = noise(1, len, seed)
        .iter()
        .map(|v| (v * 128.0).floor() as i8 as u8)
        .collect();
    let f16_offsets: &[usize] = match format {
        QuantFormat::Q4_0 | QuantFormat::Q5_0 | QuantFormat::Q8_0 => &[0],
        QuantFormat::Q4K | QuantFormat::Q5K => &[0, 2],
        QuantFormat::Q6K => &[208],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in f16_offsets {
            let value = half::f16::from_f32(f32::from(block[*at]) * 1e-4);
            block[*at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// The weights `[n_out, n_in]`, dequantized.
fn expanded(matrix: &QuantizedMatrix) -> Array2<f64> {
    let scheme = matrix.format().scheme();
    let mut all = Array2::zeros((matrix.n_out(), matrix.n_in()));
    let mut row = Expanded::default();
    for (output, mut numbers) in all.rows_mut().into_iter().enumerate() {
        for (k, number) in numbers.iter_mut().enumerate() {
            if k % SUPERBLOCK == 0 {
                let bytes = matrix.superblock(output, k / SUPERBLOCK);
                matrix.format().expand(bytes, &mut row);
            }
            let (k, run) = (k % SUPERBLOCK, k % SUPERBLOCK / scheme.run);
            let byte = f64::from(row.bytes[k]) - f64::from(scheme.zero);
            *number = f64::from(row.scales[run]) * byte;
            if scheme.minima {
                *number -= f64::from(row.min_scale) * f64::from(row.minima[run]);
            }
        }
    }
    all
}

fn run(cpu: Cpu, x: &Array2<f32>, matrix: QuantizedMatrix) -> Array2<f32> {
    let mut out = Array2::from_elem((x.nrows(), matrix.n_out()), 7.0);
    matmul(
        &x.view(),
        matrix,
        QuantizedKernel::for_cpu(cpu),
        out.view_mut(),
    );
    out
}

/// In f64, from the quantized activations.
fn reference(x: &Array2<f32>, matrix: &QuantizedMatrix) -> Array2<f64> {
    let mut rows = OwnedQuantizedActivations::default();
    rows.quantize(
        &x.view(),
        matrix.format().scheme(),
        QuantizedKernel::for_cpu(Cpu::Scalar),
    );
    let w = expanded(matrix);
    let x: Vec<Vec<f32>> = (0..x.nrows()).map(|i| rows.to_f32(i)).collect();
    Array2::from_shape_fn((x.len(), matrix.n_out()), |(i, j)| {
        let products = w.row(j).into_iter().zip(&x[i]);
        products.map(|(w, x)| w * f64::from(*x)).sum()
    })
}

/// Rows, outputs and inputs just below, at and above the sizes of tiles, panels, groups and chunks.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let rows = [1, 2, 3, 4, 5, 6, 7, 8, 12, 13];
    let outs = [1, 7, 8, 9, 31, 32, 33, 65, 129];
    let few = rows
        .into_iter()
        .flat_map(move |m| outs.map(|n| (m, n, 256)));
    few.chain([
        (3, 40, 1024),
        (63, 40, 512),
        (64, 40, 512),
        (65, 70, 768),
        (511, 5, 256),
        (512, 33, 256),
        (513, 5, 512),
        (1025, 3, 256),
    ])
}

#[test]
fn every_kernel_is_close_to_f64_and_equals_scalar_bit_for_bit() {
    let mut failures = Vec::new();
    for format in QuantFormat::ALL {
        // In these formats a row may end within a superblock.
        let ends = [32, 96, 288]
            .into_iter()
            .filter(|_| format.block_len() == 32);
        let ends = ends.flat_map(|k| [(1, 40, k), (5, 40, k)]);
        for (m, n, k) in shapes().chain(ends) {
            // With this seed no single output is close to zero, to which errors are relative.
            let bytes = weights(format, n, k, 13);
            let matrix = QuantizedMatrix::new(format, &bytes, n, k).unwrap();
            let x = noise(m, k, 4);
            let expected = reference(&x, &matrix);
            let scalar = run(Cpu::Scalar, &x, matrix);
            let largest = expected.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
            for cpu in available() {
                let found = run(cpu, &x, matrix);
                let off = (found.iter().zip(&expected))
                    .map(|(f, e)| (f64::from(*f) - e).abs())
                    .fold(0.0, f64::max);
                // The GEMV sums in another order, and AMX sums integers where other kernels have
                // already rounded.
                let kernel = QuantizedKernel::for_cpu(cpu).for_rows(m);
                let gemv = (kernel.gemv)(format, m).is_some();
                let integer = kernel.layout == PanelLayout::Amx && !format.scheme().fine;
                let same = found == scalar || gemv || integer;
                if off > 1e-5 * largest || !same {
                    failures.push((format, cpu, m, n, k, off / largest, found == scalar));
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{:?} of {}",
        &failures[..failures.len().min(3)],
        failures.len()
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn the_256_bit_kernel_works_in_evex_encoding() {
    if !available().contains(&Cpu::Avx512Vnni) {
        return;
    }
    for format in QuantFormat::ALL {
        let bytes = weights(format, 21, 512, 5);
        let matrix = QuantizedMatrix::new(format, &bytes, 21, 512).unwrap();
        for n in [1, 13] {
            let x = noise(n, 512, 6);
            let mut found = Array2::zeros((n, 21));
            matmul(
                &x.view(),
                matrix,
                &avx_vnni::OTHER_ENCODING,
                found.view_mut(),
            );
            let expected = run(Cpu::Scalar, &x, matrix);
            let largest = expected.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
            for (f, e) in found.iter().zip(&expected) {
                let tolerance = if n == 1 { 1e-5 * largest } else { 0.0 }; // sums in another order
                assert!((f - e).abs() <= tolerance, "{format:?} {n}");
            }
        }
    }
}

#[test]
#[allow(unsafe_code)]
fn every_level_unpacks_like_the_reference() {
    for format in QuantFormat::ALL {
        for n in [1, 16, 33] {
            let bytes = weights(format, n, 512, 8);
            let matrix = QuantizedMatrix::new(format, &bytes, n, 512).unwrap();
            for cpu in available() {
                let kernel = QuantizedKernel::for_cpu(cpu);
                let (mut found, mut expected) = (Panel::zeros(), Panel::zeros());
                expected.unpack(&matrix, 0, 1, kernel);
                // SAFETY: the CPU has these instructions; the matrix has an output and two superblocks.
                unsafe { (kernel.unpack)(&mut found, &matrix, 0, 1) };
                let scheme = format.scheme();
                let times = if kernel.layout == PanelLayout::RowPairs {
                    2
                } else {
                    1
                };
                let scales = SUPERBLOCK / scheme.run * kernel.lanes * times;
                assert!(found.values == expected.values, "{format:?} {cpu:?} {n}");
                assert_eq!(
                    found.scales[..scales],
                    expected.scales[..scales],
                    "{format:?} {cpu:?} {n}"
                );
                assert!(found.high == expected.high, "{format:?} {cpu:?} {n}");
                assert_eq!(found.units, expected.units, "{format:?} {cpu:?} {n}");
                assert!(kernel.lanes <= MAX_LANES);
                if scheme.minima {
                    assert_eq!(found.minima, expected.minima, "{format:?} {cpu:?} {n}");
                    let tiles = found.tile_minima == expected.tile_minima;
                    assert!(tiles, "{format:?} {cpu:?} {n}");
                    assert_eq!(
                        found.min_scales, expected.min_scales,
                        "{format:?} {cpu:?} {n}"
                    );
                }
            }
        }
    }
}

#[test]
fn plus_adds_a_scaled_matmul() {
    for m in [13, 77] {
        sum_of_two_products(m);
    }
}

/// A matmul of `m` rows plus a second one.
#[allow(unsafe_code)]
fn sum_of_two_products(m: usize) {
    const FACTOR: f32 = 0.75;
    const WORDS: usize = 20_000;
    let n = 70;
    let (base, small) = (noise(m, 512, 1), noise(m, 256, 2));
    let (w, b) = (
        weights(QuantFormat::Q4K, n, 512, 3),
        weights(QuantFormat::Q8_0, n, 256, 4),
    );
    let w = QuantizedMatrix::new(QuantFormat::Q4K, &w, n, 512).unwrap();
    let b = QuantizedMatrix::new(QuantFormat::Q8_0, &b, n, 256).unwrap();
    let expected = reference(&base, &w) + f64::from(FACTOR) * reference(&small, &b);
    let largest = expected.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
    for cpu in available() {
        let kernel = QuantizedKernel::for_cpu(cpu);
        let mut found = Array2::zeros((m, n));
        let mut memory = [vec![0_u64; WORDS], vec![0_u64; WORDS]];
        let [base, small] = [(&base, w), (&small, b)].map(|(x, matrix)| {
            let memory = memory[usize::from(x.ncols() == 256)].as_mut_ptr().cast();
            let scheme = kernel.activation_scheme(matrix.format(), m);
            assert!(QuantizedActivations::bytes(m, x.ncols(), kernel) <= 8 * WORDS);
            // SAFETY: the memory has this size and lives until the end; no other thread uses it.
            unsafe {
                let rows = QuantizedActivations::new(memory, m, x.ncols(), scheme, kernel);
                let rows = rows.scaled(if x.ncols() == 256 { FACTOR } else { 1.0 });
                (0..rows.pieces()).for_each(|piece| rows.quantize(x.as_slice().unwrap(), piece));
                rows
            }
        });
        let out = SharedOutput::new(found.as_mut_ptr(), n);
        let product = QuantizedMatmul::new(w, base, out, kernel).plus(b, small);
        // SAFETY: the rows are quantized, `found` has the shape of the result, and there is no
        // other thread.
        (0..product.tasks(3)).for_each(|task| unsafe { product.run(task, 3) });
        for (f, e) in found.iter().zip(&expected) {
            assert!((f64::from(*f) - e).abs() < 1e-5 * largest, "{cpu:?}");
        }
    }
}

#[test]
fn the_largest_weights_and_activations_do_not_overflow() {
    for format in QuantFormat::ALL {
        for byte in [0, 0x7f, 0x80, 0xff] {
            let mut bytes = vec![byte; format.row_bytes(256).unwrap() * 9];
            for (i, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
                let f16_offsets: &[usize] = match format {
                    QuantFormat::Q4K | QuantFormat::Q5K => &[0, 2],
                    QuantFormat::Q6K => &[208],
                    _ => &[0],
                };
                for at in f16_offsets {
                    let scale = half::f16::from_f32(1.0 + i as f32);
                    block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
            }
            let matrix = QuantizedMatrix::new(format, &bytes, 9, 256).unwrap();
            for (n, sign) in [1, 3, 64].into_iter().flat_map(|n| [(n, 1.0), (n, -1.0)]) {
                let x = Array2::from_elem((n, 256), sign);
                let expected = reference(&x, &matrix);
                for cpu in available() {
                    for (f, e) in run(cpu, &x, matrix).iter().zip(&expected) {
                        let off = (f64::from(*f) - e).abs();
                        assert!(
                            off <= 1e-5 * e.abs().max(1.0),
                            "{format:?} {cpu:?} {byte} {sign}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn results_depend_neither_on_the_thread_count_nor_on_other_rows() {
    let bytes = weights(QuantFormat::Q4K, 200, 512, 1);
    let matrix = QuantizedMatrix::new(QuantFormat::Q4K, &bytes, 200, 512).unwrap();
    let x = noise(100, 512, 2);
    let one = with_threads(1, || run(Cpu::chosen(), &x, matrix));
    let three = with_threads(3, || run(Cpu::chosen(), &x, matrix));
    assert_eq!(one, three);
    let first = x.slice(ndarray::s![..1, ..]).to_owned();
    let alone = run(Cpu::chosen(), &first, matrix);
    let largest = alone.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    for (alone, among) in alone.iter().zip(one.row(0)) {
        assert!((alone - among).abs() <= 1e-5 * largest); // sums in another order
    }
}

#[test]
fn nan_and_infinity_make_only_their_row_nan() {
    let bytes = weights(QuantFormat::Q6K, 9, 256, 1);
    let matrix = QuantizedMatrix::new(QuantFormat::Q6K, &bytes, 9, 256).unwrap();
    for (bad, n) in [f32::NAN, f32::INFINITY]
        .into_iter()
        .flat_map(|bad| [(bad, 3), (bad, 70)])
    {
        let mut x = noise(n, 256, 5);
        x[[1, 7]] = bad;
        for cpu in available() {
            let found = run(cpu, &x, matrix);
            for (i, row) in found.rows().into_iter().enumerate() {
                assert!(
                    row.iter().all(|v| v.is_finite() != (i == 1)),
                    "{bad} {cpu:?} {i}"
                );
            }
        }
    }
}

#[test]
fn every_layout_dequantizes_to_the_same_rows() {
    for format in QuantFormat::ALL {
        for n in [1, 2, 7, 12, 70] {
            let x = noise(n, 288, 7);
            let read = |cpu| {
                let mut rows = OwnedQuantizedActivations::default();
                rows.quantize(&x.view(), format.scheme(), QuantizedKernel::for_cpu(cpu));
                (0..n).map(|i| rows.to_f32(i)).collect::<Vec<_>>()
            };
            for cpu in available() {
                assert_eq!(read(cpu), read(Cpu::Scalar), "{format:?} {cpu:?} {n}");
            }
        }
    }
}

#[test]
fn bytes_of_another_length_are_refused() {
    let bytes = vec![0; 144 * 4 + 1];
    assert!(QuantizedMatrix::new(QuantFormat::Q4K, &bytes[..144 * 4], 2, 512).is_some());
    assert!(QuantizedMatrix::new(QuantFormat::Q4K, &bytes, 2, 512).is_none());
    assert!(QuantizedMatrix::new(QuantFormat::Q4K, &bytes[..144], 1, 255).is_none());
    assert!(QuantizedMatrix::new(QuantFormat::Q4K, &[], 0, 256).is_none());
    assert!(QuantizedMatrix::new(QuantFormat::Q8_0, &bytes[..34], usize::MAX, 32).is_none());
}

#[test]
fn the_partition_does_not_change_the_result() {
    let (m, n, width) = (300, 70, 512);
    let x = noise(m, width, 1);
    let bytes = weights(QuantFormat::Q4K, n, width, 2);
    let matrix = QuantizedMatrix::new(QuantFormat::Q4K, &bytes, n, width).unwrap();
    for cpu in available() {
        let one = with_threads(1, || run(cpu, &x, matrix));
        let many = with_threads(7, || run(cpu, &x, matrix));
        assert_eq!(one, many, "{cpu:?}");
    }
}

/// The kernels of this CPU for activations with a scale per 32 elements.
fn fine_kernels() -> impl Iterator<Item = &'static QuantizedKernel> {
    available()
        .into_iter()
        .map(|cpu| QuantizedKernel::for_cpu(cpu).for_rows(0))
}

fn fine_rows(
    x: &Array2<f32>,
    format: QuantFormat,
    kernel: &'static QuantizedKernel,
) -> OwnedQuantizedActivations {
    let mut rows = OwnedQuantizedActivations::default();
    let scheme = format.scheme().with_fine_activations();
    rows.quantize(&x.view(), scheme, kernel);
    rows
}

/// The matmul with a scale per 32 activations.
fn run_fine(
    x: &Array2<f32>,
    matrix: QuantizedMatrix,
    kernel: &'static QuantizedKernel,
) -> Array2<f32> {
    let rows = fine_rows(x, matrix.format(), kernel);
    let mut out = Array2::from_elem((x.nrows(), matrix.n_out()), 7.0);
    matmul_of_parts(&rows, &[matrix], None, Epilogue::Store, out.view_mut());
    out
}

#[test]
fn fine_activations_are_close_to_f64_and_equal_scalar_bit_for_bit() {
    let scalar = QuantizedKernel::for_cpu(Cpu::Scalar);
    for format in QuantFormat::ALL {
        for (m, n, k) in [
            (1, 9, 256),
            (7, 33, 512),
            (13, 65, 256),
            (70, 40, 768),
            (513, 5, 256),
        ] {
            let bytes = weights(format, n, k, 13);
            let matrix = QuantizedMatrix::new(format, &bytes, n, k).unwrap();
            let x = noise(m, k, 4);
            let rows = fine_rows(&x, format, scalar);
            let w = expanded(&matrix);
            let rows: Vec<Vec<f32>> = (0..m).map(|i| rows.to_f32(i)).collect();
            let expected = Array2::from_shape_fn((m, n), |(i, j)| {
                let products = w.row(j).into_iter().zip(&rows[i]);
                products.map(|(w, x)| w * f64::from(*x)).sum::<f64>()
            });
            let largest = expected.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
            let of_scalar = run_fine(&x, matrix, scalar);
            for kernel in fine_kernels() {
                let found = run_fine(&x, matrix, kernel);
                // The GEMV sums in another order.
                let gemv = format.scheme().fine && (kernel.gemv)(format, m).is_some();
                let same = found == of_scalar || gemv;
                assert!(same, "{format:?} {:?} {m} {n} {k}", kernel.cpu);
                for (f, e) in found.iter().zip(&expected) {
                    assert!((f64::from(*f) - e).abs() <= 1e-5 * largest, "{format:?}");
                }
            }
        }
    }
}

#[test]
fn rows_are_quantized_alike_by_superblocks_and_by_blocks() {
    for format in QuantFormat::ALL {
        for kernel in fine_kernels() {
            for (n, width) in [(1, 32), (7, 288), (13, 1024)] {
                let x = noise(n, width, 3);
                let expected = fine_rows(&x, format, kernel);
                let mut found = OwnedQuantizedActivations::default();
                let rows =
                    found.prepare_for((n, width), format.scheme().with_fine_activations(), kernel);
                for (i, x) in x.rows().into_iter().enumerate() {
                    #[allow(unsafe_code)]
                    // SAFETY: there is no other thread.
                    unsafe {
                        rows.quantize_blocks(i, 0, x.to_slice().unwrap());
                    }
                }
                for row in (0..n).step_by(kernel.rows) {
                    for superblock in 0..width.div_ceil(SUPERBLOCK) {
                        let [a, b] = [&expected, &found]
                            .map(|rows| contents(rows, kernel, (row, n), superblock));
                        assert!(a == b, "{format:?} {:?} {n} {width}", kernel.cpu);
                    }
                }
            }
        }
    }
}

/// Values, scales and sums of a tile's rows in one superblock, in the kernel's order.
#[allow(unsafe_code)]
fn contents(
    rows: &OwnedQuantizedActivations,
    kernel: &QuantizedKernel,
    (row, n): (usize, usize),
    superblock: usize,
) -> (Vec<i8>, Vec<f32>, Vec<i32>) {
    use super::activations::{RUNS, SCALES};
    let n = kernel.rows.min(n - row);
    let (values, scales, sums) = rows.shared().tile(row, superblock);
    // SAFETY: the tile has this many rows, and nobody writes them.
    unsafe {
        (
            std::slice::from_raw_parts(values, n * SUPERBLOCK).to_vec(),
            std::slice::from_raw_parts(scales, n * SCALES).to_vec(),
            std::slice::from_raw_parts(sums, n * RUNS).to_vec(),
        )
    }
}

#[test]
fn parts_are_stacked_and_bias_and_epilogue_applied() {
    let bias = noise(1, 96, 4).into_raw_vec_and_offset().0;
    for format in QuantFormat::ALL {
        let bytes = [weights(format, 32, 256, 1), weights(format, 64, 256, 2)];
        let matrix = |i: usize, n| QuantizedMatrix::new(format, &bytes[i], n, 256).unwrap();
        let parts = [matrix(0, 32), matrix(1, 64)];
        for (kernel, n) in fine_kernels().flat_map(|k| [(k, 9), (k, 70)]) {
            let x = noise(n, 256, 3);
            let before = noise(n, 100, 5);
            let mut wide = before.clone();
            let rows = fine_rows(&x, format, kernel);
            let out = wide.slice_mut(ndarray::s![.., 2..98]);
            matmul_of_parts(&rows, &parts, Some(&bias), Epilogue::Add, out);
            let products = parts.map(|part| run_fine(&x, part, kernel));
            for ((i, j), found) in wide.indexed_iter() {
                let expected = match j {
                    2..34 => before[[i, j]] + (products[0][[i, j - 2]] + bias[j - 2]),
                    34..98 => before[[i, j]] + (products[1][[i, j - 34]] + bias[j - 2]),
                    _ => before[[i, j]],
                };
                assert_eq!(*found, expected, "{format:?} {:?} {i} {j}", kernel.cpu);
            }
        }
    }
}

#[test]
fn a_quantized_output_equals_the_output_quantized() {
    use QuantFormat::{Q4K, Q6K, Q8_0};
    for (format, next) in [(Q8_0, Q8_0), (Q8_0, Q4K), (Q4K, Q6K), (Q6K, Q4K)] {
        for (m, n) in [(1, 32), (5, 64), (13, 96), (515, 160)] {
            let (bytes, x) = (weights(format, n, 256, 1), noise(m, 256, 2));
            let matrix = QuantizedMatrix::new(format, &bytes, n, 256).unwrap();
            let bias = noise(1, n, 3).into_raw_vec_and_offset().0;
            for kernel in fine_kernels() {
                let x = fine_rows(&x, format, kernel);
                let epilogue = Epilogue::QuickGelu;
                let mut plain = Array2::zeros((m, n));
                matmul_of_parts(&x, &[matrix], Some(&bias), epilogue, plain.view_mut());
                let expected = fine_rows(&plain, next, kernel);
                let mut found = OwnedQuantizedActivations::default();
                let scheme = next.scheme().with_fine_activations();
                let parts = [matrix];
                matmul_of_parts_quantized(&x, &parts, Some(&bias), epilogue, scheme, &mut found);
                for i in 0..m {
                    let same = found.to_f32(i) == expected.to_f32(i);
                    assert!(same, "{:?}, {m} x {n}, row {i}", kernel.cpu);
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_make_only_their_row_nan_with_fine_activations() {
    for format in QuantFormat::ALL {
        let bytes = weights(format, 9, 256, 1);
        let matrix = QuantizedMatrix::new(format, &bytes, 9, 256).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = noise(70, 256, 5);
            x[[1, 7]] = bad;
            for kernel in fine_kernels() {
                let found = run_fine(&x, matrix, kernel);
                for (i, row) in found.rows().into_iter().enumerate() {
                    let same = row.iter().all(|v| v.is_finite() != (i == 1));
                    assert!(same, "{format:?} {bad} {:?} {i}", kernel.cpu);
                }
            }
        }
    }
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
/// not show. The weights are exact, so that all errors are those of the activations.
#[test]
fn a_scale_per_32_activations_limits_the_error_of_massive_ones() {
    const K: usize = 1024;
    let (m, n) = (24, 256);
    let mut x = noise(m, K, 13);
    for outlier in [7, 300, 900] {
        x.column_mut(outlier).mapv_inplace(|v| 100.0 * v.signum());
    }
    for format in QuantFormat::ALL {
        let bytes = weights(format, n, K, 14);
        let matrix = QuantizedMatrix::new(format, &bytes, n, K).unwrap();
        let w = expanded(&matrix);
        // What the outliers contribute is known exactly, and is left out of the comparison.
        let mut rest = w.clone();
        for outlier in [7, 300, 900] {
            rest.column_mut(outlier).fill(0.0);
        }
        let outliers = x.mapv(f64::from).dot(&(&w - &rest).t());
        let exact = x.mapv(f64::from).dot(&rest.t());
        let without = |found: Array2<f32>| cosines(&(found.mapv(f64::from) - &outliers), &exact);
        let (least, mean) = without(run_fine(&x, matrix, QuantizedKernel::fine()));
        assert!(least > 0.98 && mean > 0.99, "{format:?}: {least}, {mean}");
        if !format.scheme().fine {
            let (_, mean) = without(run(Cpu::chosen(), &x, matrix));
            assert!(mean < 0.97, "{format:?} with a scale per 256: {mean}");
        }
    }
}
