//! Attention of a decoder to keys and values in an f16 cache, under a mask, where several heads of
//! queries share a head of keys.
//!
//! Many queries at once, as for a prompt:
//!
//! ```text
//! for each head of keys and each piece of the queries, in parallel:
//!     for each chunk of keys:
//!         pack those of its k and v that a query of the piece sees
//!         for each of the heads that share them, for each 48 queries:
//!             as in `attention`, but without blocks that the mask hides, and continuing from the last chunk
//!     out = (o / sum)^T
//! ```
//!
//! Keys that no query sees, such as those of other sequences, are skipped beforehand; "keys" below
//! are those that are left. So results do not depend on where in the cache a sequence has its keys.
//!
//! A chunk and the sums of its queries stay in the L2 cache, however long the cache is. Everything
//! is f32, so only the f16 of keys and values is rounded. Few queries, as when decoding one token
//! at a time, need no packing (`avx512_decode`).
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{KEYS, RunningSoftmax, Softmax};
use crate::cpu::Cpu;
use crate::tile::{Buffer, LANES, ROWS, Scalar, Start, WIDTH, at, place_column, place_row};
use crate::vectorized;

/// With fewer queries packing is not worth it.
const MIN_PACKED_QUERIES: usize = 16;
/// Keys that are packed at a time: with their values, 512 kB for heads of 128.
const CHUNK: usize = 8 * KEYS;

/// Rows of heads in memory: `[heads][rows][head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<T> {
    /// The first element.
    pub data: *const T,
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one head to the next.
    pub head: usize,
}

impl<T> HeadRows<T> {
    /// # Safety
    /// The head and the row exist, and nobody writes them meanwhile.
    pub(super) unsafe fn get<'a>(&self, head: usize, row: usize, head_dim: usize) -> &'a [T] {
        // SAFETY: as above.
        unsafe {
            std::slice::from_raw_parts(self.data.add(head * self.head + row * self.row), head_dim)
        }
    }
}

/// The operands, their sizes and the output.
#[derive(Clone, Copy, Debug)]
pub struct CachedAttention {
    /// `[n_head][n_query][head_dim]`
    pub query: HeadRows<f32>,
    /// `[n_head_kv][n_key][head_dim]`
    pub key: HeadRows<f16>,
    /// Like the keys.
    pub value: HeadRows<f16>,
    /// What is added to the scores, `[n_query][n_key]`, the same for all heads: usually zero or
    /// minus infinity.
    pub mask: HeadRows<f16>,
    /// `[n_query][n_head][head_dim]`
    pub out: *mut f32,
    /// Heads of queries, a multiple of `n_head_kv`. Consecutive heads share a head of keys.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Width of a head, a multiple of 8.
    pub head_dim: usize,
    /// Number of queries.
    pub n_query: usize,
    /// Number of keys and of values.
    pub n_key: usize,
    /// The factor of the scores.
    pub scale: f32,
}

// SAFETY: the function that accesses the memory is unsafe and states what the caller must
// guarantee.
unsafe impl Send for CachedAttention {}
// SAFETY: as above.
unsafe impl Sync for CachedAttention {}

/// The mask of a hidden key.
const HIDDEN: u16 = f16::NEG_INFINITY.to_bits();

/// Which keys of a block some queries see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visibility {
    Nothing,
    All,
    /// Depends on the mask.
    Masked,
}

impl CachedAttention {
    /// Whether the shapes are valid.
    pub fn is_possible(&self) -> bool {
        let sizes = [self.n_head, self.n_head_kv, self.head_dim, self.n_query];
        !sizes.contains(&0)
            && self.n_key > 0
            && self.head_dim.is_multiple_of(ROWS)
            && self.n_head.is_multiple_of(self.n_head_kv)
    }

    /// Whether the shapes are valid and there is a fast kernel among the instructions of `cpu`.
    /// With few queries memory is the limit, which plain code does not reach.
    pub fn is_supported(&self, cpu: Cpu) -> bool {
        self.is_possible() && (self.n_query >= MIN_PACKED_QUERIES || self.use_decode_kernel(cpu))
    }

