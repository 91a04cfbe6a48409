//! Ctrl-C during an answer: it stops the answer, and once more the program.
//!
//! While a line is read, the terminal gives Ctrl-C to the line editor and none of this happens.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use xc2_edge::engine::Observer;

use crate::cli::ENDED_BY_CTRL_C;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C is noted.
///
/// # Errors
/// If the system refuses.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            xc2_edge::language::llama::end_process(ENDED_BY_CTRL_C);
        }
    })?;
    Ok(())
}

/// Forgets what was noted; to be called as soon as a question has been read. From then on Ctrl-C is meant for its answer,
/// even if that has not begun because the session is still made ready.
pub fn begin() {
    ASKED.store(false, Ordering::Relaxed);
}

/// Shows what another observer shows, until Ctrl-C.
pub struct Interruptible<'a>(pub &'a mut dyn Observer);

impl Observer for Interruptible<'_> {
    fn progress(&mut self, stage: &'static str, done: usize, total: usize) {
        self.0.progress(stage, done, total);
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        self.0.text(text)?;
        match self.is_interrupted() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn is_interrupted(&mut self) -> bool {
        ASKED.load(Ordering::Relaxed)
    }
}
