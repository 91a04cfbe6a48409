//! How far the captions of many pictures are, on stderr.

use std::{
    fmt,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::say;

/// How often a log is told, where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A bar on a terminal, a line a minute elsewhere.
pub struct Tally {
    quiet: bool,
    bar: Option<ProgressBar>,
    begun: Instant,
    logged: Instant,
    counts: Counts,
    /// Pictures to be captioned, if that is known.
    total: Option<usize>,
}

/// What became of the pictures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub captioned: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            bar: None,
            begun: Instant::now(),
            logged: Instant::now(),
            counts: Counts::default(),
            total: None,
        }
    }

    /// Begins to count: `total` pictures, if that is known.
    pub fn begin(&mut self, total: Option<usize>) {
        self.bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| bar(total));
        (self.begun, self.logged) = (Instant::now(), Instant::now());
        self.total = total;
    }

    /// What became of the pictures so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn captioned(&mut self) {
        self.counts.captioned += 1;
        self.update();
    }

    /// A picture that has no caption, and why.
    pub fn failed(&mut self, picture: &str, why: &str) {
        self.counts.failed += 1;
        self.warn(picture, why);
        self.update();
    }

    pub fn skipped(&mut self) {
        self.counts.skipped += 1;
    }

    /// Something about a picture that the user should know.
    pub fn warn(&self, picture: &str, why: &str) {
        let line = format!("warning: {picture}: {why}");
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.suspend(|| say(&line)),
            None => say(&line),
        }
    }

    /// Removes the bar and sums up.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !self.quiet {
            say(&self.summary().to_string());
        }
    }

    fn update(&mut self) {
        let n_done = self.counts.captioned + self.counts.failed;
        if let Some(bar) = &self.bar {
            bar.set_position(n_done as u64);
            bar.set_message(self.summary().rest());
        } else if !self.quiet && self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            let of = self
                .total
                .map_or(String::new(), |total| format!(" of {total}"));
            say(&format!("{n_done}{of} pictures{}", self.summary().rest()));
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            counts: self.counts,
            elapsed: self.begun.elapsed(),
            total: self.total,
        }
    }
}

fn bar(total: Option<usize>) -> ProgressBar {
    let (bar, style) = match total {
        Some(total) => (
            ProgressBar::new(total as u64),
            "caption [{bar:30}] {pos} of {len}{msg}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {pos} pictures{msg}"),
    };
    let style = ProgressStyle::with_template(style).expect("the template is well-formed");
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// The counts in words.
struct Summary {
    counts: Counts,
    elapsed: Duration,
    total: Option<usize>,
}

impl Summary {
    /// Pictures an hour, those that failed included.
    fn rate(&self) -> f64 {
        let n = self.counts.captioned + self.counts.failed;
        n as f64 / self.elapsed.as_secs_f64().max(1e-3) * 3600.0
    }

    /// What comes behind the number that are done: how fast it goes and how long it will take.
    fn rest(&self) -> String {
        let mut text = format!(", {:.0} an hour", self.rate());
        let n_done = self.counts.captioned + self.counts.failed;
        if let Some(left) = self.total.map(|total| total.saturating_sub(n_done)) {
            let seconds = left as f64 / (self.rate() / 3600.0).max(1e-6);
            text += &format!(", {} left", HumanDuration(Duration::from_secs_f64(seconds)));
        }
        if self.counts.failed > 0 {
            text += &format!(", {} failed", self.counts.failed);
        }
        text
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            captioned,
            failed,
            skipped,
        } = self.counts;
        write!(f, "{captioned} captioned")?;
        if captioned > 0 {
            write!(
                f,
                " in {:.1} s ({:.0} an hour)",
                self.elapsed.as_secs_f64(),
                self.rate()
            )?;
        }
        if failed > 0 {
            write!(f, ", {failed} failed")?;
        }
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_by_the_hour_and_says_how_long_it_will_take() {
        let summary = Summary {
            counts: Counts {
                captioned: 99,
                failed: 1,
                skipped: 7,
            },
            elapsed: Duration::from_secs(360),
            total: Some(600),
        };
        assert_eq!(summary.rest(), ", 1000 an hour, 30 minutes left, 1 failed");
        assert_eq!(
            summary.to_string(),
            "99 captioned in 360.0 s (1000 an hour), 1 failed, 7 skipped"
        );
    }
}