    /// Whether queries are computed one by one.
    fn use_decode_kernel(&self, cpu: Cpu) -> bool {
        #[cfg(target_arch = "x86_64")]
        let has_kernel = super::avx512_decode::has_width(self.head_dim)
            && crate::tile::Avx512::new(cpu).is_some();
        #[cfg(not(target_arch = "x86_64"))]
        let has_kernel = {
            let _ = cpu;
            false
        };
        self.n_query < MIN_PACKED_QUERIES && has_kernel
    }

    /// Number of tasks for `n_threads`. It does not change the result.
    pub fn tasks(&self, cpu: Cpu, n_threads: usize) -> usize {
        if self.use_decode_kernel(cpu) {
            return self.n_query * self.n_head_kv.div_ceil(self.heads(n_threads));
        }
        self.n_head_kv * self.n_query.div_ceil(self.piece(n_threads))
    }

    /// The keys that any query sees.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn seen(&self) -> Vec<usize> {
        let mut seen = vec![0_u16; self.n_key];
        for query in 0..self.n_query {
            // SAFETY: the mask has a row for each query, and an element for each key.
            let mask = unsafe { self.mask.get(0, query, self.n_key) };
            vectorized(|| {
                for (seen, m) in seen.iter_mut().zip(mask) {
                    *seen |= m.to_bits() ^ HIDDEN;
                }
            });
        }
        (0..self.n_key).filter(|key| seen[*key] != 0).collect()
    }

    /// Heads of keys per task for single queries: as many as leave each thread two tasks.
    fn heads(&self, n_threads: usize) -> usize {
        let pieces = (2 * n_threads).div_ceil(self.n_query);
        (self.n_head_kv / pieces).max(1)
    }

    /// Queries per task: all of them, if there are enough heads for the threads to finish together.
    fn piece(&self, n_threads: usize) -> usize {
        let pieces = (4 * n_threads).div_ceil(self.n_head_kv);
        self.n_query.div_ceil(pieces).next_multiple_of(WIDTH)
    }

    /// Runs task `i` of those for `n_threads`, with the instructions of `cpu` as far as this CPU
    /// has them.
    ///
    /// # Safety
    /// - All operands are valid and aligned, and nobody writes them meanwhile.
    /// - `out` is valid for writes, and no other thread accesses what this task writes: the results
    ///   of its queries and heads.
    ///
    /// # Panics
    /// If the shapes are [not valid](Self::is_possible), or there is no such task.
    pub unsafe fn run(&self, cpu: Cpu, i: usize, n_threads: usize) {
        assert!(self.is_possible() && i < self.tasks(cpu, n_threads));
        #[cfg(target_arch = "x86_64")]
        if self.use_decode_kernel(cpu) {
            let heads = self.heads(n_threads);
            let groups = self.n_head_kv.div_ceil(heads);
            let (first, query) = (i % groups * heads, i / groups);
            let heads = first..self.n_head_kv.min(first + heads);
            // SAFETY: the caller's promise; the CPU has AVX-512, by `use_decode_kernel`.
            return SCRATCH.with_borrow_mut(|scratch| unsafe {
                super::avx512_decode::heads(self, heads, query, &mut scratch.single);
            });
        }
        let piece = self.piece(n_threads);
        let pieces = self.n_query.div_ceil(piece);
        let first = i % pieces * piece;
        let task = Task {
            of: self,
            head: i / pieces,
            queries: first..self.n_query.min(first + piece),
            // SAFETY: the caller's promise.
            keys: unsafe { self.seen() },
        };
        SCRATCH.with_borrow_mut(|scratch| {
            #[cfg(target_arch = "x86_64")]
            {
                use crate::tile::{Avx2, Avx512};
                if let Some(kernels) = Avx512::new(cpu) {
                    // SAFETY: the caller's promise.
                    return unsafe { task.run(kernels, scratch) };
                }
                if let Some(kernels) = Avx2::new(cpu) {
                    // SAFETY: the caller's promise.
                    return unsafe { task.run(kernels, scratch) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            if let Some(kernels) = crate::tile::Neon::new(cpu) {
                // SAFETY: the caller's promise.
                return unsafe { task.run(kernels, scratch) };
            }
            let _ = cpu;
            // SAFETY: the caller's promise.
            unsafe { task.run(Scalar::<f32>::default(), scratch) }
        });
    }
}

/// Buffers that a thread keeps: a chunk of keys and values, those of 48 queries at a time, and the
/// sums of its whole task.
struct CachedScratch {
    keys: Buffer<f32>,    // panels of keys, depth head_dim
    values: Buffer<f32>,  // for each block of keys: panels of head_dim, depth KEYS
    query: Buffer<f32>,   // [head_dim][width]
    scores: Buffer<f32>,  // [KEYS][width]
    weights: Buffer<f32>, // [KEYS][width]
    row: Buffer<f32>,     // [head_dim]
    mixed: Buffer<f32>,   // [tiles][head_dim][WIDTH]
    running: Vec<RunningSoftmax>,
    #[cfg(target_arch = "x86_64")]
    single: super::avx512_decode::DecodeScratch,
}

thread_local! {
    static SCRATCH: RefCell<CachedScratch> = RefCell::new(CachedScratch {
        keys: Buffer::zeros(0),
        values: Buffer::zeros(0),
        query: Buffer::zeros(0),
        scores: Buffer::zeros(KEYS * WIDTH),
        weights: Buffer::zeros(KEYS * WIDTH),
        row: Buffer::zeros(0),
        mixed: Buffer::zeros(0),
        running: Vec::new(),
        #[cfg(target_arch = "x86_64")]
        single: super::avx512_decode::DecodeScratch::default(),
    });
}

impl CachedScratch {
    /// Makes room for `tiles` tiles of queries and resets the sums.
    fn reset(&mut self, tiles: usize, head_dim: usize) {
        self.keys.resize(CHUNK * head_dim);
        self.values.resize(CHUNK * head_dim);
        self.query.resize(head_dim * WIDTH);
        self.row.resize(head_dim);
        self.mixed.resize(tiles * head_dim * WIDTH);
        self.mixed.fill(0.0);
        self.running.clear();
        self.running.resize_with(tiles, || RunningSoftmax::new(1.0));
    }

    /// Packs one key and its value as number `key` of the chunk.
    fn pack(&mut self, key: usize, k: &[f16], v: &[f16]) {
        let head_dim = k.len();
        k.convert_to_f32_slice(&mut self.row);
        place_row(key, &self.row, &mut self.keys);
        v.convert_to_f32_slice(&mut self.row);
        let block = &mut self.values[key / KEYS * KEYS * head_dim..][..KEYS * head_dim];
        let place = at::<f32>(0, key % KEYS, KEYS);
        let panels = block.chunks_exact_mut(ROWS * KEYS);
        for (panel, values) in panels.zip(self.row.chunks_exact(ROWS)) {
            panel[place..place + ROWS].copy_from_slice(values);
        }
    }
}

/// Some queries, and the heads that share a head of keys.
struct Task<'a> {
    of: &'a CachedAttention,
    /// The head of keys.
    head: usize,
    queries: Range<usize>,
    /// The keys that any query sees, in order.
    keys: Vec<usize>,
}

impl Task<'_> {
    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn run<K: Softmax<Element = f32>>(&self, kernels: K, scratch: &mut CachedScratch) {
        let CachedAttention {
            n_head,
            n_head_kv,
            head_dim,
            ..
        } = *self.of;
        let sharing = n_head / n_head_kv;
        let blocks = self.keys.len().div_ceil(KEYS);
        let firsts: Vec<usize> = self.queries.clone().step_by(WIDTH).collect();
        scratch.reset(sharing * firsts.len(), head_dim);
        // SAFETY: the caller's promise.
        unsafe {
            let mut visibility = Vec::with_capacity(firsts.len() * blocks);
            for first in &firsts {
                visibility.extend((0..blocks).map(|block| self.visibility(*first, block)));
            }
            for chunk in (0..blocks).step_by(CHUNK / KEYS) {
                for block in chunk..blocks.min(chunk + CHUNK / KEYS) {
                    let mut seen = visibility.iter().skip(block).step_by(blocks);
                    if seen.any(|visibility| *visibility != Visibility::Nothing) {
                        self.pack(chunk, block, scratch);
                    }
                }
                for (i, first) in firsts.iter().enumerate() {
                    let visibility = &visibility[i * blocks..][..blocks];
                    for shared in 0..sharing {
                        let head = self.head * sharing + shared;
                        let tile = i * sharing + shared;
                        self.tile(kernels, (head, *first, tile), chunk, visibility, scratch);
                    }
                }
            }
            for (i, first) in firsts.iter().enumerate() {
                for shared in 0..sharing {
                    let head = self.head * sharing + shared;
                    self.store(head, *first, i * sharing + shared, scratch);
                }
            }
        }
    }

    /// Queries of the tile that begins at `first`.
    fn tile_queries(&self, first: usize) -> Range<usize> {
        first..self.queries.end.min(first + WIDTH)
    }

    fn block_keys(&self, block: usize) -> &[usize] {
        &self.keys[block * KEYS..self.keys.len().min((block + 1) * KEYS)]
    }

    /// The mask of a query for the keys of a block. It is copied to `room` if the keys are not
    /// consecutive.
    ///
    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn block_mask<'a>(
        &self,
        query: usize,
        keys: &[usize],
        room: &'a mut [f16; KEYS],
    ) -> &'a [f16] {
        // SAFETY: the mask has a row for each query, and an element for each key.
        let mask = unsafe { self.of.mask.get(0, query, self.of.n_key) };
        let (first, n) = (keys[0], keys.len());
        if keys[n - 1] - first + 1 == n {
            return &mask[first..first + n];
        }
        for (m, key) in room.iter_mut().zip(keys) {
            *m = mask[*key];
        }
        &room[..n]
    }

    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn visibility(&self, first: usize, block: usize) -> Visibility {
        let keys = self.block_keys(block);
        let mut room = [f16::ZERO; KEYS];
        let (mut all, mut nothing) = (true, true);
        for query in self.tile_queries(first) {
            // SAFETY: the caller's promise.
            let mask = unsafe { self.block_mask(query, keys, &mut room) };
            vectorized(|| {
                all &= mask.iter().fold(0, |or, m| or | m.to_bits()) == 0;
                nothing &= mask.iter().fold(0, |or, m| or | (m.to_bits() ^ HIDDEN)) == 0;
            });
        }
        match (nothing, all) {
            (true, _) => Visibility::Nothing,
            (_, true) => Visibility::All,
            _ => Visibility::Masked,
        }
    }

    /// Packs a block of keys and values of the chunk that begins at block `chunk`.
    ///
    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn pack(&self, chunk: usize, block: usize, scratch: &mut CachedScratch) {
        let head_dim = self.of.head_dim;
        let keys = self.block_keys(block);
        let first = (block - chunk) * KEYS;
        for (i, key) in keys.iter().enumerate() {
            // SAFETY: the head and the row exist.
            let (k, v) = unsafe {
                (
                    self.of.key.get(self.head, *key, head_dim),
                    self.of.value.get(self.head, *key, head_dim),
                )
            };
            scratch.pack(first + i, k, v);
        }
        // Pads the block with zeros: they get no weight, but must not be NaN.
        scratch.row.fill(0.0);
        let zeros = vec![f16::ZERO; head_dim];
        for i in keys.len()..KEYS {
            scratch.pack(first + i, &zeros, &zeros);
        }
    }

    /// Adds a chunk of keys to the sums of a tile: the queries of a head from `first` on.
    ///
    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn tile<K: Softmax<Element = f32>>(
        &self,
        kernels: K,
        (head, first, tile): (usize, usize, usize),
        chunk: usize,
        visibility: &[Visibility],
        scratch: &mut CachedScratch,
    ) {
        let head_dim = self.of.head_dim;
        let blocks = chunk..visibility.len().min(chunk + CHUNK / KEYS);
        if visibility[blocks.clone()]
            .iter()
            .all(|s| *s == Visibility::Nothing)
        {
            return;
        }
        let queries = self.tile_queries(first);
        let width = queries.len().next_multiple_of(LANES);
        // SAFETY: the caller's promise.
        unsafe { self.pack_queries(kernels, head, queries.clone(), width, scratch) };
        let query = &scratch.query[..head_dim * width];
        let mixed = &mut scratch.mixed[tile * head_dim * WIDTH..][..head_dim * width];
        let running = &mut scratch.running[tile];
        for block in blocks {
            if visibility[block] == Visibility::Nothing {
                continue;
            }
            let at = (block - chunk) * KEYS * head_dim;
            let k = &scratch.keys[at..at + KEYS * head_dim];
            let v = &scratch.values[at..at + KEYS * head_dim];
            let scores = &mut scratch.scores[..KEYS * width];
            kernels.multiply(k, query, width, Start::Zero, scores);
            if visibility[block] == Visibility::Masked {
                // SAFETY: the caller's promise.
                unsafe { self.mask(queries.clone(), block, width, scores) };
            }
            scores[self.block_keys(block).len() * width..].fill(f32::NEG_INFINITY);
            let weights = &mut scratch.weights[..KEYS * width];
            kernels.update(scores, width, running, weights);
            let rescale = Start::Scaled(&running.rescale[..width]);
            kernels.multiply(v, weights, width, rescale, mixed);
        }
    }

    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn pack_queries<K: Softmax<Element = f32>>(
        &self,
        kernels: K,
        head: usize,
        queries: Range<usize>,
        width: usize,
        scratch: &mut CachedScratch,
    ) {
        let scale = self.of.scale * std::f32::consts::LOG2_E; // weights are powers of two
        let packed = &mut scratch.query[..self.of.head_dim * width];
        let n = queries.len();
        for (column, query) in queries.enumerate() {
            // SAFETY: the head and the row exist.
            let q = unsafe { self.of.query.get(head, query, self.of.head_dim) };
            kernels.convert(q, scale, &mut scratch.row);
            place_column(column, &scratch.row, width, packed);
        }
        scratch.row.fill(0.0);
        for column in n..width {
            place_column(column, &scratch.row, width, packed);
        }
    }

    /// Adds the mask to `scores: [keys][width]` of a block.
    ///
    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn mask(&self, queries: Range<usize>, block: usize, width: usize, scores: &mut [f32]) {
        let keys = self.block_keys(block);
        let mut room = [f16::ZERO; KEYS];
        for (column, query) in queries.enumerate() {
            // SAFETY: the caller's promise.
            let mask = unsafe { self.block_mask(query, keys, &mut room) };
            for (scores, mask) in scores.chunks_exact_mut(width).zip(mask) {
                if *mask == f16::NEG_INFINITY {
                    scores[column] = f32::NEG_INFINITY;
                } else if *mask != f16::ZERO {
                    scores[column] += mask.to_f32() * std::f32::consts::LOG2_E;
                }
            }
        }
    }

    /// Stores a tile's results. A query that sees no key gets zeros.
    ///
    /// # Safety
    /// As [`CachedAttention::run`].
    unsafe fn store(&self, head: usize, first: usize, tile: usize, scratch: &CachedScratch) {
        let head_dim = self.of.head_dim;
        let queries = self.tile_queries(first);
        let width = queries.len().next_multiple_of(LANES);
        let mixed = &scratch.mixed[tile * head_dim * WIDTH..][..head_dim * width];
        let running = &scratch.running[tile];
        for (column, query) in queries.enumerate() {
            let at = (query * self.of.n_head + head) * head_dim;
            // SAFETY: the results of this query and head, which this task may write.
            let out = unsafe { std::slice::from_raw_parts_mut(self.of.out.add(at), head_dim) };
            let seen = running.max[column] > f32::MIN;
            let factor = if seen { 1.0 / running.sum[column] } else { 0.0 };
            for (out, mixed) in out.iter_mut().zip(mixed.chunks_exact(width)) {
                *out = mixed[column] * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests;
