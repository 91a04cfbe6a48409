//! Measures what an adapter costs besides the matrix to which it is added, for each kernel of this
//! CPU except plain Rust.
//!
//! For matrices of the 7B decoder and an adapter of rank 256: milliseconds of CPU time on one
//! thread, the smallest of a few means, with the steps interleaved. Base: quantizing the rows, and
//! the matmul. Adapter: quantizing the rows again if it needs another scheme, its first matmul,
//! quantizing the result, and what its second matrix adds to the base's matmul. `share` is the
//! adapter's time relative to the base's, `arithmetic` the same for its multiplications.
//!
//! `cargo bench -p xc2-kernels --bench adapter -- [KERNEL ..] [ROWS]`

#![allow(unsafe_code)]

use std::hint::black_box;

use ndarray::Array2;
use xc2_kernels::quantized::{
    QuantFormat, QuantizedActivations, QuantizedKernel, QuantizedMatmul, QuantizedMatrix,
};
use xc2_kernels::testing::{cpu_seconds, noise};
use xc2_kernels::{Cpu, SharedOutput, available};

/// Inputs and outputs of the 7B's matrices: attention output, up- and down-projection.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (4096, 14336), (14336, 4096)];
const RANK: usize = 256;
const BASE: QuantFormat = QuantFormat::Q4K;
const ADAPTERS: [QuantFormat; 3] = [QuantFormat::Q8_0, QuantFormat::Q6K, QuantFormat::Q4K];
const REPETITIONS: usize = 3;
/// CPU seconds per measurement, at least: the clock advances only every few milliseconds.
const LONG: f64 = 0.4;

/// Quantized weights.
struct QuantizedWeights {
    format: QuantFormat,
    bytes: Vec<u8>,
    n_out: usize,
    n_in: usize,
}

impl QuantizedWeights {
    fn new(format: QuantFormat, n_out: usize, n_in: usize) -> Self {
        let bytes = vec![
            0x21;
            format
                .row_bytes(n_in)
                .expect("a row must be a whole number of blocks")
                * n_out
        ];
        Self {
            format,
            bytes,
            n_out,
            n_in,
        }
    }

    fn matrix(&self) -> QuantizedMatrix<'_> {
        QuantizedMatrix::new(self.format, &self.bytes, self.n_out, self.n_in)
            .expect("bytes match the shape")
    }
}

/// Activations quantized for weights of a format, with their memory.
struct AdapterInput {
    x: Array2<f32>,
    rows: QuantizedActivations,
    _memory: Vec<u64>,
}

impl AdapterInput {
    fn new(n: usize, weights: &QuantizedWeights, kernel: &'static QuantizedKernel) -> Self {
        let bytes = QuantizedActivations::bytes(n, weights.n_in, kernel);
        let mut memory = vec![0_u64; bytes.div_ceil(8)];
        let scheme = kernel.activation_scheme(weights.format, n);
        let to = memory.as_mut_ptr().cast();
        // SAFETY: the memory has this size and lives as long as the rows.
        let rows = unsafe { QuantizedActivations::new(to, n, weights.n_in, scheme, kernel) };
        let rows = Self {
            x: noise(n, weights.n_in, 1),
            rows,
            _memory: memory,
        };
        rows.fill();
        rows
    }

    fn fill(&self) {
        let x = self.x.as_slice().expect("rows must be contiguous");
        for piece in 0..self.rows.pieces() {
            // SAFETY: there is only one thread.
            unsafe { self.rows.quantize(x, piece) }
        }
    }
}

fn main() {
    let args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (rows, names): (Vec<_>, Vec<_>) = args.partition(|a| a.parse::<usize>().is_ok());
    let n = rows
        .first()
        .map_or(512, |n| n.parse().expect("expected a number"));
    println!("{n} rows, {BASE:?} plus an adapter of rank {RANK}, ms");
    println!(
        "{:<12} {:>11} | {:>6} {:>8} | {:<5} {:>8} {:>7} {:>8} {:>7} {:>7} {:>6} {:>10}",
        "kernel",
        "shape",
        "fill",
        "base",
        "",
        "fill",
        "first",
        "fill",
        "second",
        "all",
        "share",
        "arithmetic"
    );
    for cpu in available().into_iter().filter(|cpu| *cpu != Cpu::Scalar) {
        if names.is_empty() || names.contains(&cpu.name().to_owned()) {
            for (n_in, n_out) in SHAPES {
                for format in ADAPTERS {
                    steps(cpu, n, (n_in, n_out), format);
                }
            }
        }
    }
}

fn steps(cpu: Cpu, n: usize, (n_in, n_out): (usize, usize), format: QuantFormat) {
    let kernel = QuantizedKernel::for_cpu(cpu);
    let base = QuantizedWeights::new(BASE, n_out, n_in);
    let first = QuantizedWeights::new(format, RANK, n_in);
    let second = QuantizedWeights::new(format, n_out, RANK);
    let [x, x_first, small] = [&base, &first, &second].map(|w| AdapterInput::new(n, w, kernel));
    let mut out = Array2::<f32>::zeros((n, n_out));
    let [to, to_small] = [n_out, RANK].map(|width| SharedOutput::new(out.as_mut_ptr(), width));

    let product = QuantizedMatmul::new(base.matrix(), x.rows, to, kernel);
    let sum = product.plus(second.matrix(), small.rows);
    let little = QuantizedMatmul::new(first.matrix(), x_first.rows, to_small, kernel);
    let [fill, refill, fill_small, plain, sum, first] = times([
        &|| x.fill(),
        &|| x_first.fill(),
        &|| small.fill(),
        &|| run(product),
        &|| run(sum),
        &|| run(little),
    ]);
    black_box(&out);

    let shared = [format, BASE].map(|format| kernel.activation_scheme(format, n));
    let refill = if shared[0] == shared[1] { 0.0 } else { refill };
    let second = sum - plain;
    let adapter = refill + first + fill_small + second;
    println!(
        "{:<12} {:>11} | {:>6.2} {:>8.2} | {:<5} {:>8.2} {:>7.2} {:>8.2} {:>7.2} {:>7.2} {:>5.1}% {:>9.1}%",
        cpu.name(),
        format!("{n_in}x{n_out}"),
        fill * 1e3,
        plain * 1e3,
        format!("{format:?}"),
        refill * 1e3,
        first * 1e3,
        fill_small * 1e3,
        second * 1e3,
        adapter * 1e3,
        100.0 * adapter / (fill + plain),
        100.0 * (RANK * (n_in + n_out)) as f64 / (n_in * n_out) as f64,
    );
}

/// Runs a matmul whose input is filled and whose output is valid for writes.
fn run(product: QuantizedMatmul) {
    for task in 0..product.tasks(1) {
        // SAFETY: as above; the CPU has the kernel's instructions, and there is only one thread.
        unsafe { product.run(task, 1) }
    }
}

/// CPU seconds of each call on one thread, interleaved: the smallest of a few means.
fn times<const N: usize>(calls: [&dyn Fn(); N]) -> [f64; N] {
    let mean = |call: &dyn Fn()| {
        let (start, mut runs) = (cpu_seconds(), 0.0);
        loop {
            call();
            runs += 1.0;
            let seconds = cpu_seconds() - start;
            if seconds > LONG {
                return seconds / runs;
            }
        }
    };
    let mut least = [f64::INFINITY; N];
    for _ in 0..REPETITIONS {
        for (least, call) in least.iter_mut().zip(calls) {
            *least = least.min(mean(call));
        }
    }
    least
}
