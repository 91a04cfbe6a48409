//! Progress of a conversion: a bar on a terminal, else a line now and then.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use xc2_edge::system::units::human;

/// Progress of a conversion, in bytes of the checkpoint.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    start: Instant,
    /// When to print the next line; `None` if there is a bar or nothing is printed.
    next_line: Option<Instant>,
}

/// Time between lines if standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Progress {
    /// Starts showing progress on standard error, unless `quiet`.
    pub fn start(total: u64, quiet: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let style =
                "{bar:32} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::new(total).with_style(style)
        });
        let start = Instant::now();
        let next_line = (!quiet && bar.is_none()).then(|| start + LINE_INTERVAL);
        Self {
            bar,
            total,
            done: 0,
            start,
            next_line,
        }
    }

    /// Adds to the bytes that are done.
    pub fn advance(&mut self, n_bytes: u64) {
        self.done += n_bytes;
        if let Some(bar) = &self.bar {
            bar.inc(n_bytes);
        } else if self.next_line.is_some_and(|at| Instant::now() >= at) {
            self.next_line = Some(Instant::now() + LINE_INTERVAL);
            // Ignore a closed standard error.
            let _ = writeln!(io::stderr(), "{}", self.line());
        }
    }

    fn line(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let speed = self.done as f64 / seconds;
        let left = (self.total.saturating_sub(self.done)) as f64 / speed.max(1.0);
        let (done, total) = (human(self.done), human(self.total));
        format!(
            "{done} of {total}, {}/s, {left:.0} s left",
            human(speed as u64)
        )
    }

    /// Removes the bar; returns time and average speed as text.
    pub fn finish(self) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let speed = human((self.done as f64 / seconds) as u64);
        format!("{seconds:.1} s, {speed}/s of checkpoint")
    }
}
