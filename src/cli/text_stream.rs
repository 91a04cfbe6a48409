//! Text on stdout as it is written by the model.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

/// Passes text on, piece by piece, until stdout takes no more.
#[derive(Debug)]
pub struct TextStream {
    on: bool,
    error: Option<io::Error>,
}

impl TextStream {
    /// One that prints, or if not `on`, does nothing.
    pub fn new(on: bool) -> Self {
        Self { on, error: None }
    }

    /// Whether it prints.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Prints a piece at once. It breaks off if nobody reads any more.
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

    /// To be called at the end.
    ///
    /// # Errors
    /// If stdout did not take the text.
    pub fn finish(self) -> io::Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}
