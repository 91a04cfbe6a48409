//! Ctrl-C during an answer: the first stops the answer, the second ends the program.
//!
//! While a line is read, the line editor handles Ctrl-C instead.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use xc2_edge::engine::Observer;

use crate::cli::ENDED_BY_CTRL_C;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Installs the Ctrl-C handler.
///
/// # Errors
/// If the system refuses.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            xc2_edge::language::llama::end_process(ENDED_BY_CTRL_C);
        }
    })?;
    Ok(())
}

/// Resets the flag. Call this as soon as a question has been read: from then on Ctrl-C stops its answer, even
/// while the session is still being prepared.
pub fn begin() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Wraps an observer; interrupts the answer on Ctrl-C.
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
        INTERRUPTED.load(Ordering::Relaxed)
    }
}
