//! Conversations in a pseudo-terminal.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::program::{path, stderr, stdout, xc2_edge, xc2_edge_with_stdin};
use rexpect::session::{PtySession, spawn_command};
use xc2_convert::mix::Preset;
use xc2_edge::system::atomic_file::AtomicFile;

/// Far longer than any step takes: only a hanging test reaches it.
const PATIENCE_MS: u64 = 120_000;

const CAPTION: &str = "Describe this image briefly.";

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/scenes")
        .join(name)
}

/// A conversation with its own home directory for the history.
struct Talk {
    pty: PtySession,
    home: tempfile::TempDir,
}

impl Talk {
    fn begin(args: &[&str]) -> Self {
        Self::at(tempfile::tempdir().unwrap(), args)
    }

    fn at(home: tempfile::TempDir, args: &[&str]) -> Self {
        let model = path(&crate::common::trained(Preset::F16));
        let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
        command
            .args(["run", "-t", "1", "--no-cache", "-m", &model])
            .args(args);
        command.env("HOME", home.path()).env("TERM", "xterm");
        command
            .env_remove("XDG_STATE_HOME")
            .current_dir(home.path());
        let pty = spawn_command(command, Some(PATIENCE_MS)).unwrap();
        let mut talk = Self { pty, home };
        talk.sees("Ctrl-D leaves.");
        talk
    }

    fn types(&mut self, line: &str) {
        self.pty.exp_string("> ").unwrap();
        self.pty.send_line(line).unwrap();
    }

    /// Waits for a text and returns the output before it.
    fn sees(&mut self, text: &str) -> String {
        self.pty
            .exp_string(text)
            .unwrap_or_else(|e| panic!("`{text}`: {e}"))
    }

    /// Types a question and returns the answer.
    fn asks(&mut self, question: &str) -> String {
        self.types(question);
        self.sees("\n"); // the echo
        self.sees("load ").trim().to_owned()
    }

    fn leaves(mut self) -> tempfile::TempDir {
        self.pty.exp_string("> ").unwrap();
        self.pty.send_control('d').unwrap();
        self.pty.exp_eof().unwrap();
        self.home
    }
}

/// The answer of `run -p`.
fn single(picture: &Path, question: &str) -> String {
    let model = path(&crate::common::trained(Preset::F16));
    let picture = path(picture);
    let args = [
        "run", "-q", "-m", &model, "--image", &picture, "-p", question,
    ];
    stdout(&xc2_edge(&args)).trim().to_owned()
}

