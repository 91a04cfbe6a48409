//! Progress on stderr, for stages that last longer than a moment.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A stage that is over sooner than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(700);

/// One line that shows the stage at work; it vanishes when the stage ends.
#[derive(Debug, Default)]
pub struct Progress {
    current: Option<(&'static str, Instant, ProgressBar)>,
}

impl Progress {
    /// Tells that `stage` stands at `done` of `total`.
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
        if let Some((_, begun, bar)) = &self.current {
            if bar.is_hidden() && begun.elapsed() > PATIENCE {
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
