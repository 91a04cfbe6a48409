//! Full attention without a mask, blocked, with the softmax made as the keys go by.
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
//!
//! f16 has few exponents, and AVX-512 sums it in itself. So a head's keys, its values and a tile's
//! queries are each divided by a power of two that leaves numbers of -1..1: no sum of 64 overflows,
//! and what is lost of small numbers is 2^-25 of the largest. Scores and result are multiplied again
//! where they are f32.

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
use crate::int8::{self, QuantizedRows};
use crate::tile::{
    Buffer, Element, MAX_WIDTH, ROWS, Scalar, Start, Tile, at, prefetch, split_rows,
};

/// Keys in a block: with 48 queries, scores of 12 kB. Whole panels, and what is summed in f16.
const KEYS: usize = 64;
/// Queries of a task: 112 tasks for 16 heads and 1226 tokens, so that eight threads end together.
const PIECE: usize = 2 * MAX_WIDTH;

/// What the products of attention are made in. Results are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Queries, keys, values and weights rounded to bf16, sums in f32; f32 on CPUs that have no
    /// bf16. Numbers of size 1 come out within 0.01.
    Bf16,
    /// The same rounded to f16, and sums of 64 too; f32 on CPUs that have no f16. Numbers of size 1
    /// come out within 0.002.
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

    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// Bytes that one thread keeps for `n` tokens and heads of `head_dim`, in any precision.
