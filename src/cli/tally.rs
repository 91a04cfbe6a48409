//! Progress and summary of captioning many pictures, on stderr.

use std::{
    fmt,
    io::IsTerminal,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use xc2_edge::tasks::caption::{SkippedFiles, SourceError};

use super::{ENDED_BY_CTRL_C, say};

/// Interval of progress lines if stderr is not a terminal.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A progress bar on a terminal, else a line per minute. Clones share the counts.
#[derive(Clone)]
pub struct Tally {
    quiet: bool,
    /// Shared with the Ctrl-C handler.
    state: Arc<Mutex<State>>,
}

struct State {
    bar: Option<ProgressBar>,
    start: Instant,
    logged: Instant,
    counts: Counts,
    skipped: SkippedFiles,
    /// Number of pictures to caption, if known.
    total: Option<usize>,
}

/// Pictures by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub captioned: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Folders that could not be read.
    pub unreadable: usize,
}

impl Tally {
    pub fn new(quiet: bool) -> Self {
        let state = State {
            bar: None,
            start: Instant::now(),
            logged: Instant::now(),
            counts: Counts::default(),
            skipped: SkippedFiles::default(),
            total: None,
        };
        Self {
            quiet,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Starts counting: `total` pictures, if known. From now on Ctrl-C prints a summary before it ends the
    /// program; if the run `resumes`, it says that the same command continues. Files are as consistent
    /// then as after a kill.
    pub fn begin(&mut self, total: Option<usize>, resumes: bool) {
        let mut state = self.state();
        state.bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| bar(total));
        (state.start, state.logged) = (Instant::now(), Instant::now());
        state.total = total;
        let (shared, quiet) = (Arc::clone(&self.state), self.quiet);
        // If this fails, Ctrl-C ends the program without a summary.
        let _ = ctrlc::set_handler(move || {
            let mut state = lock(&shared);
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
            }
            if !quiet {
                say(&state.summary().stopped(resumes));
                report_skipped(&state.skipped);
            }
            xc2_edge::language::llama::end_process(ENDED_BY_CTRL_C);
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    pub fn captioned(&mut self) {
        self.state().counts.captioned += 1;
        self.update();
    }

    /// Counts a picture that could not be captioned, and prints why.
    pub fn failed(&mut self, picture: &str, why: &str) {
        self.state().counts.failed += 1;
        self.warn(picture, why);
        self.update();
    }

    pub fn skipped(&mut self) {
        self.state().counts.skipped += 1;
    }

    /// Counts a folder that cannot be read, and prints why.
    pub fn unreadable(&self, error: &SourceError) {
        self.state().counts.unreadable += 1;
        self.warn(&error.to_string(), &cause(error));
    }

    /// Counts pictures that were skipped in folders.
    pub fn skipped_files(&self, skipped: &SkippedFiles) {
        self.state().skipped.extend(skipped);
    }

    /// Prints a warning about a picture.
    pub fn warn(&self, picture: &str, why: &str) {
        // Escape line breaks and terminal control codes in names.
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

    /// Removes the bar and prints the summary.
    pub fn finish(&mut self) {
        let mut state = self.state();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        if !self.quiet {
            say(&state.summary().to_string());
            report_skipped(&state.skipped);
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

fn report_skipped(skipped: &SkippedFiles) {
    if let Some(summary) = skipped.summary() {
        say(&summary);
    }
}

/// The cause of an error, without its own message.
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
            elapsed: self.start.elapsed(),
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

/// The counts as text.
struct Summary {
    counts: Counts,
    elapsed: Duration,
    total: Option<usize>,
}

impl Summary {
    /// Number of pictures processed.
    fn n_done(&self) -> usize {
        self.counts.captioned + self.counts.failed
    }

    /// Number of pictures left, if known.
    fn n_left(&self) -> Option<usize> {
        Some(self.total?.saturating_sub(self.n_done()))
    }

    /// Summary of a run that was stopped.
    fn stopped(&self, resumes: bool) -> String {
        let left = self.n_left().map(|n| format!(", {n} left"));
        let how = if resumes {
            "; run the same command to resume"
        } else {
            ""
        };
        format!("stopped: {self}{}{how}", left.unwrap_or_default())
    }

    /// Pictures per hour, including failures.
    fn rate(&self) -> f64 {
        self.n_done() as f64 / self.elapsed.as_secs_f64().max(1e-3) * 3600.0
    }

    /// Rate, remaining time and failures, to follow the number of pictures processed.
    fn rest(&self) -> String {
        let mut text = format!(", {:.0} per hour", self.rate());
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
                " in {:.1} s ({:.0} per hour)",
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
    fn the_summary_has_rate_and_time_left() {
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
        assert_eq!(summary.rest(), ", 1000 per hour, 30 minutes left, 1 failed");
        assert_eq!(
            summary.to_string(),
            "99 captioned in 360.0 s (1000 per hour), 1 failed, 7 skipped, 2 folders not readable"
        );
        assert_eq!(
            summary.stopped(true),
            "stopped: 99 captioned in 360.0 s (1000 per hour), 1 failed, 7 skipped, 2 folders not readable, \
             500 left; run the same command to resume"
        );
    }
}
