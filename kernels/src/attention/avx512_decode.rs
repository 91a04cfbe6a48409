//! Attention of single queries to a cache with AVX-512, for decoding one token at a time.
//!
//! A cache of some thousand positions is read from memory, where the heads of a position are side
//! by side. So all heads of a task process a few keys at a time, and the following keys are
//! prefetched one by one in the order of their addresses. AMD's cores read that half as fast again
//! as the keys of a single head, which are far apart. Two heads that share keys are computed
//! together, so that each key and value is converted once for both. Keys that the query does not
//! see are skipped beforehand, so results do not depend on where in the cache a sequence has its
//! keys.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use half::f16;

use super::avx512::exp2;
use super::cached::{CachedAttention, HeadRows};
use crate::tile::prefetch_l2;

/// Elements of a register.
const LANES: usize = 16;
/// Keys that all heads of a task process before the next ones.
const KEYS: usize = 16;
/// How many keys ahead to prefetch.
const PREFETCH_DISTANCE: usize = 32;
/// f16 elements of a cache line.
const LINE: usize = 32;

/// Buffers that a thread keeps for single queries.
#[derive(Default)]
pub struct DecodeScratch {
    /// `[heads][visible keys]`
    scores: Vec<f32>,
    /// The visible keys, and what the mask adds to their scores.
    visible: Vec<(usize, f32)>,
    /// `[heads][head_dim]`
    query: Vec<f32>,
    /// `[heads][head_dim]`
    mixed: Vec<f32>,
}

/// Whether there is a kernel for heads of this width.
pub fn has_width(head_dim: usize) -> bool {
    matches!(head_dim, 64 | 128)
}

/// Computes the heads of one query that share the given heads of keys.
///
/// # Safety
/// - The CPU has AVX-512.
/// - As [`CachedAttention::run`], for this query and these heads.
pub unsafe fn heads(
    of: &CachedAttention,
    heads_kv: Range<usize>,
    query: usize,
    scratch: &mut DecodeScratch,
) {
    // SAFETY: the caller's promise; the widths are those of the kernels.
    unsafe {
        scratch.find_visible(of, query);
        match of.head_dim {
            64 => some::<4>(of, heads_kv, query, scratch),
            128 => some::<8>(of, heads_kv, query, scratch),
            width => unreachable!("no kernel for heads of width {width}"),
        }
    }
}

impl DecodeScratch {
    /// # Safety
    /// As [`heads`].
    unsafe fn find_visible(&mut self, of: &CachedAttention, query: usize) {
        // SAFETY: the mask has a row for each query, and an element for each key.
        let mask = unsafe { of.mask.get(0, query, of.n_key) };
        self.visible.clear();
        let visible = mask
            .iter()
            .enumerate()
            .filter(|(_, m)| **m != f16::NEG_INFINITY);
        let visible = visible.map(|(key, m)| (key, m.to_f32() * std::f32::consts::LOG2_E));
        self.visible.extend(visible);
    }

    /// # Safety
    /// As [`heads`].
    unsafe fn reset(
        &mut self,
        of: &CachedAttention,
        heads: Range<usize>,
        query: usize,
        padded: usize,
    ) {
        let scale = of.scale * std::f32::consts::LOG2_E;
        self.scores.clear();
        self.scores.resize(heads.len() * padded, f32::NEG_INFINITY);
        self.mixed.clear();
        self.mixed.resize(heads.len() * of.head_dim, 0.0);
        self.query.clear();
        for head in heads {
            // SAFETY: the row exists.
            let query = unsafe { of.query.get(head, query, of.head_dim) };
            self.query.extend(query.iter().map(|q| q * scale));
        }
    }
}

/// One or two heads that share a head of keys. `head` is the first of them, counted within the
/// task.
#[derive(Clone, Copy)]
struct Pair {
    kv: usize,
    head: usize,
    has_two: bool,
    /// Whether these are the first heads of this head of keys. The others find its keys in the
    /// cache.
    is_first: bool,
}

/// The pairs of a task, for `sharing` heads per head of keys.
fn pairs(heads_kv: Range<usize>, sharing: usize) -> impl Iterator<Item = Pair> {
    heads_kv.enumerate().flat_map(move |(i, kv)| {
        (0..sharing).step_by(2).map(move |shared| Pair {
            kv,
            head: i * sharing + shared,
            has_two: shared + 1 < sharing,
            is_first: shared == 0,
        })
    })
}

