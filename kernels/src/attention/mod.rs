//! Full attention without a mask, blocked, with the softmax made as the keys go by.
//!
//! ```text
//! for each head and each piece of its queries, in parallel:
//!     pack this head's k and v, unless this thread's last piece was of the same head
//!     for each 48 queries:
//!         max, sum, o = lowest, 0, 0
//!         for each block of keys:
//!             s = k q^T                                  [KEYS, 48]
//!             new = the larger of max and the maximum of s
//!             p = 2^(s - new)
//!             sum = sum * 2^(max - new) + sum of p
//!             o   = o   * 2^(max - new) + v^T p          [head_dim, 48]
//!             max = new
//!         out = (o / sum)^T
//! ```
//!
//! (Dao et al., "FlashAttention", 2022.) So no scores outlive a block: a thread keeps one head's keys
//! and values and some 30 kB that stay in the first-level cache, in place of `n * n` for each head
//! (96 MB for 1226 tokens).
//!
//! Everything is transposed against the formula: queries lie along the lanes of a vector. Maxima,
//! sums and factors are then vectors too, a query never meets another one, and the weights `p` leave
//! the registers in just the layout in which the second product loads them.
//!
//! Scores are powers of two: the factor `log2 e` joins the root of the head's width, which is
//! multiplied into the queries as they are packed.
//!
//! Both products are `Tile`'s; `Softmax` is what else an instruction set provides here.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::cpu::Cpu;
use crate::tile::{
    Buffer, Element, LANES, ROWS, Scalar, Start, Tile, WIDTH, at, place_column, place_row, prefetch,
};

/// Keys in a block: with 48 queries, scores of 12 kB. Whole panels.
const KEYS: usize = 64;
/// Queries of a task: 112 tasks for 16 heads and 1226 tokens, so that eight threads end together.
const PIECE: usize = 4 * WIDTH;

/// What the products of attention are made in. Results are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Queries, keys, values and weights rounded to bf16, sums in f32, where the CPU multiplies
    /// bf16; f32 elsewhere. Numbers of size 1 come out within 0.01.
    Bf16,
}

/// Bytes that one thread keeps for `n` tokens and heads of `head_dim`, in either precision.
pub fn scratch_bytes(n: usize, head_dim: usize) -> usize {
    let (keys, dim) = (n.next_multiple_of(ROWS), head_dim.next_multiple_of(ROWS));
    let numbers = [2 * keys * dim, 2 * dim * WIDTH, 2 * KEYS * WIDTH, dim];
    // Seven buffers, each with room to begin at a cache line, and three rows of `WIDTH`.
    numbers.iter().sum::<usize>() * size_of::<f32>() + Buffer::<f32>::bytes(0) * 7 + 1024
}

/// `qkv: [n, 3 * n_embd]`, the columns of q, then k, then v, each head by head, to `out: [n, n_embd]`.
///
/// Scores are divided by the root of the head's width. A number that is none, in a query, stays
/// visible in its row; in a key or a value it reaches every row, as the definition has it.
///
/// # Panics
/// If the shapes do not agree.
pub fn attention(
    qkv: &ArrayView2<f32>,
    n_head: usize,
    precision: Precision,
    out: ArrayViewMut2<f32>,
) {
    attention_on(Cpu::chosen(), qkv, n_head, precision, out);
}

/// The same with the instructions of `cpu`, as far as this CPU has them.
///
/// # Panics
/// If the shapes do not agree.
pub fn attention_on(
    cpu: Cpu,
    qkv: &ArrayView2<f32>,
    n_head: usize,
    precision: Precision,
    out: ArrayViewMut2<f32>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::tile::{Avx2, Avx512, Avx512Bf16};
        if let (Precision::Bf16, Some(kernels)) = (precision, Avx512Bf16::new(cpu)) {
            return run(kernels, qkv, n_head, out);
        }
        if let Some(kernels) = Avx512::new(cpu) {
            return run(kernels, qkv, n_head, out);
        }
        if let Some(kernels) = Avx2::new(cpu) {
            return run(kernels, qkv, n_head, out);
        }
    }
    let _ = (cpu, precision);
    run(Scalar::<f32>::default(), qkv, n_head, out);
}

