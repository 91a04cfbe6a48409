//! Attention of single queries to a cache, with AVX-512: for tokens one by one.
//!
//! Two heads that share keys are computed at a time, so that each key and value is read and widened once
//! for both. A cache of some thousand positions comes from memory: rows are asked for ahead, since those
//! of a head lie apart. Keys that the query does not see are left out beforehand, so that numbers do not
//! depend on where in the cache a sequence has its own.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::f16;

use super::avx512::exp2;
use super::cached::CachedAttention;
use crate::tile::prefetch;

/// Numbers of a register.
const LANES: usize = 16;
/// Rows that are asked for before their turn.
const AHEAD: usize = 8;

/// What single queries need for a while.
#[derive(Default)]
pub struct Scratch {
    /// `[heads][keys seen]`
    scores: Vec<f32>,
    /// The keys that the query sees, and what the mask adds to their scores.
    seen: Vec<(usize, f32)>,
}

/// Widths of heads for which there is a kernel.
pub fn has_width(head_dim: usize) -> bool {
    matches!(head_dim, 64 | 128)
}

/// The heads that share head `head_kv` of keys, for one query.
///
/// # Safety
/// - The CPU has AVX-512.
/// - As [`CachedAttention::run`], for such a query and head.
pub unsafe fn heads(of: &CachedAttention, head_kv: usize, query: usize, scratch: &mut Scratch) {
    // SAFETY: the mask has a row for each query, and a number for each key.
    let mask = unsafe { of.mask.get(0, query, of.n_key) };
    scratch.seen.clear();
    let seen = mask
        .iter()
        .enumerate()
        .filter(|(_, m)| **m != f16::NEG_INFINITY);
    let seen = seen.map(|(key, m)| (key, m.to_f32() * std::f32::consts::LOG2_E));
    scratch.seen.extend(seen);
    let sharing = of.n_head / of.n_head_kv;
    let all = head_kv * sharing..(head_kv + 1) * sharing;
    for head in all.clone().step_by(2) {
        let two = head + 1 < all.end;
        // SAFETY: handed on; the widths are those of the kernels.
        unsafe {
            match (of.head_dim, two) {
                (64, true) => some::<4, 2>(of, head_kv, head, query, scratch),
                (64, false) => some::<4, 1>(of, head_kv, head, query, scratch),
                (128, true) => some::<8, 2>(of, head_kv, head, query, scratch),
                (128, false) => some::<8, 1>(of, head_kv, head, query, scratch),
                (width, _) => unreachable!("heads of {width}"),
            }
        }
    }
}

/// # Safety
/// As [`heads`], for `HEADS` heads from one on, of `N` registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn some<const N: usize, const HEADS: usize>(
    of: &CachedAttention,
    head_kv: usize,
    head: usize,
    query: usize,
    Scratch { scores, seen }: &mut Scratch,
) {
    let dim = N * LANES;
    let padded = seen.len().next_multiple_of(LANES).max(LANES);
    let ahead = |i: usize| seen[(i + AHEAD).min(seen.len() - 1)].0;
    scores.clear();
    scores.resize(HEADS * padded, f32::NEG_INFINITY);
    // SAFETY: the caller's promises, handed on.
    unsafe {
        let q: [[__m512; N]; HEADS] = std::array::from_fn(|h| {
            let q = of.query.get(head + h, query, dim).as_ptr();
            let scale = _mm512_set1_ps(of.scale * std::f32::consts::LOG2_E);
            std::array::from_fn(|i| _mm512_mul_ps(_mm512_loadu_ps(q.add(i * LANES)), scale))
        });
        for (j, (key, added)) in seen.iter().enumerate() {
            prefetch(of.key.get(head_kv, ahead(j), dim));
            let k = widen::<N>(of.key.get(head_kv, *key, dim));
            for (h, q) in q.iter().enumerate() {
                let mut sum = _mm512_mul_ps(q[0], k[0]);
                for (q, k) in q.iter().zip(k).skip(1) {
                    sum = _mm512_fmadd_ps(*q, k, sum);
                }
                scores[h * padded + j] = _mm512_reduce_add_ps(sum) + added;
            }
        }
        let mut factors = [0.0; HEADS];
        for (factor, scores) in factors.iter_mut().zip(scores.chunks_exact_mut(padded)) {
            *factor = weigh(scores);
        }
        let mut mixed = [[_mm512_setzero_ps(); N]; HEADS];
        for (j, (key, _)) in seen.iter().enumerate() {
            prefetch(of.value.get(head_kv, ahead(j), dim));
            let v = widen::<N>(of.value.get(head_kv, *key, dim));
            for (h, mixed) in mixed.iter_mut().enumerate() {
                let weight = _mm512_set1_ps(scores[h * padded + j]);
                for (mixed, v) in mixed.iter_mut().zip(v) {
                    *mixed = _mm512_fmadd_ps(weight, v, *mixed);
                }
            }
        }
        for (h, (mixed, factor)) in mixed.into_iter().zip(factors).enumerate() {
            let out = of.out.add((query * of.n_head + head + h) * dim);
            for (i, mixed) in mixed.into_iter().enumerate() {
                let mixed = _mm512_mul_ps(mixed, _mm512_set1_ps(factor));
                _mm512_storeu_ps(out.add(i * LANES), mixed);
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
