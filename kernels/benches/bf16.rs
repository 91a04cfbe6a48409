//! How much of the machine's peak do the matrix products of the tower reach?
//!
//! `cargo bench -p xc2-kernels --bench bf16`. 1226 tokens by the shapes of a layer; "before" is
//! the crate `gemm` in f32, a panel of 64 outputs to a task. `RAYON_NUM_THREADS` sets the threads.
//! Rates are by CPU time.

mod timing;

use half::bf16;
use ndarray::{Array2, Axis, s};
use rayon::prelude::*;
use timing::{Time, measure};
use xc2_kernels::bf16::Bf16Matrix;
use xc2_kernels::peak::Peak;
use xc2_kernels::testing::{max_diff, noise};
use xc2_kernels::{Cpu, Epilogue, available, gemm};

const N: usize = 1226;

fn main() {
    let peak = Peak::measure(1);
    println!("peak of one core: {peak}");
    for (n_in, n_out) in [(1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024)] {
        product(&peak, n_in, n_out);
    }
}

fn product(peak: &Peak, n_in: usize, n_out: usize) {
    let threads = rayon::current_num_threads();
    let flops = 2.0 * (N * n_in * n_out) as f64;
    let report = |name: &str, time: Time, peak: f64| {
        let share = 100.0 * flops / time.cpu / (peak * threads as f64);
        let rate = flops / time.cpu / 1e9;
        println!("{name:28} {time}; {rate:5.0} GFLOP/s {share:4.0} % of the peak");
    };
    println!("[{N}, {n_in}] x [{n_out}, {n_in}], {threads} threads");
    let (x, weights) = (noise(N, n_in, 1), noise(n_out, n_in, 2));

    let transposed = weights.t().as_standard_layout().into_owned();
    let mut expected = Array2::zeros((N, n_out));
    let time = measure(20, || {
        let panels: Vec<_> = expected.axis_chunks_iter_mut(Axis(1), 64).collect();
        panels
            .into_par_iter()
            .enumerate()
            .with_max_len(1)
            .for_each(|(i, mut out)| {
                let weights = transposed.slice(s![.., i * 64..i * 64 + out.ncols()]);
                gemm(1.0, &x.view(), &weights, &mut out);
            });
    });
    report("before, f32", time, peak.f32);

    let bytes: Vec<u8> = weights
        .iter()
        .flat_map(|&w| bf16::from_f32(w).to_le_bytes())
        .collect();
    let matrix = Bf16Matrix::new(&[&bytes], n_in);
    for cpu in available() {
        if ![Cpu::Scalar, Cpu::Avx512Bf16].contains(&cpu) {
            continue; // the same as `Scalar`
        }
        for epilogue in [Epilogue::Store, Epilogue::QuickGelu] {
            let slow = cpu == Cpu::Scalar;
            if slow && epilogue != Epilogue::Store {
                continue;
            }
            let mut out = Array2::zeros((N, n_out));
            let time = measure(if slow { 1 } else { 30 }, || {
                matrix.product_on(cpu, &x.view(), None, epilogue, out.view_mut());
            });
            report(&format!("{}, {epilogue:?}", cpu.name()), time, peak.bf16);
            // Two roundings of one in 256 at the most, over sums of n_in products.
            let limit = (n_in as f32).sqrt() / 128.0;
            assert!(epilogue != Epilogue::Store || max_diff(&out, &expected) < limit);
        }
    }
}