/// What attention needs of an instruction set besides the products.
trait Softmax: Tile {
    /// Takes a block of `scores: [keys, width]` into `running`, and leaves the weights of the block,
    /// against the new maxima, in `weights: [keys / GROUP, width, GROUP]`.
    fn weigh(
        self,
        scores: &[f32],
        width: usize,
        running: &mut Running,
        weights: &mut [Self::Element],
    );
}

/// The softmax of each query of a tile so far.
#[repr(align(64))]
struct Running {
    /// The largest score.
    max: [f32; WIDTH],
    /// The sum of the weights against that maximum.
    sum: [f32; WIDTH],
    /// What the last block made of what was summed before it: two to the old maximum minus the new.
    shrink: [f32; WIDTH],
}

impl Running {
    /// Not from minus infinity: where every score of a block is that, `max - max` would be no number.
    const START: Self = Self {
        max: [f32::MIN; WIDTH],
        sum: [0.0; WIDTH],
        shrink: [0.0; WIDTH],
    };
}

fn run<K: Softmax>(kernels: K, qkv: &ArrayView2<f32>, n_head: usize, mut out: ArrayViewMut2<f32>) {
    /// Names a call, so that a thread knows whether its packed head is of this one.
    static CALLS: AtomicU64 = AtomicU64::new(0);

    let (n, n_embd) = out.dim();
    assert_eq!(qkv.dim(), (n, 3 * n_embd), "q, k and v side by side");
    assert_eq!(n_embd % n_head, 0, "whole heads");
    if out.is_empty() {
        return;
    }
    let head_dim = n_embd / n_head;
    let call = CALLS.fetch_add(1, Ordering::Relaxed);

    let mut pieces = Vec::new();
    for (head, mut columns) in out.axis_chunks_iter_mut(Axis(1), head_dim).enumerate() {
        for first in (0..n).step_by(PIECE) {
            let (piece, rest) = columns.split_at(Axis(0), PIECE.min(n - first));
            pieces.push((head, first, piece));
            columns = rest;
        }
    }
    pieces
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(head, first, out)| {
            let part = |i: usize| {
                let first = i * n_embd + head * head_dim;
                qkv.slice(s![.., first..first + head_dim])
            };
            with_scratch(n, head_dim, |scratch: &mut Scratch<K::Element>| {
                if scratch.packed != Some((call, head)) {
                    scratch.pack(kernels, &part(1), &part(2));
                    scratch.packed = Some((call, head));
                }
                let q = part(0);
                scratch.piece(kernels, &q.slice(s![first..first + out.nrows(), ..]), out);
            });
        });
}

/// What a thread keeps: one head's keys and values, and what belongs to a tile of queries.
///
/// `dim` is the head's width and `keys` the number of tokens, both rounded up to whole panels; the
/// numbers added are zeros.
struct Scratch<E> {
    n: usize,
    head_dim: usize,
    /// The call and the head that `keys` and `values` are of.
    packed: Option<(u64, usize)>,
    keys: Buffer<E>,     // panels of keys, depth dim
    values: Buffer<E>,   // for each block of keys: panels of dim, depth the block's keys
    query: Buffer<E>,    // [dim / GROUP, width, GROUP]
    scores: Buffer<f32>, // [KEYS, width]
    weights: Buffer<E>,  // [KEYS / GROUP, width, GROUP]
    mixed: Buffer<f32>,  // [dim, width]
    row: Buffer<E>,      // [dim]
}

