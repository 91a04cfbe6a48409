//! `xc2-edge demo-scenes`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use xc2_edge::{
    evaluation::scenes::{Scene, render},
    vision::image::{Orientation, open},
};

fn scratch(name: &str) -> PathBuf {
    let process = std::process::id().to_string();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(process);
    fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

fn demo_scenes(seeds: &str, dir: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(["demo-scenes", seeds])
        .arg(dir)
        .args(more)
        .output()
        .unwrap()
}

fn message(output: &Output, code: i32) -> String {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    message
}

#[test]
fn pictures_are_written_with_their_truth_and_nothing_else() {
    let dir = scratch("drawn/deep");
    // A killed run left a partial picture.
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(".scene-00100.pngAb12xY.part"), "half").unwrap();
    let output = demo_scenes("99..102", &dir, &["--size", "64"]);
    assert!(message(&output, 0).is_empty());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("3 pictures and truth.jsonl\n"), "{said}");

    let truth = fs::read_to_string(dir.join("truth.jsonl")).unwrap();
    let truth: Vec<Value> = truth
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(truth.len(), 3);
    assert_eq!(truth[0]["file"], "scene-00099.png");
    for line in &truth {
        let picture = dir.join(line["file"].as_str().unwrap());
        let picture = open(&picture, Orientation::Ignore).unwrap();
        let scene = Scene::from_seed(line["seed"].as_u64().unwrap());
        assert!(picture == render(&scene, 64).unwrap());
        assert_eq!(line["caption"], scene.brief());
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
}

#[test]
fn drawing_is_deterministic() {
    let dir = scratch("again");
    let files = || {
        message(&demo_scenes("7..9", &dir, &["--size", "32"]), 0);
        ["scene-00007.png", "scene-00008.png", "truth.jsonl"]
            .map(|f| fs::read(dir.join(f)).unwrap())
    };
    assert_eq!(files(), files());
}

#[test]
fn impossible_scenes_are_usage_errors() {
    let dir = scratch("unused");
    for (seeds, size, naming) in [
        ("9..9", "64", "found 9 and 9"),
        ("9", "64", "expected FIRST..END"),
        ("0..2000000", "64", "expected at most 1000000"),
        ("0..1", "513", "expected a whole number, 16 to 512"),
    ] {
        let message = message(&demo_scenes(seeds, &dir, &["--size", size]), 2);
        assert!(message.contains(naming), "{message}");
    }
    assert!(!dir.exists());
}

#[test]
fn an_unwritable_directory_is_named() {
    let file = scratch("a-file");
    fs::write(&file, "").unwrap();
    let text = message(&demo_scenes("0..1", &file, &[]), 1);
    assert!(
        text.contains("a-file: expected a directory or nothing, found a file"),
        "{text}"
    );

    let dir = scratch("occupied");
    fs::create_dir_all(dir.join("truth.jsonl/full")).unwrap();
    let text = message(&demo_scenes("0..1", &dir, &[]), 1);
    assert!(
        text.contains("truth.jsonl: cannot be written: Is a directory"),
        "{text}"
    );
}
