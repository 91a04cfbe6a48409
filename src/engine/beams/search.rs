//! The rules of beam search: which candidates become beams.

use super::hypotheses::{Hypotheses, Hypothesis};
use crate::{engine::EngineError, language::llama::masked};

/// An answer that is being extended.
#[derive(Debug)]
pub(super) struct Beam {
    /// The index of the beam that it extends.
    pub parent: usize,
    pub ids: Vec<i32>,
    pub log_probability: f64,
}

/// A token that may extend a beam.
#[derive(Clone, Copy)]
struct Candidate {
    beam: usize,
    id: i32,
    log_probability: f64,
}

/// `generate(num_beams=N, length_penalty=1.0, early_stopping=False)` of transformers 4.33, without what has no effect
/// for a single prompt.
///
/// Every step ranks the likeliest continuations of all beams. Those that end the answer become hypotheses if they are
/// among the first N; the first N others are the new beams. The search is done when there are N hypotheses and no beam,
/// if it ended now, would beat the worst of them.
pub(super) struct Search {
    n_beams: usize,
    stops: [i32; 2],
    /// Ids that are never chosen.
    excluded: Vec<i32>,
    beams: Vec<Beam>,
    found: Hypotheses,
    is_done: bool,
}

impl Search {
    /// Starts with one empty beam. Tokens in `stops` end an answer; `n_before` positions count as part of every
    /// answer.
    pub fn new(n_beams: usize, stops: [i32; 2], n_before: usize) -> Self {
        let empty = Beam {
            parent: 0,
            ids: Vec::new(),
            log_probability: 0.0,
        };
        Self {
            n_beams,
            stops,
            excluded: Vec::new(),
            beams: vec![empty],
            found: Hypotheses::new(n_beams, n_before),
            is_done: false,
        }
    }

    /// Excludes `ids` from all answers. As in transformers, they keep their share of the probability.
    #[must_use]
    pub fn without(mut self, ids: &[i32]) -> Self {
        self.excluded = ids.to_vec();
        self
    }

    /// The beams, the likeliest first.
    pub fn beams(&self) -> &[Beam] {
        &self.beams
    }

    /// Whether none of the beams can win any more.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Chooses the next beams; `rows[i]` are the logits after beam `i`, `[n_vocab]`.
    ///
    /// # Errors
    /// If a logit is NaN or infinite.
    pub fn advance(&mut self, rows: &[Vec<f32>]) -> Result<(), EngineError> {
        // Enough that N of them are not stop tokens.
        let n_candidates = (1 + self.stops.len()) * self.n_beams;
        let candidates = self.candidates(rows, n_candidates)?;
        let best = candidates[0].log_probability;
        let n = self.beams[0].ids.len() + 1;
        let mut next = Vec::new();
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let mut ids = self.beams[candidate.beam].ids.clone();
            if self.stops.contains(&candidate.id) {
                if rank < self.n_beams {
                    self.found.add(ids, candidate.log_probability, true);
                }
                continue;
            }
            ids.push(candidate.id);
            next.push(Beam {
                parent: candidate.beam,
                ids,
                log_probability: candidate.log_probability,
            });
            if next.len() == self.n_beams {
                break;
            }
        }
        self.is_done = self.found.is_done(best, n);
        self.beams = next;
        Ok(())
    }

    /// The `n` likeliest continuations, the likeliest first.
    fn candidates(&self, rows: &[Vec<f32>], n: usize) -> Result<Vec<Candidate>, EngineError> {
        let mut all = Vec::new();
        for (beam, row) in rows.iter().enumerate() {
            if !row.iter().all(|l| l.is_finite()) {
                return Err(EngineError::NotFinite);
            }
            let before = self.beams[beam].log_probability;
            let shift = log_sum_exp(row);
            let candidate = |id: i32| Candidate {
                beam,
                id,
                log_probability: before + f64::from(row[id as usize]) - shift,
            };
            let open = masked(row, &self.excluded);
            let is_open = |id: &i32| open[*id as usize].is_finite();
            let ids = likeliest(&open, n).into_iter().filter(is_open);
            all.extend(ids.map(candidate));
        }
        // The sort is stable: among equals the earlier beam and the lower id come first.
        all.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
        all.truncate(n);
        Ok(all)
    }

    /// The best hypothesis. If the search is not done, the beams are hypotheses as well.
    pub fn best(mut self) -> Hypothesis {
        if !self.is_done {
            for beam in self.beams {
                self.found.add(beam.ids, beam.log_probability, false);
            }
        }
        self.found.best()
    }
}

