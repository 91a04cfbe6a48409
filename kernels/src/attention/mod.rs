//! Full attention without a mask, head by head and a block of queries at a time.
//!
//! ```text
//! for each head, in parallel:
//!     copy q, k transposed, v of this head side by side
//!     for each block of queries:
//!         scores = scale * q k^T        [QUERIES, n]
//!         p = exp(scores - row maximum)
//!         out = (p v) / row sum         [QUERIES, head_dim]
//! ```
//!
//! So the scores of a thread take `QUERIES * n` numbers (0.3 MB for 1226 tokens, within the second
//! level cache) in place of `n * n` for every head (96 MB). The copies let both products run over
//! adjacent numbers, which makes them twice as fast.

use std::cell::RefCell;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::activation::exp;
use crate::gemm::gemm;
use crate::vectorized;

/// Queries in a block.
const QUERIES: usize = 64;
/// Partial sums and maxima, always combined alike.
const LANES: usize = 16;

/// Bytes that one thread needs for `n` tokens and heads of `head_dim`.
pub fn scratch_bytes(n: usize, head_dim: usize) -> usize {
    (3 * n * head_dim + QUERIES.min(n) * (n + head_dim)) * size_of::<f32>()
}

/// One head's operands and the scores of a block of queries, kept for the thread's next head.
struct Scratch {
    q: Array2<f32>,      // [n, head_dim]
    k_t: Array2<f32>,    // [head_dim, n]
    v: Array2<f32>,      // [n, head_dim]
    scores: Array2<f32>, // [QUERIES, n]
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// `qkv: [n, 3 * n_embd]`, the columns of q, then k, then v, each head by head, to `out: [n, n_embd]`.
///
/// Scores are divided by the root of the head's width.
///
/// # Panics
/// If the shapes do not agree.
pub fn attention(qkv: &ArrayView2<f32>, n_head: usize, mut out: ArrayViewMut2<f32>) {
    let (n, n_embd) = out.dim();
    assert_eq!(qkv.dim(), (n, 3 * n_embd), "q, k and v side by side");
    assert_eq!(n_embd % n_head, 0, "whole heads");
    let head_dim = n_embd / n_head;

    let heads: Vec<_> = out.axis_chunks_iter_mut(Axis(1), head_dim).collect();
    heads
        .into_par_iter()
        .enumerate()
        .with_max_len(1)
        .for_each(|(head, out)| {
            let part = |i: usize| {
                let first = i * n_embd + head * head_dim;
                qkv.slice(s![.., first..first + head_dim])
            };
            SCRATCH.with_borrow_mut(|scratch| {
                let scratch = Scratch::sized(scratch, n, head_dim);
                scratch.q.assign(&part(0));
                scratch.k_t.assign(&part(1).t());
                scratch.v.assign(&part(2));
                scratch.head(out);
            });
        });
}

impl Scratch {
    fn sized(slot: &mut Option<Self>, n: usize, head_dim: usize) -> &mut Self {
        if slot.as_ref().is_some_and(|s| s.q.dim() != (n, head_dim)) {
            *slot = None;
        }
        slot.get_or_insert_with(|| Self {
            q: Array2::zeros((n, head_dim)),
            k_t: Array2::zeros((head_dim, n)),
            v: Array2::zeros((n, head_dim)),
            scores: Array2::zeros((QUERIES.min(n), n)),
        })
    }