/// # Safety
/// As [`heads`], for heads of `N` registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn some<const N: usize>(
    of: &CachedAttention,
    heads_kv: Range<usize>,
    query: usize,
    scratch: &mut DecodeScratch,
) {
    let dim = N * LANES;
    let sharing = of.n_head / of.n_head_kv;
    let heads = heads_kv.start * sharing..heads_kv.end * sharing;
    let padded = scratch.visible.len().next_multiple_of(LANES).max(LANES);
    // SAFETY: these rows exist.
    unsafe { scratch.reset(of, heads.clone(), query, padded) }
    let DecodeScratch {
        scores,
        visible,
        query: queries,
        mixed,
    } = scratch;
    let prefetcher_of = |rows| RowPrefetcher {
        rows,
        heads: heads_kv.clone(),
        dim,
        visible,
        next: (PREFETCH_DISTANCE, heads_kv.start),
    };
    // SAFETY: the caller's promise; heads and blocks are within the task's.
    unsafe {
        let mut prefetcher = prefetcher_of(of.key);
        for (b, block) in visible.chunks(KEYS).enumerate() {
            for pair in pairs(heads_kv.clone(), sharing) {
                let Pair { kv, head, .. } = pair;
                let prefetcher = pair.is_first.then_some(&mut prefetcher);
                let q = &queries[head * dim..];
                let scores = &mut scores[head * padded + b * KEYS..];
                match pair.has_two {
                    true => score::<N, 2>(of, kv, q, block, scores, padded, prefetcher),
                    false => score::<N, 1>(of, kv, q, block, scores, padded, prefetcher),
                }
            }
        }
        let scores_of_heads = scores.chunks_exact_mut(padded);
        let factors: Vec<_> = scores_of_heads.map(|scores| softmax(scores)).collect();
        let mut prefetcher = prefetcher_of(of.value);
        for (b, block) in visible.chunks(KEYS).enumerate() {
            for pair in pairs(heads_kv.clone(), sharing) {
                let Pair { kv, head, .. } = pair;
                let prefetcher = pair.is_first.then_some(&mut prefetcher);
                let weights = &scores[head * padded + b * KEYS..];
                let mixed = &mut mixed[head * dim..];
                match pair.has_two {
                    true => mix::<N, 2>(of, kv, weights, padded, block, mixed, prefetcher),
                    false => mix::<N, 1>(of, kv, weights, padded, block, mixed, prefetcher),
                }
            }
        }
        for ((head, mixed), factor) in heads.zip(mixed.chunks_exact(dim)).zip(factors) {
            let out = of.out.add((query * of.n_head + head) * dim);
            for (i, mixed) in mixed.iter().enumerate() {
                *out.add(i) = mixed * factor;
            }
        }
    }
}

/// Prefetches rows one at a time, in the order of their addresses, some time before they are read.
struct RowPrefetcher<'a> {
    rows: HeadRows<f16>,
    heads: Range<usize>,
    dim: usize,
    visible: &'a [(usize, f32)],
    /// The key and the head of the next row.
    next: (usize, usize),
}

impl RowPrefetcher<'_> {
    /// # Safety
    /// The rows exist.
    #[inline(always)]
    unsafe fn prefetch_next(&mut self) {
        let (key, head) = self.next;
        let Some((key_row, _)) = self.visible.get(key) else {
            return;
        };
        // SAFETY: as above.
        let row = unsafe { self.rows.get(head, *key_row, self.dim) };
        row.iter().step_by(LINE).for_each(|line| prefetch_l2(line));
        self.next = match head + 1 < self.heads.end {
            true => (key, head + 1),
            false => (key + 1, self.heads.start),
        };
    }
}

