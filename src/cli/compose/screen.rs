//! Prints a composition, stage by stage.

use std::{
    io::{IsTerminal, Write},
    ops::ControlFlow,
};

use xc2_edge::tasks::compose::{StageRecord, Watch};

use crate::cli::{progress::Progress, text_stream::TextStream};

/// Prints a composition: the article on stdout, everything else on stderr.
pub struct Screen {
    text: TextStream,
    quiet: bool,
    progress: Progress,
    /// Whether the article's last line has no line break yet.
    in_line: bool,
}

impl Screen {
    /// Prints the article as it is generated if `stream`, and no stages if `quiet`.
    pub fn new(stream: bool, quiet: bool) -> Self {
        Self {
            text: TextStream::new(stream),
            quiet,
            progress: Progress::default(),
            in_line: false,
        }
    }

    /// Call this at the end, also after an error.
    ///
    /// # Errors
    /// If writing to stdout failed.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.progress.clear();
        self.text.finish()
    }

    fn say(&mut self, line: &str) {
        self.progress.clear();
        if std::mem::take(&mut self.in_line) && std::io::stdout().is_terminal() {
            let _ = writeln!(std::io::stdout());
        }
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

impl Watch for Screen {
    fn progress(&mut self, work: &'static str, done: usize, total: usize) {
        if !self.quiet {
            self.progress.update(work, done, total);
        }
    }

    fn article(&mut self, text: &str) -> ControlFlow<()> {
        self.in_line = self.text.is_on();
        self.text.put(text)
    }

    fn end(&mut self, record: &StageRecord) {
        if self.quiet {
            return;
        }
        let section = record.section.map_or_else(String::new, |n| format!(" {n}"));
        let seconds: f64 = record.seconds.iter().sum();
        let (stage, choice) = (record.stage.name(), &record.choice);
        let choice = shortened(choice);
        self.say(&format!("{stage}{section}: {choice} ({seconds:.1} s)"));
    }

    fn note(&mut self, note: &str) {
        if !self.quiet {
            self.say(&format!("note: {}", shortened(note)));
        }
    }
}

/// Maximum number of characters of a choice or a note on the terminal. The JSON has all of it.
const MAX_CHARS: usize = 200;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_choices_are_shortened_between_characters() {
        assert_eq!(shortened("a cat"), "a cat");
        let long = shortened(&"学".repeat(MAX_CHARS + 1));
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
        assert!(long.ends_with("学…"));
    }
}
