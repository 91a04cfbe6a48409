//! Durations of several runs.

use std::time::Instant;

/// Durations of runs, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The warm-up run, not included in the statistics.
    pub first: f64,
    /// The other runs, ascending.
    sorted: Vec<f64>,
}

impl Samples {
    /// Times a warm-up run and `n` more. `run` gets the number of earlier runs.
    ///
    /// # Errors
    /// The error of the first run that fails.
    pub fn take<E>(n: usize, mut run: impl FnMut(usize) -> Result<(), E>) -> Result<Self, E> {
        let mut seconds = Vec::with_capacity(n + 1);
        for i in 0..=n {
            let start = Instant::now();
            run(i)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(Self::new(seconds))
    }

    /// From seconds in order of measurement: the warm-up run, and at least one more.
    pub fn new(mut seconds: Vec<f64>) -> Self {
        let first = seconds.remove(0);
        seconds.sort_by(f64::total_cmp);
        Self {
            first,
            sorted: seconds,
        }
    }

    /// Number of runs without the warm-up.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The median.
    pub fn median(&self) -> f64 {
        let n = self.sorted.len();
        (self.sorted[(n - 1) / 2] + self.sorted[n / 2]) / 2.0
    }

    /// The shortest.
    pub fn least(&self) -> f64 {
        self.sorted[0]
    }

    /// The longest.
    pub fn most(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_omit_the_warm_up() {
        let odd = Samples::new(vec![9.0, 3.0, 1.0, 2.0]);
        assert_eq!(
            (odd.first, odd.least(), odd.median(), odd.most()),
            (9.0, 1.0, 2.0, 3.0)
        );
        let even = Samples::new(vec![9.0, 4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even.median(), 2.5);
        let one = Samples::new(vec![9.0, 4.0]);
        assert_eq!((one.least(), one.median(), one.most()), (4.0, 4.0, 4.0));
    }

    #[test]
    fn every_run_gets_its_number_and_a_failure_stops() {
        let mut seen = Vec::new();
        Samples::take(2, |i| {
            seen.push(i);
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(
            Samples::take(5, |i| if i < 2 { Ok(()) } else { Err(i) }).unwrap_err(),
            2
        );
    }
}
