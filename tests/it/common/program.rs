//! Runs the program `xc2-edge`.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs it with empty stdin and waits.
pub fn xc2_edge(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs it with `text` on stdin and waits.
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

/// The program as a user without rights over the files of others; `None`, with a message, where that is not
/// possible. Everybody gets access to `dir`.
pub fn without_rights(dir: &Path) -> Option<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
    if dir.metadata().unwrap().uid() == 0 {
        const NOBODY: u32 = 65_534;
        std::fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
        let mut try_it = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
        let tried = try_it.uid(NOBODY).gid(NOBODY).arg("--version").output();
        if !tried.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: the program cannot be run by an unprivileged user here");
            return None;
        }
    }
    command.current_dir(dir);
    Some(command)
}

/// Its stdout.
pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Its stderr.
pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A path as an argument.
pub fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Asserts that a command fails with status 1, that stderr has all of `naming`, and that stdout is empty.
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
