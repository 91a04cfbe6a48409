//! Attention of single queries to a cache, with AVX-512: for tokens one by one.
//!
//! A cache of some thousand positions comes from memory, where the heads of a position lie side by side. So some
//! keys at a time are met by all heads of a task, and those that follow are asked for one by one in the order in
//! which they lie: AMD's cores read that half as fast again as the keys of one head, which lie apart. Two heads
//! that share keys are computed at once, so that each key and value is widened once for both. Keys that the
//! query does not see are left out beforehand, so that numbers do not depend on where in the cache a sequence
//! has its own.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use half::f16;

use super::avx512::exp2;
use super::cached::{CachedAttention, HeadRows};
use crate::tile::prefetch_l2;

/// Numbers of a register.
const LANES: usize = 16;
/// Keys that all heads of a task meet before the next are looked at.
const KEYS: usize = 16;
/// Keys from the one that is asked for back to the one whose turn it is.
const AHEAD: usize = 32;
/// Numbers of a cache line.
const LINE: usize = 32;

/// What single queries need for a while.
#[derive(Default)]
pub struct DecodeScratch {
    /// `[heads][keys seen]`
    scores: Vec<f32>,
    /// The keys that the query sees, and what the mask adds to their scores.
    seen: Vec<(usize, f32)>,
    /// `[heads][head_dim]`
    query: Vec<f32>,
    /// `[heads][head_dim]`
    mixed: Vec<f32>,
}

/// Widths of heads for which there is a kernel.
pub fn has_width(head_dim: usize) -> bool {
    matches!(head_dim, 64 | 128)
}

/// The heads that share some heads of keys, for one query.
///
/// # Safety
/// - The CPU has AVX-512.
/// - As [`CachedAttention::run`], for such a query and heads.
pub unsafe fn heads(
    of: &CachedAttention,
    heads_kv: Range<usize>,
    query: usize,
    scratch: &mut DecodeScratch,
) {
    // SAFETY: handed on; the widths are those of the kernels.
    unsafe {
        scratch.see(of, query);
        match of.head_dim {
            64 => some::<4>(of, heads_kv, query, scratch),
            128 => some::<8>(of, heads_kv, query, scratch),
            width => unreachable!("heads of {width}"),
        }
    }
}

impl DecodeScratch {
    /// # Safety
    /// As [`heads`].
    unsafe fn see(&mut self, of: &CachedAttention, query: usize) {
        // SAFETY: the mask has a row for each query, and a number for each key.
        let mask = unsafe { of.mask.get(0, query, of.n_key) };
        self.seen.clear();
        let seen = mask
            .iter()
            .enumerate()
            .filter(|(_, m)| **m != f16::NEG_INFINITY);
        let seen = seen.map(|(key, m)| (key, m.to_f32() * std::f32::consts::LOG2_E));
        self.seen.extend(seen);
    }

    /// # Safety
    /// As [`heads`].
    unsafe fn begin(
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
            // SAFETY: there is such a row.
            let query = unsafe { of.query.get(head, query, of.head_dim) };
            self.query.extend(query.iter().map(|q| q * scale));
        }
    }
}

/// Heads that share one of keys, two at most: the first of them, among the task's.
#[derive(Clone, Copy)]
struct Pair {
    kv: usize,
    head: usize,
    has_two: bool,
    /// Whether it is the first of those that share: the others find its keys in the cache.
    is_first: bool,
}

