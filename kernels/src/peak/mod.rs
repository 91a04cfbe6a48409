//! Measures the peak arithmetic and memory rates of this machine, for the benches, `xc2-edge bench`
//! and `xc2-edge doctor`.
//!
//! A run repeats one multiply instruction on registers, with enough independent sums to hide its
//! latency. It loads nothing, so no matmul is faster. (With AMX, matmuls whose scales change every
//! 32 inputs stay far below this peak.) [`memory_read`] measures the other limit: the rate at which
//! weights can be read.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use std::{sync::Barrier, thread, time::Instant};

use crate::tile::{L2, PrefetchStream};

/// Operations per second of several threads together. A multiplication and an addition count as
/// two. 0 where this CPU has no such instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peak {
    /// f32 multiply and add.
    pub f32: f64,
    /// Dot products of bf16 pairs, sums in f32.
    pub bf16: f64,
    /// Dot products of int8, sums in int32.
    pub int8: f64,
}

/// Iterations of the loop.
const STEPS: usize = 300_000;
/// Independent sums: more than latency times throughput, and few enough for the registers.
const SUMS: usize = 12;
/// Runs, of which the best counts because the machine may be shared. One takes a millisecond or
/// two.
const RUNS: usize = 20;

impl Peak {
    /// The best of several short runs on `n_threads` threads at once. Two threads that share a
    /// core, or the core's turbo, reach less than twice the rate of one.
    ///
    /// # Panics
    /// If the system cannot start the threads.
    pub fn measure(n_threads: usize) -> Self {
        let best = |each| best(each, n_threads);
        Self {
            f32: best(arch::f32_loop()),
            bf16: best(arch::bf16_loop()),
            int8: best(arch::int8_loop()),
        }
    }
}

/// Bytes per second that `n_threads` threads read from memory together: the best of a few passes
/// over more than the caches hold. The threads prefetch as our matmuls do, which gives a tenth more
/// on AMD.
///
/// # Panics
/// If the system cannot start the threads.
pub fn memory_read(n_threads: usize) -> f64 {
    const WORDS: usize = 256 << 20 >> 3;
    const PASSES: usize = 4;
    /// Words per prefetch, and how far ahead of the reads.
    const WORDS_PER_PREFETCH: usize = 32;
    const PREFETCH_DISTANCE: usize = 64 * WORDS_PER_PREFETCH;
    let words = vec![1u64; WORDS]; // not zeros, which would all be one shared page
    let pass = |_| {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in words.chunks(WORDS.div_ceil(n_threads)) {
                scope.spawn(|| {
                    let mut stream =
                        PrefetchStream::<L2>::from(part.as_ptr().wrapping_add(PREFETCH_DISTANCE));
                    let sum = || {
                        part.chunks(WORDS_PER_PREFETCH).fold(0u64, |sum, words| {
                            stream.prefetch(size_of_val(words));
                            words.iter().fold(sum, |sum, word| sum.wrapping_add(*word))
                        })
                    };
                    std::hint::black_box(crate::vectorized(sum))
                });
            }
        });
        size_of_val(&words[..]) as f64 / start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(pass).fold(0.0, f64::max)
}

impl std::fmt::Display for Peak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            (self.f32, "GFLOP/s f32"),
            (self.bf16, "GFLOP/s bf16"),
            (self.int8, "GOP/s int8"),
        ];
        let known = kinds.iter().filter(|(rate, _)| *rate > 0.0);
        let known: Vec<_> = known
            .map(|(rate, unit)| format!("{:.0} {unit}", rate / 1e9))
            .collect();
        match &known[..] {
            [] => f.write_str("unknown"),
            known => f.write_str(&known.join(", ")),
        }
    }
}

/// A loop of [`STEPS`] iterations of [`SUMS`] instructions.
#[derive(Clone, Copy)]
struct Loop {
    run: fn(),
    /// Operations per instruction.
    operations: usize,
}

fn best(each: Option<Loop>, n_threads: usize) -> f64 {
    let Some(each) = each else {
        return 0.0;
    };
    let together = Barrier::new(n_threads);
    let rates = || {
        let rate = |_| {
            together.wait();
            let start = Instant::now();
            (each.run)();
            (STEPS * SUMS * each.operations) as f64 / start.elapsed().as_secs_f64()
        };
        (0..RUNS).map(rate).collect::<Vec<f64>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(rates)).collect();
        let threads = threads
            .into_iter()
            .map(|t| t.join().expect("the measuring thread does not panic"));
        let rates: Vec<_> = threads.collect();
        let sum = |run: usize| rates.iter().map(|r| r[run]).sum();
        (0..RUNS).map(sum).fold(0.0, f64::max)
    })
}

/// Starts `SUMS` sums and applies a step to each, `STEPS` times. This is a macro because the step
/// must be compiled for the instruction set of the function that contains it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! repeat {
    ($start:expr, |$sum:ident| $step:expr) => {{
        let mut sums = [$start; super::SUMS];
        for _ in 0..super::STEPS {
            for sum in &mut sums {
                let $sum = *sum;
                *sum = $step;
            }
        }
        std::hint::black_box(sums);
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use repeat;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    use super::Loop;

    pub fn f32_loop() -> Option<Loop> {
        None
    }

    pub fn bf16_loop() -> Option<Loop> {
        None
    }

    pub fn int8_loop() -> Option<Loop> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, available};

    #[test]
    fn every_type_that_kernels_use_has_a_peak() {
        let peak = Peak::measure(2);
        let widest = *available().last().expect("Cpu::Scalar is always available");
        if widest != Cpu::Scalar {
            assert!(peak.f32 > 0.0, "{peak:?}");
        }
        if widest.has_bf16() {
            assert!(peak.bf16 > 0.0 && peak.int8 > 0.0, "{peak:?}");
        }
    }

    #[test]
    fn peaks_are_formatted() {
        let peak = Peak {
            f32: 115.4e9,
            bf16: 0.0,
            int8: 468.0e9,
        };
        assert_eq!(peak.to_string(), "115 GFLOP/s f32, 468 GOP/s int8");
        assert_eq!(Peak::default().to_string(), "unknown");
    }
}
