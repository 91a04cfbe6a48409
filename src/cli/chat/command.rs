//! What a line of a conversation means.

use std::path::PathBuf;

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put a question to the model.
    Say(String),
    /// Add a picture to the next question.
    Image(PathBuf),
    /// Forget everything.
    Clear,
    /// Write the conversation to a file.
    Save(PathBuf),
    /// Tell the commands.
    Help,
    /// Leave.
    Quit,
    /// Nothing was typed.
    Nothing,
}

/// A command's name, what follows it, and what it does, for the help and for completion.
pub const COMMANDS: [(&str, &str, &str); 5] = [
    (
        "/image",
        "FILE",
        "add a picture to the next question; several may follow each other",
    ),
    ("/clear", "", "forget the conversation and its pictures"),
    (
        "/save",
        "FILE",
        "write the conversation to a file: Markdown, or JSON if it ends in .json",
    ),
    ("/help", "", "this list"),
    ("/quit", "", "leave; so does Ctrl-D"),
];

impl Command {
    /// Understands a line. What begins with `/` is a command; `//` says a text that begins with `/`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if !line.starts_with('/') {
            return Ok(Self::Say(line.to_owned()));
        }
        if let Some(text) = line.strip_prefix("//") {
            return Ok(Self::Say(format!("/{text}")));
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "/image" => file(name, rest).map(Self::Image),
            "/save" => file(name, rest).map(Self::Save),
            "/clear" => nothing(name, rest, Self::Clear),
            "/help" | "/?" => nothing(name, rest, Self::Help),
            "/quit" | "/exit" => nothing(name, rest, Self::Quit),
            _ => Err(format!(
                "there is no command `{name}`; `/help` tells which there are, and `//` begins a \
                 text with `/`"
            )),
        }
    }
}

fn nothing(name: &str, rest: &str, command: Command) -> Result<Command, String> {
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(format!(
            "`{name}`: expected nothing behind it, found `{rest}`"
        ))
    }
}

/// A file name as shells take it: in quotes, or with `\` before blanks, and `~/` for home.
fn file(name: &str, text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err(format!("`{name}`: expected a file name behind it"));
    }
    let quoted = ['"', '\''].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.is_empty()).then_some(inner)
    });
    let path = quoted.map_or_else(|| unescape(text), str::to_owned);
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if quoted.is_none() => Ok(PathBuf::from(home).join(rest)),
        _ => Ok(PathBuf::from(path)),
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str) -> Command {
        Command::Image(path.into())
    }

    #[test]
    fn lines_are_questions_and_commands_begin_with_a_slash() {
        for (line, command) in [
            ("What is this? ", Command::Say("What is this?".to_owned())),
            ("  ", Command::Nothing),
            ("/clear", Command::Clear),
            (" /quit ", Command::Quit),
            ("/exit", Command::Quit),
            ("/help", Command::Help),
            ("//usr is what?", Command::Say("/usr is what?".to_owned())),
            ("/save talk.md", Command::Save("talk.md".into())),
            ("/image a.jpg", image("a.jpg")),
        ] {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn file_names_are_taken_as_shells_take_them() {
        for (line, path) in [
            ("/image   my photo.jpg", "my photo.jpg"),
            ("/image my\\ photo.jpg", "my photo.jpg"),
            ("/image \"my photo.jpg\"", "my photo.jpg"),
            ("/image 'it is.jpg'", "it is.jpg"),
            ("/image /a/b\\\\c.png", "/a/b\\c.png"),
            ("/image '~/a.png'", "~/a.png"),
        ] {
            assert_eq!(Command::parse(line), Ok(image(path)), "{line}");
        }
        let home = PathBuf::from(std::env::var_os("HOME").expect("tests have a home"));
        let expected = Command::Image(home.join("a.png"));
        assert_eq!(Command::parse("/image ~/a.png"), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, naming) in [
            ("/picture a.jpg", "no command `/picture`"),
            ("/image", "expected a file name"),
            ("/save  ", "expected a file name"),
            ("/clear all", "found `all`"),
        ] {
            let message = Command::parse(line).unwrap_err();
            assert!(message.contains(naming), "{line}: {message}");
        }
    }
}
