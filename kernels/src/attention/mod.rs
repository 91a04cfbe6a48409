//! Full attention without a mask, blocked over the keys, with an online softmax.
//!
//! ```text
//! for each head and each piece of its queries, in parallel:
//!     pack this head's k and v, unless this thread's last piece was of the same head
//!     for each 48 queries (96 in f16):
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
//! (Dao et al., "FlashAttention", 2022.) Scores are kept for one block only: a thread stores one
//! head's keys and values and about 30 kB that stay in the L1 cache, instead of `n * n` scores per
//! head (96 MB for 1226 tokens).
//!
//! Everything is transposed compared with the formula: queries are the lanes of a vector. Maxima,
//! sums and factors are then vectors too, queries never interact, and the weights `p` leave the
//! registers in the layout in which the second matmul loads them.
//!
//! Scores are exponents of two: the factor `log2 e`, together with the root of the head's width, is
//! multiplied into the queries as they are packed.
//!
//! Both matmuls are `Tile`'s; `Softmax` is the rest that each instruction set implements.
//!
//! f16 has a small range, and AVX-512 FP16 also sums in it. So a head's keys, its values and a
//! tile's queries are each divided by a power of two that brings them into -1..1. Then no sum of 64
//! products overflows, and small numbers lose at most 2^-25 of the largest. Scores and results are
//! multiplied back in f32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_decode;
mod cached;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

pub use cached::{CachedAttention, HeadRows};

use std::any::Any;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::cpu::Cpu;
use crate::quantized::{BLOCK, OwnedQuantizedActivations, QuantScheme};
use crate::tile::{
    Buffer, Element, MAX_WIDTH, ROWS, Scalar, Start, Tile, at, prefetch, split_rows,
};

/// Keys per block: with 48 queries the scores take 12 kB. A multiple of the panel's rows, and the
/// number of products that are summed in f16.
const KEYS: usize = 64;
/// Queries per task: 16 heads and 1226 tokens make 112 tasks, so that eight threads finish
/// together.
const PIECE: usize = 2 * MAX_WIDTH;

/// The type in which attention multiplies. Results are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 only.
    F32,
    /// Queries, keys, values and weights rounded to bf16, sums in f32; f32 on CPUs without bf16.
    /// Results of size 1 are within 0.01.
    Bf16,
    /// The same in f16, with sums of 64 products in f16 too; f32 on CPUs without f16. Results of
    /// size 1 are within 0.002.
    F16,
}

impl Precision {
    /// The fastest in this process.
    pub fn fastest() -> Self {
        if Cpu::chosen().has_f16() {
            Self::F16
        } else if crate::cpu::bf16_is_fast(Cpu::chosen()) {
            Self::Bf16
        } else {
            Self::F32
        }
    }

