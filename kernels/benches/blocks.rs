//! How fast are products with llama.cpp's blocks? Each kernel that this CPU has.
//!
//! Many rows: billions of operations (two for each multiplication) a second. Few rows: bytes of weights
//! a second, which memory limits. Both of CPU time on one thread, best of a few: other work on the machine
//! disturbs that least. `cargo bench -p xc2-kernels --bench blocks -- [KERNEL ..] [ROWS ..] [memory]`; with
//! `memory` there are more weights than caches hold.

use std::hint::black_box;

use ndarray::Array2;
use xc2_kernels::blocks::{BlockFormat, BlockMatrix, Kernel, product};
use xc2_kernels::testing::{cpu_seconds, noise, with_threads};
use xc2_kernels::{Cpu, available};

/// Inputs and outputs of the up-projection of the 1.8B.
const N_IN: usize = 2048;
const N_OUT: usize = 8192;
/// With so many outputs weights take half a gigabyte or more.
const N_OUT_FROM_MEMORY: usize = 500_000;
const REPETITIONS: usize = 3;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let (rows, wanted): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|a| a.parse::<usize>().is_ok());
    let rows: Vec<usize> = rows.iter().filter_map(|a| a.parse().ok()).collect();
    let rows = if rows.is_empty() {
        vec![1, 2, 4, 8, 64, 512]
    } else {
        rows
    };
    let (memory, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|a| a == "memory");
    let n_out = if memory.is_empty() {
        N_OUT
    } else {
        N_OUT_FROM_MEMORY
    };
    let wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    println!("{N_IN} x {n_out}: GOP/s, GB/s of weights");
    println!(
        "{:<6} {:<14} {:>6} {:>10} {:>10}",
        "", "kernel", "rows", "GOP/s", "GB/s"
    );
    for format in BlockFormat::ALL {
        let row_bytes = format.row_bytes(N_IN).unwrap();
        let bytes = vec![0x21; row_bytes * n_out];
        for cpu in available().into_iter().filter(|cpu| wanted(cpu.name())) {
            let n_out = if cpu == Cpu::Scalar { 512 } else { n_out };
            let matrix =
                BlockMatrix::new(format, &bytes[..row_bytes * n_out], n_out, N_IN).unwrap();
            for &n in &rows {
                if cpu == Cpu::Scalar && n > 8 {
                    continue; // it takes seconds
                }
                let seconds = time(matrix, n, cpu);
                println!(
                    "{:<6} {:<14} {n:>6} {:>10.0} {:>10.1}",
                    format!("{format:?}"),
                    cpu.name(),
                    2.0 * (n * n_out * N_IN) as f64 / seconds / 1e9,
                    (row_bytes * n_out) as f64 / seconds / 1e9,
                );
            }
        }
    }
}

/// CPU seconds of a product on one thread, with quantizing the activations: the least of a few means, each
/// long enough for a clock that the kernel advances every few milliseconds.
fn time(matrix: BlockMatrix, n: usize, cpu: Cpu) -> f64 {
    const LONG: f64 = 0.2;
    let x = noise(n, matrix.n_in(), 1);
    let mut out = Array2::zeros((n, matrix.n_out()));
    let mut mean = || {
        let (start, mut runs) = (cpu_seconds(), 0.0);
        loop {
            product(&x.view(), matrix, Kernel::for_cpu(cpu), out.view_mut());
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
