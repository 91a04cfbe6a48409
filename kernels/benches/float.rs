//! Measures how much of the machine's peak the f32 and bf16 matmul reach, and how much faster they
//! are than the crate `gemm`.
//!
//! `cargo bench -p xc2-kernels --features baseline --bench float`. Shapes are the tower's: 1226 rows.
//! `RAYON_NUM_THREADS` sets the number of threads. Rates are by CPU time.

mod baseline;
mod timing;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::Array2;
use timing::{Time, measure};
use xc2_kernels::float::{self, Float16Slice, FloatKernel, FloatMatrix};
use xc2_kernels::peak::Peak;
use xc2_kernels::testing::{max_diff, noise};
use xc2_kernels::{Cpu, available};

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

    let (mut f16s, mut bf16s) = (
        vec![f16::ZERO; n_out * n_in],
        vec![bf16::ZERO; n_out * n_in],
    );
    let weights = weights.as_slice().expect("rows are contiguous");
    f16s.convert_from_f32_slice(weights);
    bf16s.convert_from_f32_slice(weights);
    let matrix = |weights| FloatMatrix::new(weights, n_out, n_in).expect("they have this shape");
    let mut out = Array2::zeros((N, n_out));
    let times = |cpu| if cpu == Cpu::Scalar { 1 } else { 20 };
    for cpu in available() {
        if ![Cpu::Scalar, Cpu::Avx2, Cpu::Avx512, Cpu::Neon].contains(&cpu) {
            continue; // the same kernel as one of these
        }
        let (matrix, kernel) = (matrix(Float16Slice::F16(&f16s)), FloatKernel::in_f32(cpu));
        let time = measure(times(cpu), || {
            float::matmul(&x.view(), matrix, kernel, out.view_mut());
        });
        report(&format!("{}, F16 in f32", cpu.name()), time, peak.f32);
        // Weights are rounded by at most one in 2048, over sums of n_in products.
        assert!(max_diff(&out, &expected) < (n_in as f32).sqrt() / 1024.0);
    }
    for cpu in available() {
        if ![Cpu::Scalar, Cpu::Avx512Bf16, Cpu::NeonI8mm].contains(&cpu) {
            continue; // the same kernel as `Scalar`
        }
        let (matrix, kernel) = (
            matrix(Float16Slice::Bf16(&bf16s)),
            FloatKernel::in_bf16(cpu),
        );
        let time = measure(times(cpu), || {
            float::matmul(&x.view(), matrix, kernel, out.view_mut());
        });
        report(&format!("{}, bf16", cpu.name()), time, peak.bf16);
        // Both operands are rounded by at most one in 256, over sums of n_in products.
        let limit = (n_in as f32).sqrt() / 128.0;
        assert!(max_diff(&out, &expected) < limit);
    }
}
