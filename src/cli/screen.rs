//! Prints an answer as it is generated, and progress before that.

use std::ops::ControlFlow;

use xc2_edge::engine::Observer;

use super::{progress::Progress, text_stream::TextStream};

/// Shows a request on the terminal.
pub struct Screen {
    text: TextStream,
    quiet: bool,
    progress: Progress,
}

impl Screen {
    /// Prints the text as it is generated if `stream`, and no progress if `quiet`.
    pub fn new(stream: bool, quiet: bool) -> Self {
        Self {
            text: TextStream::new(stream),
            quiet,
            progress: Progress::default(),
        }
    }

    /// Call this after the answer.
    ///
    /// # Errors
    /// If writing to stdout failed.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.progress.clear();
        self.text.finish()
    }
}

impl Observer for Screen {
    fn progress(&mut self, stage: &'static str, done: usize, total: usize) {
        if !self.quiet {
            self.progress.update(stage, done, total);
        }
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        if self.text.is_on() {
            self.progress.clear();
        }
        self.text.put(text)
    }
}