    /// Attention of the head whose operands are in place, into `out: [n, head_dim]`.
    fn head(&mut self, mut out: ArrayViewMut2<f32>) {
        let scale = 1.0 / (self.q.ncols() as f32).sqrt();
        let queries = self.q.axis_chunks_iter(Axis(0), QUERIES);
        for (q, mut out) in queries.zip(out.axis_chunks_iter_mut(Axis(0), QUERIES)) {
            let mut scores = self.scores.slice_mut(s![..q.nrows(), ..]);
            gemm(scale, &q, &self.k_t.view(), &mut scores);
            let mut sums = [0.0; QUERIES];
            for (mut row, sum) in scores.rows_mut().into_iter().zip(&mut sums) {
                let row = row.as_slice_mut().expect("rows are contiguous");
                *sum = vectorized(|| exp_minus_max(row));
            }
            gemm(1.0, &scores.view(), &self.v.view(), &mut out);
            for (mut row, sum) in out.rows_mut().into_iter().zip(sums) {
                row *= 1.0 / sum;
            }
        }
    }
}

/// The numerators of a softmax in place; gives their sum. A number that is none stays visible.
#[inline(always)]
fn exp_minus_max(row: &mut [f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, &v) in maxima.iter_mut().zip(chunk) {
            *max = if v > *max { v } else { *max };
        }
    }
    let max = maxima
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |m, &v| m.max(v));

    let mut sums = [0.0; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, v) in sums.iter_mut().zip(chunk) {
            *v = exp(*v - max);
            *sum += *v;
        }
    }
    let mut sum = sums.iter().sum();
    for v in rest {
        *v = exp(*v - max);
        sum += *v;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{max_diff, noise, with_threads};

    /// The definition, in f64.
    fn reference(qkv: &Array2<f32>, n_head: usize) -> Array2<f32> {
        let (n, width) = qkv.dim();
        let n_embd = width / 3;
        let d = n_embd / n_head;
        let at = |i: usize, part: usize, c: usize| f64::from(qkv[[i, part * n_embd + c]]);
        Array2::from_shape_fn((n, n_embd), |(i, c)| {
            let head = c / d * d;
            let dot = |j| {
                (head..head + d)
                    .map(|c| at(i, 0, c) * at(j, 1, c))
                    .sum::<f64>()
            };
            let weights: Vec<f64> = (0..n).map(|j| (dot(j) / (d as f64).sqrt()).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mix: f64 = weights
                .iter()
                .enumerate()
                .map(|(j, w)| w * at(j, 2, c))
                .sum();
            (mix / sum) as f32
        })
    }

    #[test]
    fn equals_the_definition_around_the_block_size() {
        for n in [1, 2, 15, 17, QUERIES - 1, QUERIES, QUERIES + 1, 130] {
            let qkv = noise(n, 3 * 48, n as u32) * 4.0;
            let mut out = Array2::zeros((n, 48));
            attention(&qkv.view(), 3, out.view_mut());
            assert!(max_diff(&out, &reference(&qkv, 3)) < 1e-5, "{n} tokens");
        }
    }

    #[test]
    fn large_scores_neither_overflow_nor_lose_the_winner() {
        let mut qkv = noise(70, 3 * 16, 1);
        qkv.slice_mut(s![.., ..32]).mapv_inplace(|v| v * 1e4);
        let mut out = Array2::zeros((70, 16));
        attention(&qkv.view(), 1, out.view_mut());
        assert!(
            out.iter().all(|v| v.abs() <= 1.0),
            "a mean of numbers in -1..1"
        );
    }

    #[test]
    fn a_number_that_is_none_stays_visible_and_in_its_row() {
        let mut qkv = noise(40, 3 * 16, 4);
        qkv[[7, 3]] = f32::NAN; // of a query
        let mut out = Array2::zeros((40, 16));
        attention(&qkv.view(), 1, out.view_mut());
        for (i, row) in out.rows().into_iter().enumerate() {
            assert!(row.iter().all(|v| v.is_nan() == (i == 7)), "row {i}");
        }
    }

    #[test]
    fn equal_keys_give_the_mean_of_the_values() {
        let mut qkv = noise(33, 3 * 8, 2);
        qkv.slice_mut(s![.., 8..16]).fill(0.25);
        let mut out = Array2::zeros((33, 8));
        attention(&qkv.view(), 2, out.view_mut());
        let mean = qkv.slice(s![.., 16..]).mean_axis(Axis(0)).unwrap();
        let expected = mean.broadcast((33, 8)).unwrap().to_owned();
        assert!(max_diff(&out, &expected) < 1e-6);
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let qkv = noise(150, 3 * 64, 3);
        let run = || {
            let mut out = Array2::zeros((150, 64));
            attention(&qkv.view(), 4, out.view_mut());
            out
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
