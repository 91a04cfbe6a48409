//! Prints generated text to stdout, piece by piece.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

/// Prints text piece by piece; stops at the first write error.
#[derive(Debug)]
pub struct TextStream {
    on: bool,
    error: Option<io::Error>,
}

impl TextStream {
    /// A stream that prints if `on`, else does nothing.
    pub fn new(on: bool) -> Self {
        Self { on, error: None }
    }

    /// Whether it prints.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Prints a piece and flushes it. Breaks if stdout is closed.
    pub fn put(&mut self, text: &str) -> ControlFlow<()> {
        if !self.on {
            return ControlFlow::Continue(());
        }
        let mut stdout = io::stdout().lock();
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

    /// Call this at the end.
    ///
    /// # Errors
    /// If writing to stdout failed.
    pub fn finish(self) -> io::Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}
