//! Attention as it was before it was blocked over the keys: two matmuls of the crate `gemm`, with
//! the scores of 64 queries in between. The benches compare with it.

#![allow(dead_code)]

pub mod gemm;

use std::cell::RefCell;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use xc2_kernels::activation::exp;
use xc2_kernels::vectorized;

use gemm::gemm;

/// Queries in a block.
const QUERIES: usize = 64;
/// Partial sums and maxima, always combined in the same order.
const LANES: usize = 16;

/// One head's operands and the scores of a block of queries, kept for the thread's next head.
struct HeadScratch {
    q: Array2<f32>,      // [n, head_dim]
    k_t: Array2<f32>,    // [head_dim, n]
    v: Array2<f32>,      // [n, head_dim]
    scores: Array2<f32>, // [QUERIES, n]
}

thread_local! {
    static SCRATCH: RefCell<Option<HeadScratch>> = const { RefCell::new(None) };
}

/// `qkv: [n, 3 * n_embd]`, the columns of q, then k, then v, each head by head, to `out: [n, n_embd]`.
///
/// Scores are divided by the root of the head's width.
///
/// # Panics
/// If the shapes do not agree.
pub fn attention(qkv: &ArrayView2<f32>, n_head: usize, mut out: ArrayViewMut2<f32>) {
    let (n, n_embd) = out.dim();
    assert_eq!(qkv.dim(), (n, 3 * n_embd), "qkv must be [n, 3 * n_embd]");
    assert_eq!(n_embd % n_head, 0, "n_embd must be a multiple of n_head");
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
                let scratch = HeadScratch::sized(scratch, n, head_dim);
                scratch.q.assign(&part(0));
                scratch.k_t.assign(&part(1).t());
                scratch.v.assign(&part(2));
                scratch.head(out);
            });
        });
}

impl HeadScratch {
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
                let row = row.as_slice_mut().expect("rows must be contiguous");
                *sum = vectorized(|| exp_minus_max(row));
            }
            gemm(1.0, &scores.view(), &self.v.view(), &mut out);
            for (mut row, sum) in out.rows_mut().into_iter().zip(sums) {
                row *= 1.0 / sum;
            }
        }
    }
}

/// Computes the numerators of a softmax in place and returns their sum. NaN propagates.
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