/// Scores of a block of keys for `HEADS` heads, whose queries are consecutive; their scores are
/// `padded` apart.
///
/// # Safety
/// As [`heads`], for heads of `N` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn score<const N: usize, const HEADS: usize>(
    of: &CachedAttention,
    head_kv: usize,
    queries: &[f32],
    block: &[(usize, f32)],
    scores: &mut [f32],
    padded: usize,
    mut prefetcher: Option<&mut RowPrefetcher<'_>>,
) {
    let dim = N * LANES;
    assert!(queries.len() >= HEADS * dim && scores.len() >= (HEADS - 1) * padded + block.len());
    let mut q = [[_mm512_setzero_ps(); N]; HEADS];
    for (h, q) in q.iter_mut().enumerate() {
        for (i, q) in q.iter_mut().enumerate() {
            // SAFETY: within the queries.
            *q = unsafe { _mm512_loadu_ps(queries.as_ptr().add(h * dim + i * LANES)) };
        }
    }
    for (j, (key, added)) in block.iter().enumerate() {
        // SAFETY: these rows exist.
        let k = unsafe {
            if let Some(prefetcher) = &mut prefetcher {
                prefetcher.prefetch_next();
            }
            load_f16::<N>(of.key.get(head_kv, *key, dim))
        };
        for (h, q) in q.iter().enumerate() {
            let mut sum = _mm512_mul_ps(q[0], k[0]);
            for (q, k) in q.iter().zip(k).skip(1) {
                sum = _mm512_fmadd_ps(*q, k, sum);
            }
            scores[h * padded + j] = _mm512_reduce_add_ps(sum) + added;
        }
    }
}

/// Adds a block of weighted values to the sums `mixed` of `HEADS` heads; their weights are `padded`
/// apart.
///
/// # Safety
/// As [`heads`], for heads of `N` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn mix<const N: usize, const HEADS: usize>(
    of: &CachedAttention,
    head_kv: usize,
    weights: &[f32],
    padded: usize,
    block: &[(usize, f32)],
    mixed: &mut [f32],
    mut prefetcher: Option<&mut RowPrefetcher<'_>>,
) {
    let dim = N * LANES;
    assert!(mixed.len() >= HEADS * dim && weights.len() >= (HEADS - 1) * padded + block.len());
    let mut sums = [[_mm512_setzero_ps(); N]; HEADS];
    // SAFETY: within `mixed`, here and below; the rows exist.
    unsafe {
        for (h, sums) in sums.iter_mut().enumerate() {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(mixed.as_ptr().add(h * dim + i * LANES));
            }
        }
        for (j, (key, _)) in block.iter().enumerate() {
            if let Some(prefetcher) = &mut prefetcher {
                prefetcher.prefetch_next();
            }
            let v = load_f16::<N>(of.value.get(head_kv, *key, dim));
            for (h, sums) in sums.iter_mut().enumerate() {
                let weight = _mm512_set1_ps(weights[h * padded + j]);
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = _mm512_fmadd_ps(weight, v, *sum);
                }
            }
        }
        for (h, sums) in sums.into_iter().enumerate() {
            for (i, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(mixed.as_mut_ptr().add(h * dim + i * LANES), sum);
            }
        }
    }
}

/// Loads and converts a row of `N` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn load_f16<const N: usize>(row: &[f16]) -> [__m512; N] {
    let (row, _) = row.as_chunks::<LANES>();
    std::array::from_fn(|i| {
        // SAFETY: 32 bytes of a chunk; unaligned.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(row[i].as_ptr().cast()) })
    })
}

/// Replaces scores, whole registers of them, by their exponentials relative to the largest. Returns
/// one divided by their sum, or zero if no key is visible.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn softmax(scores: &mut [f32]) -> f32 {
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    // SAFETY: 64 bytes of a chunk; unaligned. Also below.
    let load = |scores: &[f32; LANES]| unsafe { _mm512_loadu_ps(scores.as_ptr()) };
    let mut max = _mm512_set1_ps(f32::MIN);
    for scores in scores.iter() {
        // `max` returns its second operand if the score is NaN.
        max = _mm512_max_ps(load(scores), max);
    }
    let largest = _mm512_reduce_max_ps(max);
    let max = _mm512_set1_ps(largest);
    let mut sum = _mm512_setzero_ps();
    for scores in scores {
        let weight = exp2(_mm512_sub_ps(load(scores), max));
        sum = _mm512_add_ps(sum, weight);
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), weight) }
    }
    if largest > f32::MIN {
        1.0 / _mm512_reduce_add_ps(sum)
    } else {
        0.0
    }
}
