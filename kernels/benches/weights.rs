//! Measures the matmul with llama.cpp's weight formats, for each kernel of this CPU.
//!
//! With many rows, billions of operations (two per multiply-add) per second; with few rows, bytes
//! of weights per second, which memory limits. Both by CPU time on one thread, best of a few, which
//! other work on the machine disturbs least. With `memory` there are more weights than the caches
//! hold.
//!
//! `cargo bench -p xc2-kernels --bench weights -- [TYPE ..] [KERNEL ..] [ROWS ..] [memory]`

use std::hint::black_box;

use half::{bf16, f16};
use ndarray::Array2;
use xc2_kernels::float::{self, Float16Slice, FloatKernel, FloatMatrix};
use xc2_kernels::quantized::{self, QuantFormat, QuantizedKernel, QuantizedMatrix};
use xc2_kernels::testing::{cpu_seconds, noise, with_threads};
use xc2_kernels::{Cpu, available};

/// Inputs and outputs of the up-projection of the 1.8B.
const N_IN: usize = 2048;
const N_OUT: usize = 8192;
/// With this many outputs the weights take half a gigabyte or more.
const N_OUT_FROM_MEMORY: usize = 500_000;
const REPETITIONS: usize = 3;

/// Weights of some type, for the benched number of outputs.
enum BenchWeights {
    Blocks(QuantFormat, Vec<u8>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// The names of the types.
fn types() -> Vec<String> {
    let blocks = QuantFormat::ALL.map(|format| format!("{format:?}"));
    let halves = ["F16", "Bf16"].map(str::to_owned);
    blocks.into_iter().chain(halves).collect()
}

impl BenchWeights {
    fn new(name: &str, n_out: usize) -> Self {
        let n = n_out * N_IN;
        let format = QuantFormat::ALL
            .into_iter()
            .find(|f| format!("{f:?}") == name);
        match format {
            Some(format) => {
                Self::Blocks(format, vec![0x21; format.row_bytes(N_IN).unwrap() * n_out])
            }
            None if name == "F16" => Self::F16(vec![f16::from_f32(0.01); n]),
            None => Self::Bf16(vec![bf16::from_f32(0.01); n]),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Blocks(_, bytes) => bytes.len(),
            Self::F16(numbers) => 2 * numbers.len(),
            Self::Bf16(numbers) => 2 * numbers.len(),
        }
    }

    fn product(&self, x: &Array2<f32>, n_out: usize, cpu: Cpu, out: &mut Array2<f32>) {
        let (x, out) = (x.view(), out.view_mut());
        let halves = match self {
            Self::Blocks(format, bytes) => {
                let bytes = &bytes[..format.row_bytes(N_IN).unwrap() * n_out];
                let matrix = QuantizedMatrix::new(*format, bytes, n_out, N_IN).unwrap();
                return quantized::matmul(&x, matrix, QuantizedKernel::for_cpu(cpu), out);
            }
            Self::F16(numbers) => Float16Slice::F16(&numbers[..n_out * N_IN]),
            Self::Bf16(numbers) => Float16Slice::Bf16(&numbers[..n_out * N_IN]),
        };
        let matrix = FloatMatrix::new(halves, n_out, N_IN).unwrap();
        float::matmul(&x, matrix, FloatKernel::for_cpu(cpu, &halves), out);
    }
}

fn main() {
    let args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (rows, words): (Vec<_>, Vec<_>) = args.partition(|a| a.parse::<usize>().is_ok());
    let mut rows: Vec<usize> = rows.iter().filter_map(|a| a.parse().ok()).collect();
    if rows.is_empty() {
        rows = vec![1, 2, 4, 8, 64, 512];
    }
    let from_memory = words.iter().any(|w| w == "memory");
    let n_out = if from_memory {
        N_OUT_FROM_MEMORY
    } else {
        N_OUT
    };
    let named = |names: &mut dyn Iterator<Item = String>| {
        let all: Vec<_> = names.collect();
        let some: Vec<_> = all.iter().filter(|n| words.contains(n)).cloned().collect();
        if some.is_empty() { all } else { some }
    };
    let types = named(&mut types().into_iter());
    let wanted_cpus = named(&mut available().iter().map(|cpu| cpu.name().to_owned()));
    println!("{N_IN} x {n_out}: GOP/s, GB/s of weights");
    println!(
        "{:<6} {:<14} {:>6} {:>10} {:>10}",
        "", "kernel", "rows", "GOP/s", "GB/s"
    );
    for name in types {
        let weights = BenchWeights::new(&name, n_out);
        let cpus = available().into_iter();
        for cpu in cpus.filter(|cpu| wanted_cpus.contains(&cpu.name().to_owned())) {
            let outputs = if cpu == Cpu::Scalar { 512 } else { n_out };
            // With more rows plain Rust takes seconds.
            for &n in rows.iter().filter(|n| cpu != Cpu::Scalar || **n <= 8) {
                let seconds = time(&weights, n, outputs, cpu);
                println!(
                    "{name:<6} {:<14} {n:>6} {:>10.0} {:>10.1}",
                    cpu.name(),
                    2.0 * (n * outputs * N_IN) as f64 / seconds / 1e9,
                    (weights.bytes() / n_out * outputs) as f64 / seconds / 1e9,
                );
            }
        }
    }
}

/// CPU seconds of a matmul on one thread, including packing the activations: the smallest of a few
/// means, each long enough for a clock that advances only every few milliseconds.
fn time(weights: &BenchWeights, n: usize, n_out: usize, cpu: Cpu) -> f64 {
    const LONG: f64 = 0.2;
    let x = noise(n, N_IN, 1);
    let mut out = Array2::zeros((n, n_out));
    let mut mean = || {
        let (start, mut runs) = (cpu_seconds(), 0.0);
        loop {
            weights.product(&x, n_out, cpu, &mut out);
            black_box(&out);
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