pub fn scratch_bytes(n: usize, head_dim: usize) -> usize {
    let (keys, dim) = (n.next_multiple_of(ROWS), head_dim.next_multiple_of(ROWS));
    let (tile, piece) = (2 * (dim + KEYS) * MAX_WIDTH, PIECE * head_dim);
    let numbers = 2 * keys * dim + tile + piece + ROWS * dim;
    // Eight buffers, each with room to begin at a cache line, and three rows of `MAX_WIDTH`.
    numbers * size_of::<f32>() + Buffer::<f32>::bytes(0) * 8 + 2048
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

/// The same, quantized as the input of a product in int8.
///
/// # Panics
/// If heads are not whole blocks of the quantization.
pub fn attention_quantized(
    qkv: &ArrayView2<f32>,
    n_head: usize,
    precision: Precision,
    kernel: &int8::Int8Kernel,
    out: &mut QuantizedRows,
) {
    let (n, n_embd) = (qkv.nrows(), qkv.ncols() / 3);
    let head_dim = n_embd / n_head;
    assert_eq!(head_dim % int8::BLOCK, 0, "whole blocks");
    assert_eq!(PIECE % kernel.rows, 0, "pieces begin at tiles");
    let cells = out.cells(n, n_embd, kernel);
    let blocks = head_dim / int8::BLOCK;
    let put = |piece: Piece<()>, mixed: &[f32]| {
        for (i, tile) in mixed.chunks(kernel.rows * head_dim).enumerate() {
            for block in 0..blocks {
                let mut x = [[0.0; int8::BLOCK]; int8::MAX_ROWS];
                let rows = tile.chunks_exact(head_dim);
                let x = &mut x[..rows.len()];
                for (x, row) in x.iter_mut().zip(rows) {
                    x.copy_from_slice(&row[block * int8::BLOCK..][..int8::BLOCK]);
                }
                let row = piece.first + i * kernel.rows;
                #[allow(unsafe_code)]
                // SAFETY: a piece of a head is given once, pieces begin at tiles (asserted), and a
                // head is whole blocks, so no two of these share a tile and block.
                unsafe {
                    cells.quantize(row, piece.head * blocks + block, x);
                }
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
    dispatch(Cpu::chosen(), qkv, n_head, precision, pieces.collect(), put);
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

/// `out` in pieces.
fn split_output<'a>(
    qkv: &ArrayView2<f32>,
    n_head: usize,
    mut out: ArrayViewMut2<'a, f32>,
) -> Vec<Piece<ArrayViewMut2<'a, f32>>> {
    let (n, n_embd) = out.dim();
    assert_eq!(qkv.dim(), (n, 3 * n_embd), "q, k and v side by side");
    assert_eq!(n_embd % n_head, 0, "whole heads");
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
    /// How many.
    rows: usize,
    out: P,
}

/// `mixed: [rows, head_dim]` to where the piece belongs.
fn store(mut piece: Piece<ArrayViewMut2<f32>>, mixed: &[f32]) {
    let mixed = ArrayView2::from_shape(piece.out.dim(), mixed);
    piece.out.assign(&mixed.expect("whole rows"));
}

/// Computes the pieces with the kernels for `cpu`, and has each result, `[rows, head_dim]`, put where
/// it belongs.
fn dispatch<P: Send>(
    cpu: Cpu,
    qkv: &ArrayView2<f32>,
    n_head: usize,
    precision: Precision,
    pieces: Vec<Piece<P>>,
    put: impl Fn(Piece<P>, &[f32]) + Sync,
) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::tile::{Avx2, Avx512, Avx512Bf16, Avx512Fp16};
        if let (Precision::F16, Some(kernels)) = (precision, Avx512Fp16::new(cpu)) {
            return run(kernels, qkv, n_head, pieces, put);
        }
        if let (Precision::Bf16, Some(kernels)) = (precision, Avx512Bf16::new(cpu)) {
            return run(kernels, qkv, n_head, pieces, put);
        }
        if let Some(kernels) = Avx512::new(cpu) {
            return run(kernels, qkv, n_head, pieces, put);
        }
        if let Some(kernels) = Avx2::new(cpu) {
            return run(kernels, qkv, n_head, pieces, put);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use crate::tile::{Neon, NeonBf16};
        if let (Precision::Bf16, Some(kernels)) = (precision, NeonBf16::new(cpu)) {
            return run(kernels, qkv, n_head, pieces, put);
        }
        if let Some(kernels) = Neon::new(cpu) {
            return run(kernels, qkv, n_head, pieces, put);
        }
    }
    let _ = (cpu, precision);
    run(Scalar::<f32>::default(), qkv, n_head, pieces, put);
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
    max: [f32; MAX_WIDTH],
    /// The sum of the weights against that maximum.
    sum: [f32; MAX_WIDTH],
    /// What the last block made of what was summed before it: two to the old maximum minus the new.
    shrink: [f32; MAX_WIDTH],
    /// A score is so many times what the product gives: a power of two, and one unless the type is
    /// narrow (the kernels of others do not look).
    unit: f32,
}

impl Running {
    fn new(unit: f32) -> Self {
        Self {
            // Not minus infinity: where every score of a block is that, `max - max` would be no number.
            max: [f32::MIN; MAX_WIDTH],
            sum: [0.0; MAX_WIDTH],
            shrink: [0.0; MAX_WIDTH],
            unit,
        }
    }
}

fn run<K: Softmax, P: Send>(
    kernels: K,
    qkv: &ArrayView2<f32>,
    n_head: usize,
    pieces: Vec<Piece<P>>,
    put: impl Fn(Piece<P>, &[f32]) + Sync,
) {
    /// Names a call, so that a thread knows whether its packed head is of this one.
    static CALLS: AtomicU64 = AtomicU64::new(0);

    let (n, n_embd) = (qkv.nrows(), qkv.ncols() / 3);
    assert_eq!(n_embd % n_head, 0, "whole heads");
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
            put(piece, result);
        });
    };
    pieces.into_par_iter().with_max_len(1).for_each(compute);
}