/// Lends `f` this thread's scratch. It holds one size and one precision: another replaces it. Nothing
/// in `f` waits for another task, so rayon cannot start a second one within.
fn with_scratch<E: Element>(n: usize, head_dim: usize, f: impl FnOnce(&mut Scratch<E>)) {
    thread_local! {
        static SCRATCH: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    SCRATCH.with_borrow_mut(|slot| {
        let kept = slot.as_mut().and_then(|s| s.downcast_mut::<Scratch<E>>());
        if kept.is_none_or(|s| (s.n, s.head_dim) != (n, head_dim)) {
            *slot = None; // before the new one is made
            *slot = Some(Box::new(Scratch::<E>::new(n, head_dim)));
        }
        let scratch = slot.as_mut().and_then(|s| s.downcast_mut());
        f(scratch.expect("just made"));
    });
}

impl<E: Element> Scratch<E> {
    fn new(n: usize, head_dim: usize) -> Self {
        let (keys, dim) = (n.next_multiple_of(ROWS), head_dim.next_multiple_of(ROWS));
        Self {
            n,
            head_dim,
            packed: None,
            keys: Buffer::zeros(keys * dim),
            values: Buffer::zeros(keys * dim),
            query: Buffer::zeros(dim * WIDTH),
            scores: Buffer::zeros(KEYS * WIDTH),
            weights: Buffer::zeros(KEYS * WIDTH),
            mixed: Buffer::zeros(dim * WIDTH),
            row: Buffer::zeros(dim),
        }
    }

    /// Packs a head's `k` and `v`, both `[n, head_dim]`. What was added to fill panels stays zero.
    fn pack<K: Tile<Element = E>>(&mut self, kernels: K, k: &ArrayView2<f32>, v: &ArrayView2<f32>) {
        let dim = self.row.len();
        for (key, k) in rows_ahead(k).enumerate() {
            narrow_row(kernels, &k, 1.0, &mut self.row);
            place_row(key, &self.row, &mut self.keys);
        }
        for (key, v) in rows_ahead(v).enumerate() {
            narrow_row(kernels, &v, 1.0, &mut self.row);
            let first = key / KEYS * KEYS;
            let depth = KEYS.min(self.keys.len() / dim - first);
            let block = &mut self.values[first * dim..][..depth * dim];
            for (panel, values) in block
                .chunks_exact_mut(ROWS * depth)
                .zip(self.row.chunks_exact(ROWS))
            {
                let place = at::<E>(0, key - first, depth);
                for (r, value) in values.iter().enumerate() {
                    panel[place + r * E::GROUP] = *value;
                }
            }
        }
    }

    /// Attention of the queries `q` to the packed head, into `out`; both `[piece, head_dim]`.
    fn piece<K: Softmax<Element = E>>(
        &mut self,
        kernels: K,
        q: &ArrayView2<f32>,
        mut out: ArrayViewMut2<f32>,
    ) {
        let tiles = q.axis_chunks_iter(Axis(0), WIDTH);
        for (q, mut out) in tiles.zip(out.axis_chunks_iter_mut(Axis(0), WIDTH)) {
            let width = q.nrows().next_multiple_of(LANES);
            self.pack_queries(kernels, &q, width);
            let sums = self.tile(kernels, width);
            self.unpack(&sums, width, &mut out);
        }
    }

    fn pack_queries<K: Tile<Element = E>>(
        &mut self,
        kernels: K,
        q: &ArrayView2<f32>,
        width: usize,
    ) {
        let scale = std::f32::consts::LOG2_E / (self.head_dim as f32).sqrt();
        let query = &mut self.query[..self.row.len() * width];
        for (column, q) in rows_ahead(q).enumerate() {
            narrow_row(kernels, &q, scale, &mut self.row);
            place_column(column, &self.row, width, query);
        }
        self.row.fill(E::default());
        for column in q.nrows()..width {
            place_column(column, &self.row, width, query);
        }
    }

    /// The weighted sums of the values into `mixed`; gives the sums of the weights.
    fn tile<K: Softmax<Element = E>>(&mut self, kernels: K, width: usize) -> [f32; WIDTH] {
        let dim = self.row.len();
        let query = &self.query[..dim * width];
        let mixed = &mut self.mixed[..dim * width];
        mixed.fill(0.0);
        let mut running = Running::START;
        let blocks = self.keys.chunks(KEYS * dim);
        for (i, (k, v)) in blocks.zip(self.values.chunks(KEYS * dim)).enumerate() {
            let keys = k.len() / dim;
            let scores = &mut self.scores[..keys * width];
            kernels.multiply(k, query, width, Start::Zero, scores);
            // The keys added to fill a panel.
            scores[keys.min(self.n - i * KEYS) * width..].fill(f32::NEG_INFINITY);
            let weights = &mut self.weights[..keys * width];
            kernels.weigh(scores, width, &mut running, weights);
            let shrink = Start::Scaled(&running.shrink[..width]);
            kernels.multiply(v, weights, width, shrink, mixed);
        }
        running.sum
    }

    /// `out[i][c] = mixed[c][i] / sums[i]`
    fn unpack(&self, sums: &[f32; WIDTH], width: usize, out: &mut ArrayViewMut2<f32>) {
        for (i, mut out) in out.rows_mut().into_iter().enumerate() {
            let factor = 1.0 / sums[i];
            for (out, mixed) in out.iter_mut().zip(self.mixed.chunks_exact(width)) {
                *out = mixed[i] * factor;
            }
        }
    }
}

/// The rows, each of which the cache is told of some rows before it comes.
fn rows_ahead<'a>(rows: &'a ArrayView2<f32>) -> impl Iterator<Item = ndarray::ArrayView1<'a, f32>> {
    const AHEAD: usize = 12;
    (0..rows.nrows()).map(move |i| {
        if i + AHEAD < rows.nrows()
            && let Some(row) = rows.row(i + AHEAD).to_slice()
        {
            prefetch(row);
        }
        rows.row(i)
    })
}

