//! Parses a line of a conversation.

use std::path::PathBuf;

use super::dropped;

/// A parsed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the model a question.
    Say(String),
    /// Add pictures to the next question; at least one.
    Images(Vec<PathBuf>),
    /// Forget the conversation.
    Clear,
    /// Write the conversation to a file.
    Save(PathBuf),
    /// List the commands.
    Help,
    /// Leave.
    Quit,
    /// An empty line.
    Nothing,
}

/// Name, argument and description of each command, for help and completion.
pub const COMMANDS: [(&str, &str, &str); 5] = [
    (
        "/image",
        "FILE",
        "add pictures to the next question; or drop them here",
    ),
    ("/clear", "", "forget the conversation and its pictures"),
    (
        "/save",
        "FILE",
        "write the conversation to a file: Markdown, or JSON if it ends in .json",
    ),
    ("/help", "", "show this list"),
    ("/quit", "", "leave; or press Ctrl-D"),
];

impl Command {
    /// Parses a line. If it consists only of names of existing pictures, it adds them; a line that begins
    /// with `/` is a command; `//` begins a text that starts with `/`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if let Some(pictures) = dropped::pictures(line) {
            return Ok(Self::Images(pictures));
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
            "/image" => some(name, rest).map(dropped::files).map(Self::Images),
            "/save" => some(name, rest).map(dropped::file).map(Self::Save),
            "/clear" => nothing(name, rest, Self::Clear),
            "/help" | "/?" => nothing(name, rest, Self::Help),
            "/quit" | "/exit" => nothing(name, rest, Self::Quit),
            path if path[1..].contains('/') => Err(format!(
                "`{line}`: found no picture of this name; use `//` to begin a text with `/`"
            )),
            _ => Err(format!(
                "there is no command `{name}`; `/help` lists the commands; use `//` to begin a text with `/`"
            )),
        }
    }
}

fn nothing(name: &str, rest: &str, command: Command) -> Result<Command, String> {
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(format!(
            "`{name}`: expected nothing after it, found `{rest}`"
        ))
    }
}

/// The argument of a command that takes a file.
fn some<'a>(name: &str, text: &'a str) -> Result<&'a str, String> {
    match text {
        "" => Err(format!("`{name}`: expected a file name after it")),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str) -> Command {
        Command::Images(vec![path.into()])
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
    fn file_names_are_parsed_as_shells_do() {
        for (line, path) in [
            ("/image   my photo.jpg", "my photo.jpg"),
            ("/image my\\ photo.jpg", "my photo.jpg"),
            ("/image \"my photo.jpg\"", "my photo.jpg"),
            ("/image 'it is.jpg'", "it is.jpg"),
            ("/image /a/b\\\\c.png", "/a/b\\c.png"),
            ("/image '~/a.png'", "~/a.png"),
            ("/image 'it'\\''s.png'", "it's.png"),
            ("/image file:///a%20b.png", "/a b.png"),
        ] {
            assert_eq!(Command::parse(line), Ok(image(path)), "{line}");
        }
        let home = PathBuf::from(std::env::var_os("HOME").expect("tests have a home"));
        let expected = Command::Images(vec![home.join("a.png")]);
        assert_eq!(Command::parse("/image ~/a.png"), Ok(expected));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (line, naming) in [
            ("/picture a.jpg", "no command `/picture`"),
            ("/image", "expected a file name"),
            ("/save  ", "expected a file name"),
            ("/clear all", "found `all`"),
            ("/nowhere/a.png", "found no picture of this name"),
        ] {
            let message = Command::parse(line).unwrap_err();
            assert!(message.contains(naming), "{line}: {message}");
        }
    }
}