    /// The name for users.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// Bytes that each thread keeps for `n` tokens and heads of `head_dim`, in any precision.
pub fn scratch_bytes(n: usize, head_dim: usize) -> usize {
    let (keys, dim) = (n.next_multiple_of(ROWS), head_dim.next_multiple_of(ROWS));
    let (tile, piece) = (2 * (dim + KEYS) * MAX_WIDTH, PIECE * head_dim);
    let numbers = 2 * keys * dim + tile + piece + ROWS * dim;
    // Eight buffers, each aligned to a cache line, and three rows of `MAX_WIDTH`.
    numbers * size_of::<f32>() + Buffer::<f32>::bytes(0) * 8 + 2048
}

/// Attention of `qkv: [n, 3 * n_embd]`, whose columns are q, then k, then v, each head by head. The
/// result goes to `out: [n, n_embd]`.
///
/// Scores are divided by the root of the head's width. A NaN in a query propagates to its row; a
/// NaN in a key or a value propagates to every row.
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

/// The same, with the output quantized for a matmul, in a fine scheme.
///
/// # Panics
/// If the shapes do not agree, the scheme is not fine, or the width of a head is not a multiple of
/// [`BLOCK`].
pub fn attention_quantized(
    qkv: &ArrayView2<f32>,
    n_head: usize,
    precision: Precision,
    scheme: QuantScheme,
    out: &mut OwnedQuantizedActivations,
) {
    let (n, n_embd) = (qkv.nrows(), qkv.ncols() / 3);
    let head_dim = n_embd / n_head;
    assert_eq!(head_dim % BLOCK, 0, "head_dim must be whole blocks");
    let rows = out.prepare((n, n_embd), scheme);
    let emit = |piece: Piece<()>, mixed: &[f32]| {
        for (i, row) in mixed.chunks_exact(head_dim).enumerate() {
            #[allow(unsafe_code)]
            // SAFETY: a piece of a head comes once, and a head is whole blocks, so no two calls
            // write the same blocks of a row.
            unsafe {
                rows.quantize_blocks(piece.first + i, piece.head * head_dim / BLOCK, row);
            }
        }
    };
    let heads = (0..n_head).flat_map(|head| (0..n).step_by(PIECE).map(move |first| (head, first)));
    let pieces = heads.map(|(head, first)| Piece {
        head,
        first,
        rows: PIECE.min(n - first),
        out: (),
    });
    dispatch(
        Cpu::chosen(),
        qkv,
        n_head,
        precision,
        pieces.collect(),
        emit,
    );
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
    let pieces = split_output(qkv, n_head, out);
    dispatch(cpu, qkv, n_head, precision, pieces, store);
}

/// Splits `out` into pieces.
fn split_output<'a>(
    qkv: &ArrayView2<f32>,
    n_head: usize,
    mut out: ArrayViewMut2<'a, f32>,
) -> Vec<Piece<ArrayViewMut2<'a, f32>>> {
    let (n, n_embd) = out.dim();
    assert_eq!(qkv.dim(), (n, 3 * n_embd), "qkv must be [n, 3 * n_embd]");
    assert_eq!(n_embd % n_head, 0, "n_embd must be a multiple of n_head");
    let head_dim = n_embd / n_head;
    let mut pieces = Vec::new();
    for head in 0..n_head {
        let (mut columns, right) = out.split_at(Axis(1), head_dim);
        out = right;
        for first in (0..n).step_by(PIECE) {
            let rows = PIECE.min(n - first);
            let (out, rest) = columns.split_at(Axis(0), rows);
            columns = rest;
            pieces.push(Piece {
                head,
                first,
                rows,
                out,
            });
        }
    }
    pieces
}

/// Some queries of a head, and where their result goes.
struct Piece<P> {
    head: usize,
    /// The first query.
    first: usize,
    /// Number of queries.
    rows: usize,
    out: P,
}

/// Stores `mixed: [rows, head_dim]` in the output of the piece.
fn store(mut piece: Piece<ArrayViewMut2<f32>>, mixed: &[f32]) {
    let mixed = ArrayView2::from_shape(piece.out.dim(), mixed);
    piece.out.assign(&mixed.expect("mixed is [rows, head_dim]"));
}

/// Computes the pieces with the kernels for `cpu` and calls `emit` with each result, `[rows,
/// head_dim]`.
fn dispatch<P: Send>(
    cpu: Cpu,
    qkv: &ArrayView2<f32>,
    n_head: usize,
    precision: Precision,
    pieces: Vec<Piece<P>>,
    emit: impl Fn(Piece<P>, &[f32]) + Sync,
) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::tile::{Avx2, Avx512, Avx512Bf16, Avx512Fp16};
        if let (Precision::F16, Some(kernels)) = (precision, Avx512Fp16::new(cpu)) {
            return run(kernels, qkv, n_head, pieces, emit);
        }
        if let (Precision::Bf16, Some(kernels)) = (precision, Avx512Bf16::new(cpu)) {
            return run(kernels, qkv, n_head, pieces, emit);
        }
        if let Some(kernels) = Avx512::new(cpu) {
            return run(kernels, qkv, n_head, pieces, emit);
        }
        if let Some(kernels) = Avx2::new(cpu) {
            return run(kernels, qkv, n_head, pieces, emit);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use crate::tile::{Neon, NeonBf16};
        if let (Precision::Bf16, Some(kernels)) = (precision, NeonBf16::new(cpu)) {
            return run(kernels, qkv, n_head, pieces, emit);
        }
        if let Some(kernels) = Neon::new(cpu) {
            return run(kernels, qkv, n_head, pieces, emit);
        }
    }
    let _ = (cpu, precision);
    run(Scalar::<f32>::default(), qkv, n_head, pieces, emit);
}