/// A row of a head in the operands' type, into the first numbers of `out`.
fn narrow_row<K: Tile>(
    kernels: K,
    row: &ndarray::ArrayView1<f32>,
    scale: f32,
    out: &mut [K::Element],
) {
    let out = &mut out[..row.len()];
    match row.to_slice() {
        Some(row) => kernels.narrow(row, scale, out),
        None => {
            for (out, v) in out.iter_mut().zip(row) {
                *out = K::Element::from_f32(scale * v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use ndarray::Array2;

    use super::*;
    use crate::cpu::available;
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

    /// Of results of size 1 from operands in -1..1: their rounding, by one in 512 at the most, moves
    /// scores of size 1 by some thousandths, and so the weights.
    const BF16_TOLERANCE: f32 = 1e-2;

    /// What every level and precision makes of `qkv`, with a name and the tolerance.
    fn all_results(qkv: &Array2<f32>, n_head: usize) -> Vec<(String, Array2<f32>, f32)> {
        let zeros = Array2::zeros((qkv.nrows(), qkv.ncols() / 3));
        let mut results = Vec::new();
        for cpu in available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let mut out = zeros.clone();
                attention_on(cpu, &qkv.view(), n_head, precision, out.view_mut());
                let rounded = precision == Precision::Bf16 && cpu == Cpu::Avx512Bf16;
                let tolerance = if rounded { BF16_TOLERANCE } else { 1e-5 };
                results.push((format!("{cpu:?} {precision:?}"), out, tolerance));
            }
        }
        let mut out = zeros;
        run(
            Scalar::<bf16>::default(),
            &qkv.view(),
            n_head,
            out.view_mut(),
        );
        results.push(("Scalar with bf16".to_owned(), out, BF16_TOLERANCE));
        results
    }

    /// Those results that are off, with by how much.
    fn failures(qkv: &Array2<f32>, n_head: usize) -> Vec<String> {
        let expected = reference(qkv, n_head);
        let size = format!("{} tokens, {} wide", qkv.nrows(), qkv.ncols() / 3 / n_head);
        let results = all_results(qkv, n_head).into_iter();
        let off = results.filter_map(|(name, out, tolerance)| {
            let diff = max_diff(&out, &expected);
            // Not `>=`: a number that is none is a failure, and `max_diff` would hide it.
            let fine = diff < tolerance && out.iter().all(|v| v.is_finite());
            (!fine).then(|| format!("{size}, {name}: {diff}"))
        });
        off.collect()
    }

    #[test]
    fn equals_the_definition_around_the_block_sizes() {
        for n in [
            1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 193,
        ] {
            assert_eq!(failures(&noise(n, 3 * 48, n as u32), 3), [""; 0]);
        }
    }

    #[test]
    fn equals_the_definition_for_every_width_of_a_head() {
        for head_dim in (1..=18).chain([48, 63, 64, 65, 72, 80, 128]) {
            let qkv = noise(70, 3 * 2 * head_dim, head_dim as u32);
            assert_eq!(failures(&qkv, 2), [""; 0]);
        }
    }

    #[test]
    fn sharp_attention_is_as_exact_in_f32() {
        for cpu in available() {
            for n in [1, 2, 15, 17, WIDTH - 1, WIDTH, WIDTH + 1, 130] {
                let qkv = noise(n, 3 * 48, n as u32) * 4.0;
                let mut out = Array2::zeros((n, 48));
                attention_on(cpu, &qkv.view(), 3, Precision::F32, out.view_mut());
                let diff = max_diff(&out, &reference(&qkv, 3));
                assert!(diff < 1e-5, "{cpu:?}, {n} tokens: {diff}");
            }
        }
    }

    #[test]
    fn operands_need_not_be_contiguous() {
        let qkv = noise(50, 3 * 32, 6);
        let turned = qkv.t().as_standard_layout().into_owned();
        let run = |qkv: ArrayView2<f32>, mut out: ArrayViewMut2<f32>| {
            attention(&qkv, 2, Precision::F32, out.view_mut());
        };
        let (mut plain, mut other) = (Array2::zeros((50, 32)), Array2::zeros((32, 50)));
        run(qkv.view(), plain.view_mut());
        run(turned.t(), other.view_mut().reversed_axes());
        assert_eq!(plain, other.t());
    }

    #[test]
    fn nothing_gives_nothing() {
        let mut out = Array2::zeros((0, 48));
        attention(
            &Array2::zeros((0, 144)).view(),
            3,
            Precision::F32,
            out.view_mut(),
        );
    }

    #[test]
    fn scratch_takes_no_more_than_is_said() {
        for (n, head_dim) in [(1, 1), (50, 17), (1226, 64), (300, 128)] {
            let s = Scratch::<f32>::new(n, head_dim);
            let lengths = [
                &s.keys, &s.values, &s.query, &s.scores, &s.weights, &s.mixed, &s.row,
            ];
            let bytes: usize = lengths.map(|b| Buffer::<f32>::bytes(b.len())).iter().sum();
            let state = size_of_val(&s) + size_of::<Running>();
            assert!(bytes + state <= scratch_bytes(n, head_dim));
        }
    }

    #[test]
    fn large_scores_neither_overflow_nor_lose_the_winner() {
        let mut qkv = noise(70, 3 * 16, 1);
        qkv.slice_mut(s![.., ..32]).mapv_inplace(|v| v * 1e4);
        for (name, out, _) in all_results(&qkv, 1) {
            let within = |v: &f32| v.abs() <= 1.0001; // a mean of numbers in -1..1
            assert!(out.iter().all(within), "{name}");
        }
    }

    #[test]
    fn a_number_that_is_none_stays_visible_and_in_its_row() {
        let mut qkv = noise(40, 3 * 16, 4);
        qkv[[7, 3]] = f32::NAN; // of a query
        for (name, out, _) in all_results(&qkv, 1) {
            for (i, row) in out.rows().into_iter().enumerate() {
                assert!(
                    row.iter().all(|v| v.is_nan() == (i == 7)),
                    "{name}, row {i}"
                );
            }
        }
    }

    #[test]
    fn a_key_or_value_that_is_no_number_reaches_every_row() {
        for column in [16 + 3, 32 + 3] {
            let mut qkv = noise(40, 3 * 16, 4);
            qkv[[7, column]] = f32::NAN;
            for (name, out, _) in all_results(&qkv, 1) {
                assert!(out.column(3).iter().all(|v| v.is_nan()), "{name}");
            }
        }
    }

    #[test]
    fn equal_keys_give_the_mean_of_the_values() {
        let mut qkv = noise(33, 3 * 8, 2);
        qkv.slice_mut(s![.., 8..16]).fill(0.25);
        let mean = qkv.slice(s![.., 16..]).mean_axis(Axis(0)).unwrap();
        let expected = mean.broadcast((33, 8)).unwrap().to_owned();
        for (name, out, tolerance) in all_results(&qkv, 2) {
            assert!(max_diff(&out, &expected) < tolerance / 2.0, "{name}");
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let qkv = noise(250, 3 * 64, 3);
        for n in [2, 3, 5] {
            let run = || all_results(&qkv, 4);
            for (one, many) in with_threads(1, run).into_iter().zip(with_threads(n, run)) {
                assert_eq!(one, many, "{n} threads");
            }
        }
    }
}
