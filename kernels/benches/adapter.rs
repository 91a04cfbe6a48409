//! What does an adapter cost, beside the matrix that it is added to? Each kernel that this CPU has.
//!
//! For a matrix of the 7B's decoder and an adapter of rank 256: milliseconds of each step of the product with an adapter,
//! of CPU time on one thread, the least of a few. The share of the arithmetic is what the adapter's steps would take at the
//! base's rate. `cargo bench -p xc2-kernels --bench adapter -- [KERNEL ..] [ROWS]`

#![allow(unsafe_code)]

use std::hint::black_box;

use ndarray::Array2;
use xc2_kernels::blocks::{BlockFormat, BlockMatrix, Kernel, Product, SharedRows};
use xc2_kernels::testing::{cpu_seconds, noise};
use xc2_kernels::{Cpu, SharedOut, available};

/// Inputs and outputs of the 7B's matrices: output of the attention, up- and down-projection.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (4096, 14336), (14336, 4096)];
const RANK: usize = 256;
const BASE: BlockFormat = BlockFormat::Q4K;
const ADAPTERS: [BlockFormat; 2] = [BlockFormat::Q8_0, BlockFormat::Q4K];
const REPETITIONS: usize = 5;

/// Weights in blocks.
struct Weights {
    format: BlockFormat,
    bytes: Vec<u8>,
    n_out: usize,
    n_in: usize,
}

impl Weights {
    fn new(format: BlockFormat, n_out: usize, n_in: usize) -> Self {
        let bytes = vec![0x21; format.row_bytes(n_in).expect("whole blocks") * n_out];
        Self {
            format,
            bytes,
            n_out,
            n_in,
        }
    }

    fn matrix(&self) -> BlockMatrix<'_> {
        BlockMatrix::new(self.format, &self.bytes, self.n_out, self.n_in).expect("its size")
    }
}

/// Activations for weights of a format, and their memory.
struct Rows {
    x: Array2<f32>,
    rows: SharedRows,
    _memory: Vec<u64>,
}

impl Rows {
    fn new(n: usize, weights: &Weights, kernel: &'static Kernel) -> Self {
        let bytes = SharedRows::bytes(n, weights.n_in, kernel);
        let mut memory = vec![0_u64; bytes.div_ceil(8)];
        let shape = weights.format.shape();
        let to = memory.as_mut_ptr().cast();
        // SAFETY: so many bytes, which stay where they are as long as the rows.
        let rows = unsafe { SharedRows::new(to, n, weights.n_in, shape, kernel) };
        let rows = Self {
            x: noise(n, weights.n_in, 1),
            rows,
            _memory: memory,
        };
        rows.fill();
        rows
    }

    fn fill(&self) {
        let x = self.x.as_slice().expect("rows are contiguous");
        for piece in 0..self.rows.pieces() {
            // SAFETY: one thread.
            unsafe { self.rows.quantize(x, piece) }
        }
    }
}

fn main() {
    let args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (rows, names): (Vec<_>, Vec<_>) = args.partition(|a| a.parse::<usize>().is_ok());
    let n = rows.first().map_or(512, |n| n.parse().expect("a number"));
    println!(
        "{n} rows, {BASE:?} and an adapter of rank {RANK}: ms, and the adapter's share of base and fill"
    );
    println!(
        "{:<14} {:>13} {:<5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>10}",
        "kernel",
        "shape",
        "",
        "fill",
        "base",
        "fill",
        "first",
        "fill",
        "sum",
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

fn steps(cpu: Cpu, n: usize, (n_in, n_out): (usize, usize), format: BlockFormat) {
    let kernel = Kernel::for_cpu(cpu);
    let base = Weights::new(BASE, n_out, n_in);
    let first = Weights::new(format, RANK, n_in);
    let second = Weights::new(format, n_out, RANK);
    let [x, x_first, small] = [&base, &first, &second].map(|w| Rows::new(n, w, kernel));
    let mut out = Array2::<f32>::zeros((n, n_out));
    let [to, to_small] = [n_out, RANK].map(|width| SharedOut::new(out.as_mut_ptr(), width));

    let product = Product::new(base.matrix(), x.rows, to, kernel);
    let plain = time_product(product);
    let sum = time_product(product.plus(second.matrix(), small.rows));
    let first = time_product(Product::new(first.matrix(), x_first.rows, to_small, kernel));
    let fills = [&x, &x_first, &small].map(|rows| time(|| rows.fill()));
    black_box(&out);

    let refill = if format == BASE { 0.0 } else { fills[1] };
    let extra = refill + first + fills[2] + sum - plain;
    println!(
        "{:<14} {:>13} {:<5} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>6.1}% {:>9.1}%",
        cpu.name(),
        format!("{n_in}x{n_out}"),
        format!("{format:?}"),
        fills[0] * 1e3,
        plain * 1e3,
        refill * 1e3,
        first * 1e3,
        fills[2] * 1e3,
        sum * 1e3,
        100.0 * extra / (plain + fills[0]),
        100.0 * (RANK * (n_in + n_out)) as f64 / (n_in * n_out) as f64,
    );
}

/// The time of a product whose rows are filled and whose result may be written.
fn time_product(product: Product) -> f64 {
    time(|| {
        for task in 0..product.tasks(1) {
            // SAFETY: as above; the CPU has the kernel, and there is one thread.
            unsafe { product.run(task, 1) }
        }
    })
}

/// CPU seconds of a call on one thread, the least of a few means.
fn time(mut f: impl FnMut()) -> f64 {
    let mut mean = || {
        let (start, mut runs) = (cpu_seconds(), 0.0);
        loop {
            f();
            runs += 1.0;
            let seconds = cpu_seconds() - start;
            if seconds > 0.1 {
                return seconds / runs;
            }
        }
    };
    (0..REPETITIONS)
        .map(|_| mean())
        .fold(f64::INFINITY, f64::min)
}