/// What each instruction set implements besides the matmul.
trait Softmax: Tile {
    /// Updates `running` with a block of `scores: [keys, width]` and stores the block's weights,
    /// relative to the new maxima, in `weights: [keys / GROUP, width, GROUP]`.
    fn update(
        self,
        scores: &[f32],
        width: usize,
        running: &mut RunningSoftmax,
        weights: &mut [Self::Element],
    );
}

/// The running softmax of each query of a tile.
#[repr(align(64))]
struct RunningSoftmax {
    /// The largest score.
    max: [f32; MAX_WIDTH],
    /// The sum of the weights relative to that maximum.
    sum: [f32; MAX_WIDTH],
    /// The factor for older sums after the last block: two to the old maximum minus the new one.
    rescale: [f32; MAX_WIDTH],
    /// The factor from products to scores: a power of two, and one unless the type sums in itself.
    /// (The kernels of other types ignore it.)
    unit: f32,
}

impl RunningSoftmax {
    fn new(unit: f32) -> Self {
        Self {
            // Not minus infinity: for a block whose scores are all minus infinity, `max - max`
            // would be NaN.
            max: [f32::MIN; MAX_WIDTH],
            sum: [0.0; MAX_WIDTH],
            rescale: [0.0; MAX_WIDTH],
            unit,
        }
    }
}

fn run<K: Softmax, P: Send>(
    kernels: K,
    qkv: &ArrayView2<f32>,
    n_head: usize,
    pieces: Vec<Piece<P>>,
    emit: impl Fn(Piece<P>, &[f32]) + Sync,
) {
    /// Identifies a call, so that a thread knows whether its packed head belongs to this one.
    static CALLS: AtomicU64 = AtomicU64::new(0);

    let (n, n_embd) = (qkv.nrows(), qkv.ncols() / 3);
    assert_eq!(n_embd % n_head, 0, "n_embd must be a multiple of n_head");
    let head_dim = n_embd / n_head;
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let compute = |piece: Piece<P>| {
        let head = piece.head;
        let part = |i: usize| {
            let first = i * n_embd + head * head_dim;
            qkv.slice(s![.., first..first + head_dim])
        };
        with_scratch(n, head_dim, |scratch: &mut AttentionScratch<K::Element>| {
            if scratch.packed != Some((call, head)) {
                scratch.pack(kernels, &part(1), &part(2));
                scratch.packed = Some((call, head));
            }
            let queries = piece.first..piece.first + piece.rows;
            let result = scratch.piece(kernels, &part(0).slice(s![queries, ..]));
            emit(piece, result);
        });
    };
    pieces.into_par_iter().with_max_len(1).for_each(compute);
}

/// Buffers that a thread keeps: one head's keys and values, and those of a tile of queries.
///
/// `dim` is the head's width and `keys` the number of tokens, both rounded up to whole panels and
/// padded with zeros.
struct AttentionScratch<E> {
    n: usize,
    head_dim: usize,
    /// The call and the head to which `keys` and `values` belong.
    packed: Option<(u64, usize)>,
    /// The factors by which keys, values and queries were divided.
    units: Units,
    keys: Buffer<E>,     // panels of keys, depth dim
    values: Buffer<E>,   // for each block of keys: panels of dim, depth the block's keys
    query: Buffer<E>,    // [dim / GROUP, width, GROUP]
    scores: Buffer<f32>, // [KEYS, width]
    weights: Buffer<E>,  // [KEYS / GROUP, width, GROUP]
    mixed: Buffer<f32>,  // [dim, width]
    rows: Buffer<E>,     // [ROWS, dim]
    result: Buffer<f32>, // [PIECE, head_dim]
}

/// Powers of two; one unless the type sums in itself.
#[derive(Default)]
struct Units {
    keys: f32,
    values: f32,
    query: f32,
}