/// What a thread keeps: one head's keys and values, and what belongs to a tile of queries.
///
/// `dim` is the head's width and `keys` the number of tokens, both rounded up to whole panels; the
/// numbers added are zeros.
struct AttentionScratch<E> {
    n: usize,
    head_dim: usize,
    /// The call and the head that `keys` and `values` are of.
    packed: Option<(u64, usize)>,
    /// Keys, values and queries are so many times what is packed of them.
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

/// Powers of two, all one unless the type is narrow.
#[derive(Default)]
struct Units {
    keys: f32,
    values: f32,
    query: f32,
}

/// Lends `f` this thread's scratch. It holds one size and one precision: another replaces it. Nothing
/// in `f` waits for another task, so rayon cannot start a second one within.
fn with_scratch<E: Element>(n: usize, head_dim: usize, f: impl FnOnce(&mut AttentionScratch<E>)) {
    thread_local! {
        static SCRATCH: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    SCRATCH.with_borrow_mut(|slot| {
        let kept = slot
            .as_mut()
            .and_then(|s| s.downcast_mut::<AttentionScratch<E>>());
        if kept.is_none_or(|s| (s.n, s.head_dim) != (n, head_dim)) {
            *slot = None; // before the new one is made
            *slot = Some(Box::new(AttentionScratch::<E>::new(n, head_dim)));
        }
        let scratch = slot.as_mut().and_then(|s| s.downcast_mut());
        f(scratch.expect("just made"));
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

    /// The head's width in whole panels.
    fn dim(&self) -> usize {
        self.rows.len() / ROWS
    }

    /// Packs a head's `k` and `v`, both `[n, head_dim]`. What was added to fill panels stays zero.
    fn pack<K: Tile<Element = E>>(&mut self, kernels: K, k: &ArrayView2<f32>, v: &ArrayView2<f32>) {
        let dim = self.dim();
        self.units.keys = unit(kernels, k);
        self.units.values = unit(kernels, v);
        let scale = 1.0 / self.units.keys;
        eight_rows(kernels, k, scale, &mut self.rows, |key, rows| {
            kernels.transpose(split_rows(rows), ROWS, &mut self.keys[key * dim..]);
        });
        for (key, v) in rows_ahead(v).enumerate() {
            narrow_row(kernels, &v, 1.0 / self.units.values, &mut self.rows);
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

    /// Attention of the queries `q: [piece, head_dim]` to the packed head; gives the same shape.
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
        eight_rows(kernels, q, scale, &mut self.rows, |column, rows| {
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

    /// The weighted sums of the values into `mixed`; gives the sums of the weights.
    fn tile<K: Softmax<Element = E>>(&mut self, kernels: K, width: usize) -> [f32; MAX_WIDTH] {
        let dim = self.dim();
        let query = &self.query[..dim * width];
        let mixed = &mut self.mixed[..dim * width];
        mixed.fill(0.0);
        let mut running = Running::new(self.units.query * self.units.keys);
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

    /// `result[first + i][c] = mixed[c][i] / sums[i]`, in the values' unit.
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

/// What numbers are divided by, as elements: for a narrow type a power of two that leaves numbers of
/// -1..1, whatever is no finite number not counted.
fn unit<K: Tile>(kernels: K, x: &ArrayView2<f32>) -> f32 {
    /// The unit and its reciprocal are then normal numbers, and so is the product of two units.
    const RANGE: std::ops::RangeInclusive<i32> = -60..=60;

    if !K::Element::SUMS_IN_TYPE {
        return 1.0;
    }
    let largest = |row: ndarray::ArrayView1<f32>| match row.to_slice() {
        Some(row) => kernels.max_finite_abs(row),
        None => kernels.max_finite_abs(&row.to_vec()),
    };
    let largest = rows_ahead(x).map(largest).fold(0.0, f32::max);
    let exponent = (largest.to_bits() >> 23) as i32 - 126; // it is below two to this
    2.0_f32.powi(exponent.clamp(*RANGE.start(), *RANGE.end()))
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

/// Gives `f` eight rows of a head at a time in the operands' type, and the number of the first. After the
/// last one there are zeros.
fn eight_rows<K: Tile>(
    kernels: K,
    x: &ArrayView2<f32>,
    scale: f32,
    room: &mut [K::Element],
    mut f: impl FnMut(usize, &[K::Element]),
) {
    let dim = room.len() / ROWS;
    for (i, x_row) in rows_ahead(x).enumerate() {
        let (here, after) = room[i % ROWS * dim..].split_at_mut(dim);
        narrow_row(kernels, &x_row, scale, here);
        if i + 1 == x.nrows() {
            after.fill(K::Element::default());
        } else if i % ROWS != ROWS - 1 {
            continue;
        }
        f(i / ROWS * ROWS, room);
    }
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