#[test]
fn several_turns_about_pictures_are_answered_and_saved() {
    let (first, second) = (picture("three-shapes.png"), picture("five-shapes.png"));
    let mut talk = Talk::begin(&[]);
    talk.types(&format!("/image {}", first.display()));
    talk.sees("1 picture for the next question");
    let answer = talk.asks(CAPTION);
    assert!(answer.contains(&single(&first, CAPTION)), "{answer}");

    talk.types(&format!("/image {}", second.display()));
    talk.sees("1 picture for");
    talk.asks(CAPTION);
    // The second turn computed only the new part and did not encode the first picture again.
    let timings = talk.sees("prefill");
    assert!(timings.contains("encode 1 picture"), "{timings}");
    talk.sees("reused");

    // One file of a killed process, and one of a running process.
    let left = talk.home.path().join(".talk.jsonAb12xY.part");
    std::fs::write(&left, "[{").unwrap();
    let running = AtomicFile::create(&talk.home.path().join("talk.json")).unwrap();
    talk.types("/save talk.json");
    talk.sees("talk.json: written");
    assert!(!left.exists() && running.file().metadata().unwrap().nlink() == 1);
    drop(running);
    let home = talk.leaves();
    let saved = std::fs::read_to_string(home.path().join("talk.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let turns = saved.as_array().unwrap();
    let said: Vec<_> = turns.iter().filter(|t| t["role"] == "assistant").collect();
    assert_eq!(said.len(), 2, "{saved}");
    assert_eq!(said[0]["text"], single(&first, CAPTION));
}

#[test]
fn errors_are_reported_and_the_conversation_continues() {
    let mut talk = Talk::begin(&[]);
    talk.types("/image missing.png");
    talk.sees("cannot read picture `missing.png`");
    talk.types("/picture a.png");
    talk.sees("no command `/picture`");
    talk.types("/save talk.md");
    talk.sees("nothing to save yet");
    talk.types("<ImageHere>?");
    talk.sees("hint: ");
    talk.types("/help");
    talk.sees("/clear");
    talk.types("/clear");
    talk.sees("conversation cleared");
    let home = talk.leaves();
    assert!(!home.path().join("talk.md").exists());
}

#[test]
fn a_warning_comes_before_the_context_is_full() {
    let mut talk = Talk::begin(&["-c", "420"]);
    talk.types(&format!("/image {}", picture("three-shapes.png").display()));
    talk.sees("1 picture");
    talk.types(CAPTION);
    talk.sees("warning: the context is nearly full");
    talk.sees("`/clear` starts over");
    talk.sees("--ctx-size");
    talk.sees("load ");
    talk.types(&format!("/image {}", picture("five-shapes.png").display()));
    talk.sees("1 picture");
    talk.types(CAPTION);
    talk.sees("error: the conversation would take");
    talk.leaves();
}

#[test]
fn ctrl_c_stops_an_answer_and_keeps_the_part_before() {
    // An answer that ends only with the context.
    let dir = tempfile::tempdir().unwrap();
    let grammar = dir.path().join("endless.gbnf");
    std::fs::write(&grammar, "root ::= [a-z ] root\n").unwrap();
    let mut talk = Talk::begin(&["-n", "4000", "--grammar", grammar.to_str().unwrap()]);
    talk.types("Say something.");
    talk.sees("\n");
    talk.sees(" ");
    talk.pty.send_control('c').unwrap();
    talk.sees("the answer was stopped; its text stays in the conversation");
    talk.types("/save talk.md");
    talk.sees("written");
    let home = talk.leaves();
    let saved = std::fs::read_to_string(home.path().join("talk.md")).unwrap();
    assert!(
        saved.starts_with("## Question\n\nSay something.\n\n## Answer\n\n"),
        "{saved}"
    );
}

#[test]
fn ctrl_c_clears_a_half_typed_line_and_the_conversation_continues() {
    let mut talk = Talk::begin(&[]);
    talk.pty.exp_string("> ").unwrap();
    talk.pty.send("/half-typed").unwrap();
    talk.pty.flush().unwrap();
    talk.sees("/half-typed");
    talk.pty.send_control('c').unwrap();
    talk.pty.send_line("/picture a.png").unwrap();
    // If the line were not cleared, this would be `/half-typed/picture`.
    talk.sees("no command `/picture`");
    talk.leaves();
}

#[test]
fn the_history_is_kept_for_the_next_run() {
    let mut talk = Talk::begin(&[]);
    talk.types("/nonsense-to-remember");
    talk.sees("no command");
    let mut talk = Talk::at(talk.leaves(), &[]);
    talk.pty.exp_string("> ").unwrap();
    talk.pty.send("\x1b[A").unwrap(); // arrow up
    talk.pty.flush().unwrap();
    talk.sees("/nonsense-to-remember");
    talk.pty.send_control('u').unwrap(); // clears the line
    talk.pty.send_control('d').unwrap();
    talk.pty.exp_eof().unwrap();
}

#[test]
fn piped_text_is_the_question() {
    let model = path(&crate::common::trained(Preset::F16));
    let picture = picture("three-shapes.png");
    let expected = single(&picture, CAPTION);
    let picture = path(&picture);
    let args = ["run", "-q", "-m", &model, "--image", &picture];
    for extra in [&[][..], &["-p", "-"]] {
        let piped = format!("{CAPTION}\n");
        let output = xc2_edge_with_stdin(&[&args[..], extra].concat(), piped.as_bytes());
        assert_eq!(stdout(&output).trim(), expected, "{}", stderr(&output));
    }
    let output = xc2_edge_with_stdin(&args, b"\xff\xfe");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("UTF-8"), "{}", stderr(&output));
}

#[test]
fn pictures_can_be_dropped_on_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap().to_owned();
    for name in ["it's.png", "my photo (1).png", "three.png"] {
        std::fs::copy(picture("three-shapes.png"), home.path().join(name)).unwrap();
    }
    std::fs::copy(picture("five-shapes.png"), home.path().join("five.png")).unwrap();
    let mut talk = Talk::at(home, &[]);
    talk.types(&format!("'{dir}/it'\\''s.png' "));
    talk.sees("1 picture for the next question");
    talk.types(&format!("{dir}/my\\ photo\\ \\(1\\).png"));
    talk.sees("2 pictures for the next question");
    talk.types(&format!(
        "file://{dir}/my%20photo%20(1).png \"{dir}/it's.png\""
    ));
    talk.sees("4 pictures for the next question");
    talk.types("/image three.png gone.png it\\'s.png");
    talk.sees("6 pictures for the next question");
    talk.sees("cannot read picture `gone.png`");
    talk.types(&format!("{dir}/gone.png"));
    talk.sees("found no picture of this name");
    talk.types("/clear");
    talk.sees("conversation cleared");
    talk.types("five.png");
    talk.sees("1 picture for the next question");
    // A question that mentions a picture is still a question.
    let answer = talk.asks("Describe five.png briefly.");
    assert!(!answer.contains("for the next question"), "{answer}");
    talk.leaves();
}

