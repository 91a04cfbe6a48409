//! Measures how fast attention reads a decoder's cache when one token of each of a few sequences is
//! decoded.
//!
//! `cargo bench -p xc2-kernels --bench cache -- [KEYS [SEQUENCES ..]]`. 16 heads, as in the 1.8B,
//! and 32, as in the 7B, of width 128 share 8 heads of keys. Each of 24 layers has its own cache,
//! so that it comes from memory. Each sequence has its own consecutive keys and sees no others.
//! Rates count the bytes of visible keys and values, by CPU time of one thread, best of a few.

#![allow(unsafe_code)]

use half::f16;
use xc2_kernels::attention::{CachedAttention, HeadRows};
use xc2_kernels::testing::{cpu_seconds, noise};
use xc2_kernels::{Cpu, available};

const LAYERS: usize = 24;
const N_HEAD_KV: usize = 8;
const DIM: usize = 128;
const REPETITIONS: usize = 5;

fn main() {
    let args = std::env::args().skip(1).filter(|a| a != "--bench");
    let numbers: Vec<usize> = args
        .map(|a| a.parse().expect("expected a number"))
        .collect();
    let n_key = numbers.first().map_or(448, |n| *n);
    let sequences = numbers.get(1..).filter(|s| !s.is_empty());
    println!("{n_key} keys per sequence, {LAYERS} layers");
    for n_seq in sequences.unwrap_or(&[1, 2, 4, 8]) {
        for cpu in available() {
            for n_head in [16, 32] {
                let Some(seconds) = time(cpu, n_head, n_key, *n_seq) else {
                    continue;
                };
                let bytes = LAYERS * n_seq * n_key * N_HEAD_KV * DIM * 2 * size_of::<f16>();
                println!(
                    "{:<14} {n_head:>2} heads {n_seq:>2} sequences {:>7.2} ms {:>6.1} GB/s",
                    cpu.name(),
                    seconds * 1e3,
                    bytes as f64 / seconds / 1e9,
                );
            }
        }
    }
}

/// CPU seconds for one token of each sequence, if there is a kernel for this few queries.
fn time(cpu: Cpu, n_head: usize, n_key: usize, n_seq: usize) -> Option<f64> {
    let n_all = n_key * n_seq;
    let row = N_HEAD_KV * DIM;
    let cache = noise(1, n_all * row, 1)
        .mapv(f16::from_f32)
        .into_raw_vec_and_offset()
        .0;
    let layers: Vec<[Vec<f16>; 2]> = (0..LAYERS)
        .map(|_| [cache.clone(), cache.clone()])
        .collect();
    let query = noise(n_seq, n_head * DIM, 2);
    let sees = |seq: usize, key: usize| key / n_key == seq;
    let mask: Vec<f16> = (0..n_seq * n_all)
        .map(|i| match sees(i / n_all, i % n_all) {
            true => f16::ZERO,
            false => f16::NEG_INFINITY,
        })
        .collect();
    let mut out = vec![0.0; n_seq * n_head * DIM];
    let mut step = || {
        for [key, value] in &layers {
            let kv = |data: &Vec<f16>| HeadRows {
                data: data.as_ptr(),
                row,
                head: DIM,
            };
            let attention = CachedAttention {
                query: HeadRows {
                    data: query.as_ptr(),
                    row: n_head * DIM,
                    head: DIM,
                },
                key: kv(key),
                value: kv(value),
                mask: HeadRows {
                    data: mask.as_ptr(),
                    row: n_all,
                    head: 0,
                },
                out: out.as_mut_ptr(),
                n_head,
                n_head_kv: N_HEAD_KV,
                head_dim: DIM,
                n_query: n_seq,
                n_key: n_all,
                scale: 0.1,
            };
            if !attention.is_supported(cpu) {
                return false;
            }
            for task in 0..attention.tasks(cpu, 1) {
                // SAFETY: all operands have these shapes; there is no other thread.
                unsafe { attention.run(cpu, task, 1) }
            }
        }
        true
    };
    if !step() {
        return None;
    }
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let (start, mut steps) = (cpu_seconds(), 0.0);
        let seconds = loop {
            step();
            steps += 1.0;
            let seconds = cpu_seconds() - start;
            if seconds > 0.2 {
                break seconds / steps;
            }
        };
        best = best.min(seconds);
    }
    Some(best)
}
