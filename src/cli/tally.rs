//! How far the captions of many pictures are, on stderr.

use std::{
    fmt,
    io::IsTerminal,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use xc2_edge::tasks::caption::{LeftOut, SourceError};

use super::{ENDED_BY_CTRL_C, say};

/// How often a log is told, where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A bar on a terminal, a line a minute elsewhere. A clone counts the same.
#[derive(Clone)]
pub struct Tally {
    quiet: bool,
    /// Shared with whoever notes Ctrl-C.
    state: Arc<Mutex<State>>,
}

struct State {
    bar: Option<ProgressBar>,
    begun: Instant,
    logged: Instant,
    counts: Counts,
    left_out: LeftOut,
    /// Pictures to be captioned, if that is known.
    total: Option<usize>,
}

/// What became of the pictures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub captioned: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Folders that cannot be read.
    pub unreadable: usize,
}

impl Tally {
    pub fn new(quiet: bool) -> Self {
        let state = State {
            bar: None,
            begun: Instant::now(),
            logged: Instant::now(),
            counts: Counts::default(),
            left_out: LeftOut::default(),
            total: None,
        };
        Self {
            quiet,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Begins to count: `total` pictures, if that is known. From now on Ctrl-C sums up before it ends
    /// the program, and says so if the same command would go on from there. What is written is as
    /// whole then as after any other end.
    pub fn begin(&mut self, total: Option<usize>, resumes: bool) {
        let mut state = self.state();
        state.bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| bar(total));
        (state.begun, state.logged) = (Instant::now(), Instant::now());
        state.total = total;
        let (shared, quiet) = (Arc::clone(&self.state), self.quiet);
        // Should the system refuse, Ctrl-C just ends the program.
        let _ = ctrlc::set_handler(move || {
            let mut state = lock(&shared);
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
            }
            if !quiet {
                say(&state.summary().stopped(resumes));
                say_left_out(&state.left_out);
            }
            xc2_edge::language::llama::end_process(ENDED_BY_CTRL_C);
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What became of the pictures so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    pub fn captioned(&mut self) {
        self.state().counts.captioned += 1;
        self.update();
    }

    /// A picture that has no caption, and why.
    pub fn failed(&mut self, picture: &str, why: &str) {
        self.state().counts.failed += 1;
        self.warn(picture, why);
        self.update();
    }

    pub fn skipped(&mut self) {
        self.state().counts.skipped += 1;
    }

    /// A folder that cannot be read.
    pub fn unreadable(&self, error: &SourceError) {
        self.state().counts.unreadable += 1;
        self.warn(&error.to_string(), &cause(error));
    }

    /// Pictures in folders that are not looked at.
    pub fn left_out(&self, left_out: &LeftOut) {
        self.state().left_out.extend(left_out);
    }

    /// Something about a picture that the user should know.
    pub fn warn(&self, picture: &str, why: &str) {
        // A name may hold line breaks, and codes that terminals obey.
        let picture: String = picture
            .chars()
            .flat_map(|c| match c.is_control() {
                true => c.escape_default().collect::<Vec<_>>(),
                false => vec![c],
            })
            .collect();
        let line = format!("warning: {picture}: {why}");
        match &self.state().bar {
            _ if self.quiet => {}
            Some(bar) => bar.suspend(|| say(&line)),
            None => say(&line),
        }
    }

    /// Removes the bar and sums up.
    pub fn finish(&mut self) {
        let mut state = self.state();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        if !self.quiet {
            say(&state.summary().to_string());
            say_left_out(&state.left_out);
        }
    }

    fn update(&mut self) {
        let mut state = self.state();
        let summary = state.summary();
        let n_done = summary.n_done();
        if let Some(bar) = &state.bar {
            bar.set_position(n_done as u64);
            bar.set_message(summary.rest());
        } else if !self.quiet && state.logged.elapsed() >= LOG_EVERY {
            state.logged = Instant::now();
            let of = state
                .total
                .map_or(String::new(), |total| format!(" of {total}"));
            say(&format!("{n_done}{of} pictures{}", summary.rest()));
        }
    }
}

fn say_left_out(left_out: &LeftOut) {
    if let Some(told) = left_out.told() {
        say(&told);
    }
}

/// What is behind an error, without its first message.
fn cause(error: &SourceError) -> String {
    std::error::Error::source(error)
        .map_or_else(|| "cannot be read".to_owned(), ToString::to_string)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
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
    /// Pictures that were looked at.
    fn n_done(&self) -> usize {
        self.counts.captioned + self.counts.failed
    }

    /// Pictures that are still to be looked at, if that is known.
    fn n_left(&self) -> Option<usize> {
        Some(self.total?.saturating_sub(self.n_done()))
    }

    /// What is said of a run that was stopped.
    fn stopped(&self, resumes: bool) -> String {
        let left = self.n_left().map(|n| format!(", {n} left"));
        let how = if resumes {
            "; the same command goes on from there"
        } else {
            ""
        };
        format!("stopped: {self}{}{how}", left.unwrap_or_default())
    }

    /// Pictures an hour, those that failed included.
    fn rate(&self) -> f64 {
        self.n_done() as f64 / self.elapsed.as_secs_f64().max(1e-3) * 3600.0
    }

    /// What comes behind the number that are done: how fast it goes and how long it will take.
    fn rest(&self) -> String {
        let mut text = format!(", {:.0} an hour", self.rate());
        if let Some(left) = self.n_left() {
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
            unreadable,
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
        if unreadable > 0 {
            let plural = if unreadable == 1 { "" } else { "s" };
            write!(f, ", {unreadable} folder{plural} not readable")?;
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
                unreadable: 2,
            },
            elapsed: Duration::from_secs(360),
            total: Some(600),
        };
        assert_eq!(summary.rest(), ", 1000 an hour, 30 minutes left, 1 failed");
        assert_eq!(
            summary.to_string(),
            "99 captioned in 360.0 s (1000 an hour), 1 failed, 7 skipped, 2 folders not readable"
        );
        assert_eq!(
            summary.stopped(true),
            "stopped: 99 captioned in 360.0 s (1000 an hour), 1 failed, 7 skipped, 2 folders not readable, \
             500 left; the same command goes on from there"
        );
    }
}
