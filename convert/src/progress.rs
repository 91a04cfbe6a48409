//! A bar on the terminal, or a few lines where there is none.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::summary::Bytes;

/// Progress of a conversion, in bytes of the checkpoint.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    start: Instant,
    /// When to print the next line; never if there is a bar, or nothing is wanted.
    next_line: Option<Instant>,
}

/// Time between lines where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Progress {
    /// Begins to show it on standard error, unless `quiet`.
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

    /// Some more bytes are done.
    pub fn advance(&mut self, n_bytes: u64) {
        self.done += n_bytes;
        if let Some(bar) = &self.bar {
            bar.inc(n_bytes);
        } else if self.next_line.is_some_and(|at| Instant::now() >= at) {
            self.next_line = Some(Instant::now() + LINE_INTERVAL);
            // A closed standard error is no reason to stop.
            let _ = writeln!(io::stderr(), "{}", self.line());
        }
    }

    fn line(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let speed = self.done as f64 / seconds;
        let left = (self.total.saturating_sub(self.done)) as f64 / speed.max(1.0);
        let (done, total) = (Bytes(self.done), Bytes(self.total));
        format!(
            "{done} of {total}, {}/s, {left:.0} s left",
            Bytes(speed as u64)
        )
    }

    /// Takes the bar away; returns time and average speed in words.
    pub fn finish(self) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let speed = Bytes((self.done as f64 / seconds) as u64);
        format!("{seconds:.1} s, {speed}/s of checkpoint")
    }
}
