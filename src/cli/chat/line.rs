//! Reads lines: with editing, persistent history, and completion of commands and files.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext,
    EventHandler, Helper, KeyEvent, Movement, RepeatCount,
    completion::{Completer, FilenameCompleter, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::Validator,
};

use super::command::COMMANDS;

/// Maximum number of history lines.
const N_HISTORY: usize = 1000;

/// Reads lines from the terminal.
pub struct LineReader {
    editor: Editor<Completion, FileHistory>,
    history: Option<PathBuf>,
}

/// The result of reading a line.
pub enum Line {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D.
    End,
}

impl LineReader {
    /// Loads the history of earlier conversations, if there is any.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn new() -> anyhow::Result<Self> {
        let config = Config::builder()
            .max_history_size(N_HISTORY)?
            .completion_type(CompletionType::List)
            .auto_add_history(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.bind_sequence(
            KeyEvent::ctrl('C'),
            EventHandler::Conditional(Box::new(ClearLine)),
        );
        editor.set_helper(Some(Completion(FilenameCompleter::new())));
        let history = history_file();
        if let Some(file) = &history {
            let _ = editor.load_history(file); // does not exist the first time
        }
        Ok(Self { editor, history })
    }

    /// The next line.
    ///
    /// # Errors
    /// If the terminal fails.
    pub fn read(&mut self, prompt: &str) -> anyhow::Result<Line> {
        match self.editor.readline(prompt) {
            Ok(text) => {
                self.keep_history();
                Ok(Line::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends the new line to the history file at once, in case the program is killed. Warns once if the
    /// file cannot be written.
    fn keep_history(&mut self) {
        static WARNED: AtomicBool = AtomicBool::new(false);
        let Some(file) = &self.history else { return };
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = made
            .map_err(ReadlineError::from)
            .and_then(|()| self.editor.append_history(file));
        if let Err(error) = written
            && !WARNED.swap(true, Ordering::Relaxed)
        {
            eprintln!(
                "warning: {}: cannot save the history: {error}",
                file.display()
            );
        }
    }
}

/// `xc2-edge/history` in the user's state directory.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|dir| dir.is_absolute()).or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        Some(home.join(".local/state"))
    });
    Some(state?.join("xc2-edge/history"))
}

/// Ctrl-C clears a line with text, as in shells; on an empty line it is passed on.
struct ClearLine;

impl ConditionalEventHandler for ClearLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        (!context.line().is_empty()).then_some(Cmd::Kill(Movement::WholeBuffer))
    }
}

/// Completes commands, and file names after commands that take one.
struct Completion(FilenameCompleter);

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if let Some((command, _)) = line[..pos].split_once(' ') {
            let takes_file =
                |(name, argument, _): &&(&str, &str, &str)| *name == command && *argument == "FILE";
            return match COMMANDS.iter().find(takes_file) {
                Some(_) => self.0.complete_path(line, pos),
                None => Ok((pos, Vec::new())),
            };
        }
        Ok((0, commands(&line[..pos])))
    }
}

/// The commands that start with `begin`.
fn commands(begin: &str) -> Vec<Pair> {
    let fitting = COMMANDS
        .iter()
        .filter(|(name, ..)| begin.starts_with('/') && name.starts_with(begin));
    let pair = |(name, argument, _): &(&str, &str, &str)| Pair {
        display: (*name).to_owned(),
        replacement: format!("{name}{}", if argument.is_empty() { "" } else { " " }),
    };
    fitting.map(pair).collect()
}

impl Helper for Completion {}
impl Hinter for Completion {
    type Hint = String;
}
impl Highlighter for Completion {}
impl Validator for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &str) -> (usize, Vec<String>) {
        let history = FileHistory::new();
        let completion = Completion(FilenameCompleter::new());
        let context = Context::new(&history);
        let (at, pairs) = completion.complete(line, line.len(), &context).unwrap();
        (at, pairs.into_iter().map(|p| p.replacement).collect())
    }

    #[test]
    fn commands_are_completed_and_texts_are_not() {
        assert_eq!(complete("/i"), (0, vec!["/image ".to_owned()]));
        assert_eq!(complete("/q"), (0, vec!["/quit".to_owned()]));
        assert_eq!(complete("/").1.len(), COMMANDS.len());
        assert!(complete("what is /").1.is_empty());
        assert!(complete("").1.is_empty());
        assert!(complete("/clear ").1.is_empty());
    }

    #[test]
    fn files_are_completed_where_one_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a photo.jpg"), b"").unwrap();
        let line = format!("/image {}/a", dir.path().display());
        let (at, found) = complete(&line);
        let completed = format!("{}{}", &line[..at], found[0]);
        let expected = dir.path().join("a photo.jpg");
        let command = super::super::command::Command::parse(&completed).unwrap();
        assert_eq!(
            command,
            super::super::command::Command::Images(vec![expected], None)
        );
    }
}
