//! Progress bars on stderr for long stages.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shorter stages show no progress bar.
const SHOW_AFTER: Duration = Duration::from_millis(700);

/// A progress bar for the current stage, removed when the stage ends.
#[derive(Debug, Default)]
pub struct Progress {
    current: Option<(&'static str, Instant, ProgressBar)>,
}

impl Progress {
    /// Shows `stage` at `done` of `total`.
    pub fn update(&mut self, stage: &'static str, done: usize, total: usize) {
        if self
            .current
            .as_ref()
            .is_none_or(|(name, ..)| *name != stage)
        {
            self.clear();
            let bar =
                ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
            bar.set_style(style());
            bar.set_prefix(stage);
            self.current = Some((stage, Instant::now(), bar));
        }
        if let Some((_, start, bar)) = &self.current {
            if bar.is_hidden() && start.elapsed() > SHOW_AFTER {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_position(done as u64);
        }
        if done == total {
            self.clear();
        }
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if let Some((.., bar)) = self.current.take() {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:30}] {percent}% {eta} left")
        .expect("the template is well-formed")
        .progress_chars("=> ")
}