/// Calls `f` with this thread's scratch, which is for one size and one precision at a time. Nothing
/// in `f` waits for another task, so rayon cannot start a second one on this thread.
fn with_scratch<E: Element>(n: usize, head_dim: usize, f: impl FnOnce(&mut AttentionScratch<E>)) {
    thread_local! {
        static SCRATCH: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    SCRATCH.with_borrow_mut(|slot| {
        let kept = slot
            .as_mut()
            .and_then(|s| s.downcast_mut::<AttentionScratch<E>>());
        if kept.is_none_or(|s| (s.n, s.head_dim) != (n, head_dim)) {
            *slot = None; // free it before the new one is allocated
            *slot = Some(Box::new(AttentionScratch::<E>::new(n, head_dim)));
        }
        let scratch = slot.as_mut().and_then(|s| s.downcast_mut());
        f(scratch.expect("the scratch has this type"));
    });
}

impl<E: Element> AttentionScratch<E> {
    fn new(n: usize, head_dim: usize) -> Self {
        let (keys, dim) = (n.next_multiple_of(ROWS), head_dim.next_multiple_of(ROWS));
        Self {
            n,
            head_dim,
            packed: None,
            units: Units::default(),
            keys: Buffer::zeros(keys * dim),
            values: Buffer::zeros(keys * dim),
            query: Buffer::zeros(dim * E::WIDTH),
            scores: Buffer::zeros(KEYS * E::WIDTH),
            weights: Buffer::zeros(KEYS * E::WIDTH),
            mixed: Buffer::zeros(dim * E::WIDTH),
            rows: Buffer::zeros(ROWS * dim),
            result: Buffer::zeros(PIECE * head_dim),
        }
    }

    /// The head's width, rounded up to whole panels.
    fn dim(&self) -> usize {
        self.rows.len() / ROWS
    }

    /// Packs a head's `k` and `v`, both `[n, head_dim]`. The padding stays zero.
    fn pack<K: Tile<Element = E>>(&mut self, kernels: K, k: &ArrayView2<f32>, v: &ArrayView2<f32>) {
        let dim = self.dim();
        self.units.keys = unit(kernels, k);
        self.units.values = unit(kernels, v);
        let scale = 1.0 / self.units.keys;
        for_each_panel(kernels, k, scale, &mut self.rows, |key, rows| {
            kernels.transpose(split_rows(rows), ROWS, &mut self.keys[key * dim..]);
        });
        for (key, v) in rows_with_prefetch(v).enumerate() {
            convert_row(kernels, &v, 1.0 / self.units.values, &mut self.rows);
            let first = key / KEYS * KEYS;
            let depth = KEYS.min(self.keys.len() / dim - first);
            let block = &mut self.values[first * dim..][..depth * dim];
            for (panel, values) in block
                .chunks_exact_mut(ROWS * depth)
                .zip(self.rows[..dim].chunks_exact(ROWS))
            {
                let place = at::<E>(0, key - first, depth);
                for (r, value) in values.iter().enumerate() {
                    panel[place + r * E::GROUP] = *value;
                }
            }
        }
    }

    /// Attention of the queries `q: [piece, head_dim]` to the packed head. Returns the same shape.
    fn piece<K: Softmax<Element = E>>(&mut self, kernels: K, q: &ArrayView2<f32>) -> &[f32] {
        for (i, q) in q.axis_chunks_iter(Axis(0), E::WIDTH).enumerate() {
            let width = q.nrows().next_multiple_of(E::LANES);
            self.pack_queries(kernels, &q, width);
            let sums = self.tile(kernels, width);
            self.unpack(&sums, width, i * E::WIDTH..i * E::WIDTH + q.nrows());
        }
        &self.result[..q.nrows() * self.head_dim]
    }

    fn pack_queries<K: Tile<Element = E>>(
        &mut self,
        kernels: K,
        q: &ArrayView2<f32>,
        width: usize,
    ) {
        self.units.query = unit(kernels, q);
        let scale = std::f32::consts::LOG2_E / (self.head_dim as f32).sqrt() / self.units.query;
        let dim = self.dim();
        let query = &mut self.query[..dim * width];
        for_each_panel(kernels, q, scale, &mut self.rows, |column, rows| {
            kernels.transpose(split_rows(rows), width, &mut query[column * E::GROUP..]);
        });
        self.rows.fill(E::default());
        for column in (q.nrows().next_multiple_of(ROWS)..width).step_by(ROWS) {
            kernels.transpose(
                split_rows(&self.rows),
                width,
                &mut query[column * E::GROUP..],
            );
        }
    }

    /// Stores the weighted sums of the values in `mixed` and returns the sums of the weights.
    fn tile<K: Softmax<Element = E>>(&mut self, kernels: K, width: usize) -> [f32; MAX_WIDTH] {
        let dim = self.dim();
        let query = &self.query[..dim * width];
        let mixed = &mut self.mixed[..dim * width];
        mixed.fill(0.0);
        let mut running = RunningSoftmax::new(self.units.query * self.units.keys);
        let blocks = self.keys.chunks(KEYS * dim);
        for (i, (k, v)) in blocks.zip(self.values.chunks(KEYS * dim)).enumerate() {
            let keys = k.len() / dim;
            let scores = &mut self.scores[..keys * width];
            kernels.multiply(k, query, width, Start::Zero, scores);
            // Hides the padding of the last panel of keys.
            scores[keys.min(self.n - i * KEYS) * width..].fill(f32::NEG_INFINITY);
            let weights = &mut self.weights[..keys * width];
            kernels.update(scores, width, &mut running, weights);
            let rescale = Start::Scaled(&running.rescale[..width]);
            kernels.multiply(v, weights, width, rescale, mixed);
        }
        running.sum
    }

    /// `result[first + i][c] = mixed[c][i] / sums[i]`, times the values' factor.
    fn unpack(&mut self, sums: &[f32; MAX_WIDTH], width: usize, rows: Range<usize>) {
        let result = &mut self.result[rows.start * self.head_dim..rows.end * self.head_dim];
        for (i, out) in result.chunks_exact_mut(self.head_dim).enumerate() {
            let factor = self.units.values / sums[i];
            for (out, mixed) in out.iter_mut().zip(self.mixed.chunks_exact(width)) {
                *out = mixed[i] * factor;
            }
        }
    }
}

/// The factor by which elements are divided: if the type sums in itself, a power of two that brings
/// all finite elements into -1..1, otherwise one.
fn unit<K: Tile>(kernels: K, x: &ArrayView2<f32>) -> f32 {
    /// In this range the factor, its reciprocal and the product of two factors are normal numbers.
    const RANGE: std::ops::RangeInclusive<i32> = -60..=60;

    if !K::Element::SUMS_IN_TYPE {
        return 1.0;
    }
    let largest = |row: ndarray::ArrayView1<f32>| match row.to_slice() {
        Some(row) => kernels.max_finite_abs(row),
        None => kernels.max_finite_abs(&row.to_vec()),
    };
    let largest = rows_with_prefetch(x).map(largest).fold(0.0, f32::max);
    let exponent = (largest.to_bits() >> 23) as i32 - 126; // largest < 2^exponent
    2.0_f32.powi(exponent.clamp(*RANGE.start(), *RANGE.end()))
}

/// Iterates over the rows and prefetches each of them some rows ahead.
fn rows_with_prefetch<'a>(
    rows: &'a ArrayView2<f32>,
) -> impl Iterator<Item = ndarray::ArrayView1<'a, f32>> {
    const PREFETCH_DISTANCE: usize = 12;
    (0..rows.nrows()).map(move |i| {
        if i + PREFETCH_DISTANCE < rows.nrows()
            && let Some(row) = rows.row(i + PREFETCH_DISTANCE).to_slice()
        {
            prefetch(row);
        }
        rows.row(i)
    })
}

