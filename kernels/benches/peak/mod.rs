//! What one core of this machine multiplies at most, measured: the yardstick of the other benches.
#![allow(unsafe_code, dead_code)]

use std::time::Instant;

/// In floating-point operations a second, of one thread; 0 where this CPU has no such instruction.
pub struct Peak {
    /// f32 multiply and add.
    pub f32: f64,
    /// bf16 dot product of pairs.
    pub bf16: f64,
}

impl Peak {
    /// The best of several short runs: the machine may be shared.
    pub fn measure() -> Self {
        let peak = Self {
            f32: best(fma_flops),
            bf16: best(dot_flops),
        };
        println!(
            "peak of one core: {:.0} GFLOP/s f32, {:.0} GFLOP/s bf16",
            peak.f32 / 1e9,
            peak.bf16 / 1e9
        );
        peak
    }
}

fn best(run: fn() -> Option<f64>) -> f64 {
    (0..30).filter_map(|_| run()).fold(0.0, f64::max)
}

/// Seconds that a run took.
#[derive(Clone, Copy)]
pub struct Time {
    /// By the clock, the shortest run.
    pub wall: f64,
    /// Of the processor, for each thread: the mean of all runs, and what the clock would show if
    /// nothing else ran. The clock's, where the system does not tell.
    pub cpu: f64,
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (wall, cpu) = (self.wall * 1e3, self.cpu * 1e3);
        write!(
            f,
            "{wall:7.2} ms by the clock, {cpu:7.2} ms of CPU a thread"
        )
    }
}

/// Times `times` runs, after one that is not counted.
pub fn measure(times: usize, mut run: impl FnMut()) -> Time {
    run();
    let before = cpu_seconds();
    let mut wall = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        run();
        wall = wall.min(start.elapsed().as_secs_f64());
    }
    let shares = (times * rayon::current_num_threads()) as f64;
    let cpu = before
        .zip(cpu_seconds())
        .map_or(wall, |(before, after)| (after - before) / shares);
    Time { wall, cpu }
}

/// What this process has used of the processor, as Linux tells: in hundredths, hence over many runs.
fn cpu_seconds() -> Option<f64> {
    let line = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before may hold spaces; of what follows it, user and system time are 12th and 13th.
    let fields = line.rsplit_once(") ")?.1.split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>);
    ticks
        .sum::<Result<f64, _>>()
        .ok()
        .map(|ticks| ticks / 100.0)
}

const STEPS: usize = 100_000;
/// Independent sums: more than latency times throughput asks for, few enough for the registers.
const SUMS: usize = 12;

#[cfg(target_arch = "x86_64")]
fn fma_flops() -> Option<f64> {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    fn wide() {
        let (a, b) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow() {
        let (a, b) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }
    let start = Instant::now();
    let lanes = if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was just found.
        unsafe { wide() };
        16
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were just found.
        unsafe { narrow() };
        8
    } else {
        return None;
    };
    Some((STEPS * SUMS * lanes * 2) as f64 / start.elapsed().as_secs_f64())
}

#[cfg(target_arch = "x86_64")]
fn dot_flops() -> Option<f64> {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn run() {
        let one = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, one, one);
            }
        }
        std::hint::black_box(sums);
    }
    if !is_x86_feature_detected!("avx512bf16") {
        return None;
    }
    let start = Instant::now();
    // SAFETY: the feature was just found.
    unsafe { run() };
    Some((STEPS * SUMS * 16 * 4) as f64 / start.elapsed().as_secs_f64())
}

#[cfg(not(target_arch = "x86_64"))]
fn fma_flops() -> Option<f64> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn dot_flops() -> Option<f64> {
    None
}
