//! Parses a line of a conversation.

use std::path::PathBuf;

use xc2_edge::engine::MAX_HD_NUM;

use super::dropped;

/// A parsed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the model a question.
    Say(String),
    /// Add pictures to the next question; at least one. The number is the maximum of tiles of each.
    Images(Vec<PathBuf>, Option<u32>),
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
        "add pictures to the next question, `/image --hd-num 9 FILE` with at most 9 tiles; or drop them here",
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
            return Ok(Self::Images(pictures, None));
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
            "/image" => images(name, rest),
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

/// The pictures of `/image`, with an option in front.
fn images(name: &str, rest: &str) -> Result<Command, String> {
    let Some(option) = rest.strip_prefix("--hd-num") else {
        return some(name, rest).map(|text| Command::Images(dropped::files(text), None));
    };
    let (n, rest) = option
        .trim_start_matches(['=', ' '])
        .split_once(char::is_whitespace)
        .unwrap_or((option.trim_start_matches(['=', ' ']), ""));
    let hd_num = n.parse().ok().filter(|n| (1..=MAX_HD_NUM).contains(n));
    let hd_num = hd_num
        .ok_or_else(|| format!("`{name} --hd-num`: expected 1 to {MAX_HD_NUM}, found `{n}`"))?;
    some(name, rest.trim()).map(|text| Command::Images(dropped::files(text), Some(hd_num)))
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
        Command::Images(vec![path.into()], None)
    }

    #[test]
    fn a_picture_may_have_its_own_number_of_tiles() {
        let expected = Command::Images(vec!["a b.jpg".into()], Some(9));
        for line in ["/image --hd-num 9 'a b.jpg'", "/image --hd-num=9 a b.jpg"] {
            assert_eq!(Command::parse(line), Ok(expected.clone()), "{line}");
        }
        for (line, naming) in [
            ("/image --hd-num", "expected 1 to 100"),
            ("/image --hd-num 0 a.jpg", "found `0`"),
            ("/image --hd-num 9", "expected a file name"),
        ] {
            let message = Command::parse(line).unwrap_err();
            assert!(message.contains(naming), "{line}: {message}");
        }
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
        let expected = Command::Images(vec![home.join("a.png")], None);
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
