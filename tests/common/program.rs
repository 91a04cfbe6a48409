//! The program `xc2-edge`, as a person runs it.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs it to its end, with nothing on stdin.
pub fn xc2_edge(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs it to its end with `text` on stdin.
pub fn xc2_edge_with_stdin(args: &[&str], text: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    child.wait_with_output().unwrap()
}

/// What it said.
pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What it said besides.
pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A path as an argument.
pub fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A command that must fail with status 1, say `naming`, and print nothing on stdout.
#[track_caller]
pub fn assert_fails(args: &[&str], naming: &[&str]) {
    let output = xc2_edge(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
    assert!(message.starts_with("error: "), "{message}");
    for name in naming {
        assert!(message.contains(name), "`{message}` does not say `{name}`");
    }
    assert_eq!(stdout(&output), "");
}