#[test]
fn a_picture_is_read_from_stdin() {
    let model = path(&crate::common::trained(Preset::F16));
    let picture = picture("three-shapes.png");
    let expected = single(&picture, CAPTION);
    let file = std::fs::read(&picture).unwrap();
    let run = ["run", "-q", "-m", &model];
    let args = [&run[..], &["--image", "-", "-p", CAPTION]].concat();
    let output = xc2_edge_with_stdin(&args, &file);
    assert_eq!(stdout(&output).trim(), expected, "{}", stderr(&output));
    for (extra, input, told) in [
        (
            &["--image", "-", "-p", CAPTION][..],
            &b""[..],
            "found nothing",
        ),
        (
            &["--image", "-", "-p", CAPTION],
            b"no picture",
            "cannot read picture `stdin`: not a picture",
        ),
        (
            &["--image", "-", "-p", CAPTION],
            &file[..99],
            "cannot read picture `stdin`: ",
        ),
        (&["--image", "-", "-p", "-"], b"", "found both"),
        (&["--image", "-"], b"", "with -p"),
        (
            &["--image", "-", "--image", "-", "-p", CAPTION],
            b"",
            "found `-` 2 times",
        ),
    ] {
        let output = xc2_edge_with_stdin(&[&run[..], extra].concat(), input);
        assert_eq!(output.status.code(), Some(1), "{extra:?}");
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    let small = ["--max-memory", "300MB", "--image", "-", "-p", CAPTION];
    let args = [
        "-c",
        "exec \"$0\" \"$@\" < /dev/zero",
        env!("CARGO_BIN_EXE_xc2-edge"),
    ];
    let mut endless = Command::new("sh");
    let output = endless.args(args).args(run).args(small).output().unwrap();
    assert!(stderr(&output).contains("too large"), "{}", stderr(&output));
}

#[test]
fn a_grammar_applies_to_every_turn_and_beams_work() {
    let dir = tempfile::tempdir().unwrap();
    let grammar = dir.path().join("answer.gbnf");
    std::fs::write(&grammar, "root ::= \"certainly\" | \"hardly\"\n").unwrap();
    let mut talk = Talk::begin(&["--grammar", &path(&grammar)]);
    for question in ["Is it there?", "Sure?"] {
        let answer = talk.asks(question);
        let said = ["certainly", "hardly"].map(|word| answer.contains(word));
        assert!(said[0] != said[1], "{answer}");
    }
    talk.leaves();

    let picture = picture("three-shapes.png");
    let mut talk = Talk::begin(&["--beams", "3", "--image", &path(&picture)]);
    let answer = talk.asks(CAPTION);
    assert!(answer.contains("large purple star"), "{answer}");
    talk.leaves();
}