/// Those of a task, with so many heads to one of keys.
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
/// As [`heads`], of `N` registers.
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
    let padded = scratch.seen.len().next_multiple_of(LANES).max(LANES);
    // SAFETY: there are such rows.
    unsafe { scratch.begin(of, heads.clone(), query, padded) }
    let DecodeScratch {
        scores,
        seen,
        query: queries,
        mixed,
    } = scratch;
    let stream = |rows| RowPrefetcher {
        rows,
        heads: heads_kv.clone(),
        dim,
        seen,
        next: (AHEAD, heads_kv.start),
    };
    // SAFETY: the caller's promises, handed on; heads and blocks are within the task's.
    unsafe {
        let mut ahead = stream(of.key);
        for (b, block) in seen.chunks(KEYS).enumerate() {
            for pair in pairs(heads_kv.clone(), sharing) {
                let Pair { kv, head, .. } = pair;
                let ahead = pair.is_first.then_some(&mut ahead);
                let q = &queries[head * dim..];
                let scores = &mut scores[head * padded + b * KEYS..];
                match pair.has_two {
                    true => score::<N, 2>(of, kv, q, block, scores, padded, ahead),
                    false => score::<N, 1>(of, kv, q, block, scores, padded, ahead),
                }
            }
        }
        let scores_of_heads = scores.chunks_exact_mut(padded);
        let factors: Vec<_> = scores_of_heads.map(|scores| weigh(scores)).collect();
        let mut ahead = stream(of.value);
        for (b, block) in seen.chunks(KEYS).enumerate() {
            for pair in pairs(heads_kv.clone(), sharing) {
                let Pair { kv, head, .. } = pair;
                let ahead = pair.is_first.then_some(&mut ahead);
                let weights = &scores[head * padded + b * KEYS..];
                let mixed = &mut mixed[head * dim..];
                match pair.has_two {
                    true => mix::<N, 2>(of, kv, weights, padded, block, mixed, ahead),
                    false => mix::<N, 1>(of, kv, weights, padded, block, mixed, ahead),
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

/// Rows that are asked for some time before their turn, one at a time, in the order in which they lie.
struct RowPrefetcher<'a> {
    rows: HeadRows<f16>,
    heads: Range<usize>,
    dim: usize,
    seen: &'a [(usize, f32)],
    /// The key and the head of the next row.
    next: (usize, usize),
}

impl RowPrefetcher<'_> {
    /// # Safety
    /// There are such rows.
    #[inline(always)]
    unsafe fn prefetch_next(&mut self) {
        let (key, head) = self.next;
        let Some((key_row, _)) = self.seen.get(key) else {
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

/// Scores of a block of keys for `HEADS` heads, whose queries follow each other; scores are `padded` apart.
///
/// # Safety
/// As [`heads`], of `N` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn score<const N: usize, const HEADS: usize>(
    of: &CachedAttention,
    head_kv: usize,
    queries: &[f32],
    block: &[(usize, f32)],
    scores: &mut [f32],
    padded: usize,
    mut ahead: Option<&mut RowPrefetcher<'_>>,
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
        // SAFETY: there are such rows.
        let k = unsafe {
            if let Some(ahead) = &mut ahead {
                ahead.prefetch_next();
            }
            widen::<N>(of.key.get(head_kv, *key, dim))
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

/// Adds a block of values, weighed, to the sums `mixed` of `HEADS` heads; weights are `padded` apart.
///
/// # Safety
/// As [`heads`], of `N` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn mix<const N: usize, const HEADS: usize>(
    of: &CachedAttention,
    head_kv: usize,
    weights: &[f32],
    padded: usize,
    block: &[(usize, f32)],
    mixed: &mut [f32],
    mut ahead: Option<&mut RowPrefetcher<'_>>,
) {
    let dim = N * LANES;
    assert!(mixed.len() >= HEADS * dim && weights.len() >= (HEADS - 1) * padded + block.len());
    let mut sums = [[_mm512_setzero_ps(); N]; HEADS];
    // SAFETY: within `mixed`, here and below; there are such rows.
    unsafe {
        for (h, sums) in sums.iter_mut().enumerate() {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(mixed.as_ptr().add(h * dim + i * LANES));
            }
        }
        for (j, (key, _)) in block.iter().enumerate() {
            if let Some(ahead) = &mut ahead {
                ahead.prefetch_next();
            }
            let v = widen::<N>(of.value.get(head_kv, *key, dim));
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

/// A row of `N` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn widen<const N: usize>(row: &[f16]) -> [__m512; N] {
    let (row, _) = row.as_chunks::<LANES>();
    std::array::from_fn(|i| {
        // SAFETY: 32 bytes of a chunk, unaligned.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(row[i].as_ptr().cast()) })
    })
}

/// Scores, whole registers of them, to weights against the largest; gives one by their sum, or zero where
/// there is nothing to weigh.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn weigh(scores: &mut [f32]) -> f32 {
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    // SAFETY: 64 bytes of a chunk, unaligned, here and below.
    let load = |scores: &[f32; LANES]| unsafe { _mm512_loadu_ps(scores.as_ptr()) };
    let mut max = _mm512_set1_ps(f32::MIN);
    for scores in scores.iter() {
        // Of a score that is no number, the second operand is given.
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
