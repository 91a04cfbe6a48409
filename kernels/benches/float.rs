//! Measures how much of the machine's peak the f32 and bf16 matmul reach, and how much faster they
//! are than the crate `gemm`.
//!
//! `cargo bench -p xc2-kernels --features baseline --bench float`. Shapes are the tower's: 1226 rows.
//! `RAYON_NUM_THREADS` sets the number of threads. Rates are by CPU time.

mod baseline;
mod timing;

use std::ops::Range;

use half::bf16;
use ndarray::Array2;
use timing::{Time, measure};
use xc2_kernels::bf16::Bf16Matrix;
use xc2_kernels::peak::Peak;
use xc2_kernels::testing::{max_diff, noise};
use xc2_kernels::{Cpu, Epilogue, available, float};

const N: usize = 1226;

fn main() {
    let peak = Peak::measure(1);
    println!("peak of one core: {peak}");
    for (n_in, n_out) in [(1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024)] {
        product(&peak, n_in, n_out);
    }
}

struct F32(Array2<f32>);

impl float::Weights for F32 {
    fn dim(&self) -> (usize, usize) {
        (self.0.ncols(), self.0.nrows())
    }

    fn expand(&self, rows: Range<usize>, out: &mut [f32]) {
        let n_in = self.0.ncols();
        let all = self.0.as_slice().expect("rows must be contiguous");
        out.copy_from_slice(&all[rows.start * n_in..rows.end * n_in]);
    }
}

fn product(peak: &Peak, n_in: usize, n_out: usize) {
    let threads = rayon::current_num_threads();
    let flops = 2.0 * (N * n_in * n_out) as f64;
    let report = |name: &str, time: Time, peak: f64| {
        let share = 100.0 * flops / time.cpu / (peak * threads as f64);
        let rate = flops / time.cpu / 1e9;
        println!("{name:28} {time}; {rate:5.0} GFLOP/s {share:4.0} % of peak");
    };
    println!("[{N}, {n_in}] x [{n_out}, {n_in}], {threads} threads");
    let (x, weights) = (noise(N, n_in, 1), noise(n_out, n_in, 2));

    let transposed = weights.t().as_standard_layout().into_owned();
    let mut expected = Array2::zeros((N, n_out));
    let time = measure(20, || {
        baseline::gemm::product(&x, &transposed, &mut expected);
    });
    report("baseline: f32 by `gemm`", time, peak.f32);

    let bytes: Vec<u8> = weights
        .iter()
        .flat_map(|&w| bf16::from_f32(w).to_le_bytes())
        .collect();
    let matrix = Bf16Matrix::new(&[&bytes], n_in);
    let weights = F32(weights);
    let mut out = Array2::zeros((N, n_out));
    let times = |cpu| if cpu == Cpu::Scalar { 1 } else { 20 };
    for cpu in available() {
        if ![Cpu::Scalar, Cpu::Avx2, Cpu::Avx512, Cpu::Neon].contains(&cpu) {
            continue; // the same kernel as one of these
        }
        let time = measure(times(cpu), || {
            let then = Epilogue::Store;
            float::matmul_on(cpu, &x.view(), &weights, None, then, out.view_mut());
        });
        report(&format!("{}, f32", cpu.name()), time, peak.f32);
        assert!(max_diff(&out, &expected) < 1e-3);
    }
    for cpu in available() {
        if ![Cpu::Scalar, Cpu::Avx512Bf16, Cpu::NeonI8mm].contains(&cpu) {
            continue; // the same kernel as `Scalar`
        }
        let time = measure(times(cpu), || {
            matrix.matmul_on(cpu, &x.view(), None, Epilogue::Store, out.view_mut());
        });
        report(&format!("{}, bf16", cpu.name()), time, peak.bf16);
        // Both operands are rounded by at most one in 256, over sums of n_in products.
        let limit = (n_in as f32).sqrt() / 128.0;
        assert!(max_diff(&out, &expected) < limit);
    }
}
