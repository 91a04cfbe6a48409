//! How `xc2-edge caption` and `index` end early: a run without results leaves no files, and Ctrl-C prints a summary.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use xc2_convert::mix::Preset;

const PHOTO: &[u8] = include_bytes!("../reference/images/photo.jpg");

fn xc2_edge(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

#[track_caller]
fn assert_ends(output: &Output, status: i32, naming: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert!(message.contains(naming), "{message}");
}

#[test]
fn a_run_without_results_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("photos")).unwrap();
    fs::write(dir.join("photos/a.jpg"), PHOTO).unwrap();
    fs::write(dir.join("none.gguf"), "no model").unwrap();
    for (args, naming) in [
        (&["caption", "photos", "-o", "a.jsonl"][..], "GGUF"),
        (&["caption", "photos", "-o", "a.csv"], "GGUF"),
        (&["index", "photos"], "GGUF"),
        (&["caption", "photos", "-o", "a.json"], ".jsonl"),
        (&["caption", "photos", "-o", "a.txt"], "one per line"),
        (
            &["caption", "photos", "-o", "a"],
            "hint: `-m` expects a model",
        ),
        (
            &["caption", "photos", "--embed", "none.gguf/x"],
            "none.gguf/x",
        ),
        (&["compose", "-p", "A", "--images", "3"], "--library"),
        (
            &["compose", "-p", "A", "--out", "photos/x/a.md"],
            "photos/x",
        ),
    ] {
        let output = xc2_edge(dir, args).args(["-m", "none.gguf"]).output();
        assert_ends(&output.unwrap(), 1, naming);
        let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
        assert_eq!((count(dir), count(&dir.join("photos"))), (2, 1), "{args:?}");
    }
}

#[test]
fn invalid_numbers_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["caption", "-m", "x", "y", "-n", "0"][..],
        &["caption", "-m", "x", "y", "-n", "-5"],
        &["index", "-m", "x", "y", "-n", "-5"],
    ] {
        let output = xc2_edge(dir.path(), args).output().unwrap();
        assert_ends(&output, 2, "expected a whole number, 1 or more");
    }
}

#[test]
fn empty_input_is_reported_and_invalid_input_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let model = crate::common::trained(Preset::Q4K);
    let model = model.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = xc2_edge(dir.path(), args).args(["-m", model]).output();
        output.unwrap()
    };
    assert_ends(&run(&["caption", "-"]), 0, "names no pictures");
    assert_ends(&run(&["index", "."]), 1, "no pictures found");
    assert_ends(&run(&["caption", "--jsonl-in", "-"]), 0, "no records");
    fs::write(dir.path().join("bad"), "nonsense\n[1]\n{}\n").unwrap();
    let bad = run(&["caption", "--jsonl-in", "bad"]);
    assert_ends(&bad, 1, "none in 3 lines");
    assert_ends(&bad, 1, "warning: record 3: expected a JSON object");
    assert_eq!(String::from_utf8_lossy(&bad.stdout).lines().count(), 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn ctrl_c_prints_a_summary_and_how_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let drawn = xc2_edge(dir, &["demo-scenes", "300..330", "pictures"]).output();
    assert!(drawn.unwrap().status.success());
    let model = crate::common::trained(Preset::Q4K);
    let mut child = xc2_edge(dir, &["caption", "pictures", "-o", "a.jsonl", "-m"])
        .arg(&model)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let has_started = || fs::metadata(dir.join("a.jsonl")).is_ok_and(|file| file.len() > 0);
    while !has_started() {
        assert!(start.elapsed() < Duration::from_secs(60), "no caption came");
        thread::sleep(Duration::from_millis(5));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let mut message = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut message).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{message}");
    assert!(message.contains("stopped: "), "{message}");
    assert!(
        message.contains(" left; run the same command to resume"),
        "{message}"
    );
    let again = xc2_edge(dir, &["caption", "pictures", "-o", "a.jsonl", "-m"])
        .arg(&model)
        .output();
    assert_ends(&again.unwrap(), 0, "skipped");
    let records = fs::read_to_string(dir.join("a.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 30);
}