/// Calls `f` with eight rows of a head at a time, converted and padded with zeros, and the number
/// of the first.
fn for_each_panel<K: Tile>(
    kernels: K,
    x: &ArrayView2<f32>,
    scale: f32,
    room: &mut [K::Element],
    mut f: impl FnMut(usize, &[K::Element]),
) {
    let dim = room.len() / ROWS;
    for (i, x_row) in rows_with_prefetch(x).enumerate() {
        let (here, after) = room[i % ROWS * dim..].split_at_mut(dim);
        convert_row(kernels, &x_row, scale, here);
        if i + 1 == x.nrows() {
            after.fill(K::Element::default());
        } else if i % ROWS != ROWS - 1 {
            continue;
        }
        f(i / ROWS * ROWS, room);
    }
}

/// Converts a row of a head into the first elements of `out`.
fn convert_row<K: Tile>(
    kernels: K,
    row: &ndarray::ArrayView1<f32>,
    scale: f32,
    out: &mut [K::Element],
) {
    let out = &mut out[..row.len()];
    match row.to_slice() {
        Some(row) => kernels.convert(row, scale, out),
        None => {
            for (out, v) in out.iter_mut().zip(row) {
                *out = K::Element::from_f32(scale * v);
            }
        }
    }
}

#[cfg(test)]
mod tests;
