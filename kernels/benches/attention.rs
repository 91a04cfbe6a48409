//! Measures how much of the machine's peak attention reaches, and how much faster it is than the
//! implementation before.
//!
//! `cargo bench -p xc2-kernels --features baseline --bench attention`. The size is the tower's: 1226 tokens, 16 heads
//! of 64, 24 layers. `RAYON_NUM_THREADS` sets the number of threads. Rates are by CPU time.

mod baseline;
mod timing;

use ndarray::Array2;
use timing::{Time, measure};
use xc2_kernels::attention::{Precision, attention_on};
use xc2_kernels::peak::Peak;
use xc2_kernels::testing::{max_diff, noise};
use xc2_kernels::{Cpu, available};

const N: usize = 1226;
const N_HEAD: usize = 16;
const N_EMBD: usize = 1024;
const LAYERS: usize = 24;

fn main() {
    let peak = Peak::measure(1);
    println!("peak of one core: {peak}");
    let threads = rayon::current_num_threads();
    let qkv = noise(N, 3 * N_EMBD, 1) * 2.0;
    let mut expected = Array2::zeros((N, N_EMBD));
    let flops = 4.0 * (N * N * N_EMBD) as f64;
    println!(
        "{N} tokens, {N_HEAD} heads of width {}, {threads} threads",
        N_EMBD / N_HEAD
    );
    let report = |name: &str, time: Time, peak: f64, diff: f32| {
        let rate = flops / time.cpu;
        let share = 100.0 * rate / (peak * threads as f64);
        println!(
            "{name:18} {time}; {LAYERS} layers {:.3} s, {:.3} s; {:4.0} GFLOP/s, {share:3.0} % of peak, error {diff:.0e}",
            time.wall * LAYERS as f64,
            time.cpu * LAYERS as f64,
            rate / 1e9,
        );
    };

    let time = measure(8, || {
        baseline::attention(&qkv.view(), N_HEAD, expected.view_mut());
    });
    report("baseline: f32", time, peak.f32, 0.0);
    for cpu in available() {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let has = match precision {
                Precision::F32 => true,
                Precision::Bf16 => cpu.has_bf16(),
                Precision::F16 => cpu.has_f16(),
            };
            if !has {
                continue;
            }
            let mut out = Array2::zeros((N, N_EMBD));
            let times = if cpu == Cpu::Scalar { 2 } else { 20 };
            let run = || attention_on(cpu, &qkv.view(), N_HEAD, precision, out.view_mut());
            let time = measure(times, run);
            let diff = max_diff(&out, &expected);
            let (name, peak, limit) = match precision {
                Precision::F32 => ("f32", peak.f32, 1e-5),
                Precision::Bf16 => ("bf16", peak.bf16, 1e-2),
                // Its peak is not measured; it is twice that of f32.
                Precision::F16 => ("f16", 2.0 * peak.f32, 1e-2),
            };
            report(&format!("{}, {name}", cpu.name()), time, peak, diff);
            assert!(diff < limit, "error above the limit");
        }
    }
}
