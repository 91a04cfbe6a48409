//! The best answers of a beam search so far, as in `BeamHypotheses` of transformers 4.33 with `length_penalty` 1 and
//! `early_stopping` off. An answer's score is its log-probability, stop token included, divided by its length without
//! the stop token.

/// An answer that the model ended, or that reached a limit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hypothesis {
    pub score: f64,
    pub ids: Vec<i32>,
    /// Whether the model ended it.
    pub ended: bool,
}

/// Up to as many hypotheses as there are beams.
pub(super) struct Hypotheses {
    n_beams: usize,
    /// Positions that count as part of every answer.
    n_before: usize,
    /// By ascending score; equal ones in the order in which they were added.
    sorted: Vec<Hypothesis>,
}

impl Hypotheses {
    pub fn new(n_beams: usize, n_before: usize) -> Self {
        Self {
            n_beams,
            n_before,
            sorted: Vec::new(),
        }
    }

    /// Adds an answer if it is among the best. An empty one counts as one token.
    pub fn add(&mut self, ids: Vec<i32>, log_probability: f64, ended: bool) {
        let score = log_probability / (self.n_before + ids.len()).max(1) as f64;
        if self.sorted.len() == self.n_beams {
            if score <= self.sorted[0].score {
                return;
            }
            self.sorted.remove(0);
        }
        let at = self.sorted.partition_point(|h| h.score <= score);
        self.sorted.insert(at, Hypothesis { score, ids, ended });
    }

    /// Whether no open beam can beat the worst hypothesis; `best` is the highest log-probability among beams of `n`
    /// tokens.
    pub fn is_done(&self, best: f64, n: usize) -> bool {
        let attainable = best / (self.n_before + n) as f64;
        self.sorted.len() == self.n_beams && self.sorted[0].score >= attainable
    }

    /// The best hypothesis.
    pub fn best(mut self) -> Hypothesis {
        self.sorted.pop().expect("open beams were added")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_by_score_for_length() {
        let mut found = Hypotheses::new(2, 0);
        found.add(vec![1, 2], -2.0, true); // -1
        found.add(vec![3], -3.0, true); // -3
        assert!(found.is_done(-6.1, 2) && !found.is_done(-5.9, 2));
        found.add(vec![4; 4], -8.0, true); // -2 replaces -3
        found.add(vec![5], -9.0, true);
        assert_eq!(found.sorted.len(), 2);
        assert!(!found.is_done(-3.9, 2));
        assert_eq!(found.best().ids, [1, 2]);
    }

    #[test]
    fn prior_positions_count_and_empty_answers_do_not_divide_by_zero() {
        let mut found = Hypotheses::new(1, 10);
        found.add(vec![1, 2], -12.0, true);
        assert!((found.best().score + 1.0).abs() < 1e-12);
        let mut found = Hypotheses::new(1, 0);
        found.add(vec![], -2.0, true);
        assert!((found.best().score + 2.0).abs() < 1e-12);
    }
}
