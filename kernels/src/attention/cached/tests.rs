//! Compares every level that this CPU has, with many queries and with single ones, with the
//! definition in f64.
#![allow(unsafe_code)]

use super::*;
use crate::cpu::available;
use crate::testing::noise;

struct Case {
    n_head: usize,
    n_head_kv: usize,
    head_dim: usize,
    n_query: usize,
    n_key: usize,
}

/// Queries, keys, values, mask.
type Operands = (Vec<f32>, Vec<f16>, Vec<f16>, Vec<f16>);

impl Case {
    /// Queries see the positions before them and, at the end of the cache, themselves. The first
    /// query sees nothing, and a key in the middle has a smaller weight.
    fn operands(&self) -> Operands {
        let (d, before) = (self.head_dim, self.n_key.saturating_sub(self.n_query));
        let half = |v: ndarray::Array2<f32>| v.iter().map(|v| f16::from_f32(*v)).collect();
        let q = noise(self.n_query, self.n_head * d, 1)
            .into_raw_vec_and_offset()
            .0;
        let k = half(noise(self.n_key, self.n_head_kv * d, 2));
        let v = half(noise(self.n_key, self.n_head_kv * d, 3));
        let mask = (0..self.n_query).flat_map(|i| {
            (0..self.n_key).map(move |j| match j {
                _ if i == 0 || j > i + before => f16::NEG_INFINITY,
                5 => f16::from_f32(-0.5),
                _ => f16::ZERO,
            })
        });
        (q, k, v, mask.collect())
    }

    /// The definition, in f64.
    fn expected(&self, (q, k, v, mask): &Operands) -> Vec<f64> {
        let d = self.head_dim;
        let mut out = Vec::new();
        for i in 0..self.n_query {
            for head in 0..self.n_head {
                let kv = head / (self.n_head / self.n_head_kv) * d;
                let at = |rows: &[f16], j: usize, c: usize| {
                    rows[j * self.n_head_kv * d + kv + c].to_f64()
                };
                let weight = |j: usize| {
                    let q = &q[(i * self.n_head + head) * d..][..d];
                    let dot: f64 = (0..d).map(|c| f64::from(q[c]) * at(k, j, c)).sum();
                    (0.25 * dot + mask[i * self.n_key + j].to_f64()).exp()
                };
                let weights: Vec<f64> = (0..self.n_key).map(weight).collect();
                let sum: f64 = weights.iter().sum();
                for c in 0..d {
                    let mixed: f64 = (0..self.n_key).map(|j| weights[j] * at(v, j, c)).sum();
                    out.push(if sum > 0.0 { mixed / sum } else { 0.0 });
                }
            }
        }
        out
    }

    fn found(&self, (q, k, v, mask): &Operands, cpu: Cpu, n_threads: usize) -> Vec<f32> {
        let d = self.head_dim;
        let mut out = vec![7.0; q.len()];
        let rows = |data: &[f16], heads: usize| HeadRows {
            data: data.as_ptr(),
            row: heads * d,
            head: d,
        };
        let attention = CachedAttention {
            query: HeadRows {
                data: q.as_ptr(),
                row: self.n_head * d,
                head: d,
            },
            key: rows(k, self.n_head_kv),
            value: rows(v, self.n_head_kv),
            mask: HeadRows {
                data: mask.as_ptr(),
                row: self.n_key,
                head: 0,
            },
            out: out.as_mut_ptr(),
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            head_dim: d,
            n_query: self.n_query,
            n_key: self.n_key,
            scale: 0.25,
        };
        for i in 0..attention.tasks(cpu, n_threads) {
            // SAFETY: all operands have these sizes, and this is the only thread.
            unsafe { attention.run(cpu, i, n_threads) }
        }
        out
    }
}

#[test]
fn every_level_equals_the_definition_for_any_thread_count() {
    // In the last two, tasks have several heads of keys, each shared by two or more, and the last
    // task fewer.
    let heads = [
        (4, 2, 16),
        (2, 2, 128),
        (6, 1, 8),
        (3, 1, 64),
        (10, 5, 128),
        (12, 3, 64),
    ];
    for (n_head, n_head_kv, head_dim) in heads {
        for (n_query, n_key) in [(1, 1), (48, 64), (50, 50), (97, 700), (130, 1100), (7, 513)] {
            let case = Case {
                n_head,
                n_head_kv,
                head_dim,
                n_query,
                n_key,
            };
            let operands = case.operands();
            let expected = case.expected(&operands);
            for cpu in available() {
                let found = case.found(&operands, cpu, 1);
                for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        (f64::from(*f) - e).abs() < 1e-5,
                        "{cpu:?} {n_head} {head_dim} {n_query} {n_key} {i}: {f} {e}"
                    );
                }
                assert_eq!(found, case.found(&operands, cpu, 5), "{cpu:?}");
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_place_in_the_cache() {
    for (n_query, n_key) in [(1, 70), (3, 200), (70, 300)] {
        let case = Case {
            n_head: 4,
            n_head_kv: 2,
            head_dim: 64,
            n_query,
            n_key,
        };
        let operands = case.operands();
        let (q, k, v, mask) = &operands;
        // The same keys in the same order, with others in between that no query sees.
        let place = |key: usize| key + 3 * usize::from(key >= 7) + 90 * usize::from(key >= 61);
        let wide = place(n_key);
        let spread = |rows: &[f16], filling: f16| {
            let width = rows.len() / n_key;
            let mut all = vec![filling; wide * width];
            for (key, row) in rows.chunks_exact(width).enumerate() {
                all[place(key) * width..][..width].copy_from_slice(row);
            }
            all
        };
        let other = f16::from_f32(3.0);
        let masks = mask.chunks_exact(n_key);
        let masks = masks.flat_map(|mask| spread(mask, f16::NEG_INFINITY));
        let apart = (
            q.clone(),
            spread(k, other),
            spread(v, other),
            masks.collect(),
        );
        let wide = Case {
            n_key: wide,
            ..case
        };
        for cpu in available() {
            let expected = case.found(&operands, cpu, 2);
            assert!(expected == wide.found(&apart, cpu, 2), "{cpu:?} {n_query}");
        }
    }
}
