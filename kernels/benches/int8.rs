//! Measures the int8 matmul: each kernel of this CPU, compared with the scalar one and with f32.
//!
//! Billions of operations (two per multiply-add) per second of CPU time on one thread, best of a
//! few, which other work on the machine disturbs least. `cargo bench -p xc2-kernels --features baseline --bench int8`

mod baseline;

use std::hint::black_box;

use baseline::gemm;
use ndarray::Array2;
use xc2_kernels::int8::{self, Int8Matrix, Q8_0_BLOCK_BYTES, QuantizedRows};
use xc2_kernels::testing::{cpu_seconds, noise, with_threads};
use xc2_kernels::{Cpu, Epilogue, available};

/// Rows, inputs, outputs: attention's projections, the two of the MLP, the projector of the 7B.
const SHAPES: [(usize, usize, usize); 4] = [
    (1226, 1024, 1024),
    (1226, 1024, 4096),
    (1226, 4096, 1024),
    (1225, 4096, 4096),
];
const REPETITIONS: usize = 3;

fn main() {
    println!("{:<14} {:>18} {:>10}", "kernel", "rows x in x out", "GOP/s");
    for shape in SHAPES {
        line("f32 gemm", shape, f32_product(shape));
        for cpu in available() {
            if cpu == Cpu::Scalar && shape != SHAPES[0] {
                continue; // it takes seconds
            }
            line(
                &format!("int8 {}", cpu.name()),
                shape,
                int8_product(shape, cpu),
            );
        }
    }
}

fn line(name: &str, (m, k, n): (usize, usize, usize), seconds: f64) {
    let operations = 2.0 * (m * k * n) as f64;
    println!(
        "{name:<18} {m:>5} x {k} x {n} {:>10.0}",
        operations / seconds / 1e9
    );
}

/// CPU seconds of a run on one thread: the smallest of a few means, each long enough for a clock
/// that advances only every few milliseconds.
fn best(f: impl FnMut() + Send) -> f64 {
    const LONG: f64 = 0.3;
    let mut f = f;
    let mut mean = || {
        let (start, mut runs) = (cpu_seconds(), 0.0);
        loop {
            f();
            runs += 1.0;
            let seconds = cpu_seconds() - start;
            if seconds > LONG {
                return seconds / runs;
            }
        }
    };
    with_threads(1, || {
        (0..REPETITIONS)
            .map(|_| mean())
            .fold(f64::INFINITY, f64::min)
    })
}

fn f32_product((m, k, n): (usize, usize, usize)) -> f64 {
    let (x, weights) = (noise(m, k, 1), noise(k, n, 2));
    let mut out = Array2::zeros((m, n));
    best(|| {
        gemm::product(&x, &weights, &mut out);
        black_box(&out);
    })
}

/// Includes quantizing the activations.
fn int8_product((m, k, n): (usize, usize, usize), cpu: Cpu) -> f64 {
    let x = noise(m, k, 1);
    let weights: Vec<u8> = (0..n * k / 32 * Q8_0_BLOCK_BYTES)
        .map(|i| {
            if i % Q8_0_BLOCK_BYTES < 2 {
                0x20
            } else {
                (i * 7919) as u8
            }
        })
        .collect();
    let matrix = Int8Matrix::pack(&[&weights], k, cpu);
    let mut rows = QuantizedRows::default();
    let mut out = Array2::zeros((m, n));
    best(|| {
        rows.quantize(&x.view(), matrix.kernel());
        int8::matmul(&rows, &matrix, None, Epilogue::Store, out.view_mut());
        black_box(&out);
    })
}
