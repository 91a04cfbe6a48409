//! An answer on the terminal as it comes, with the progress of what goes before.

use std::{io::Write, ops::ControlFlow};

use xc2_edge::engine::Observer;

use super::progress::Progress;

/// Shows a request on the terminal.
#[derive(Default)]
pub struct Screen {
    stream: bool,
    quiet: bool,
    progress: Progress,
    error: Option<std::io::Error>,
}

impl Screen {
    /// Prints the text as it comes if `stream`, and no progress if `quiet`.
    pub fn new(stream: bool, quiet: bool) -> Self {
        Self {
            stream,
            quiet,
            ..Self::default()
        }
    }

    /// To be called after the answer.
    ///
    /// # Errors
    /// If stdout did not take the text.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.progress.clear();
        self.error.map_or(Ok(()), Err)
    }
}

impl Observer for Screen {
    fn progress(&mut self, stage: &'static str, done: usize, total: usize) {
        if !self.quiet {
            self.progress.update(stage, done, total);
        }
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        if !self.stream {
            return ControlFlow::Continue(());
        }
        self.progress.clear();
        let mut stdout = std::io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}