/// The logarithm of the sum of exponentials, which normalizes logits to log-probabilities.
fn log_sum_exp(row: &[f32]) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|l| f64::from(l - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// The ids of the `n` largest values, by ascending id.
fn likeliest(row: &[f32], n: usize) -> Vec<i32> {
    let mut ids: Vec<i32> = (0..row.len() as i32).collect();
    let larger_first = |a: &i32, b: &i32| {
        let (x, y) = (row[*a as usize], row[*b as usize]);
        y.total_cmp(&x).then(a.cmp(b))
    };
    if n < ids.len() {
        ids.select_nth_unstable_by(n - 1, larger_first);
        ids.truncate(n);
    }
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A result of transformers (`tests/reference/beams/make.py`).
    #[derive(serde::Deserialize)]
    struct Case {
        seed: u64,
        n_vocab: usize,
        n_beams: usize,
        n_before: usize,
        n_predict: usize,
        ids: Vec<i32>,
        ended: bool,
        score: f64,
    }

    const STOPS: [i32; 2] = [2, 3];

    /// The logits of the synthetic model, which the script computes as well.
    fn logits(case: &Case, ids: &[i32]) -> Vec<f32> {
        let past = |n: usize| ids.iter().rev().nth(n).map_or(0, |id| *id as u64 + 1);
        let row = (0..case.n_vocab as u64).map(|id| {
            let mut x = case.seed * 1_000_003 + past(0) * 10_007 + past(1) * 101;
            x += ids.len() as u64 * 7_919 + id;
            for _ in 0..3 {
                x = (x * 1_103_515_245 + 12_345) % (1 << 31);
                x ^= x >> 15;
            }
            (x % (1 << 20)) as f32 / (1 << 17) as f32
        });
        row.collect()
    }

    #[test]
    fn answers_match_transformers() {
        let text = include_str!("../../../tests/reference/beams/cases.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 100);
        for case in cases {
            let mut search = Search::new(case.n_beams, STOPS, case.n_before);
            for n in 1..=case.n_predict {
                let row = |beam: &Beam| logits(&case, &beam.ids);
                let rows: Vec<_> = search.beams().iter().map(row).collect();
                search.advance(&rows).unwrap();
                let parents = search.beams().iter().map(|beam| beam.parent);
                assert!(n == 1 || parents.max().unwrap() < case.n_beams);
                if search.is_done() {
                    break;
                }
            }
            let best = search.best();
            let about = format!("seed {}, {} beams", case.seed, case.n_beams);
            assert_eq!((&best.ids, best.ended), (&case.ids, case.ended), "{about}");
            // transformers computes in f32.
            assert!((best.score - case.score).abs() < 1e-5, "{about}");
        }
    }

    #[test]
    fn excluded_ids_are_never_in_a_beam() {
        let mut search = Search::new(2, STOPS, 0).without(&[0, 5]);
        let row = vec![9.0, 1.0, -9.0, -9.0, 2.0, 9.0];
        for n in 1..=3 {
            let rows = vec![row.clone(); search.beams().len()];
            search.advance(&rows).unwrap();
            let ids = || search.beams().iter().flat_map(|beam| &beam.ids);
            assert_eq!(search.beams().len(), 2, "after {n}");
            assert!(ids().all(|id| [1, 4].contains(id)), "after {n}");
        }
    }

    #[test]
    fn nan_logits_are_an_error() {
        let mut search = Search::new(2, STOPS, 0);
        let error = search.advance(&[vec![0.0, f32::NAN, 1.0, 0.0]]);
        assert!(matches!(error, Err(EngineError::NotFinite)));
    }

    #[test]
    fn the_likeliest_are_selected_by_value_and_sorted_by_id() {
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0], 2), [1, 3]);
        assert_eq!(likeliest(&[1.0, 1.0, 1.0], 2), [0, 1]);
        assert_eq!(likeliest(&[1.0, 2.0], 5), [0, 1]);
    }
}
