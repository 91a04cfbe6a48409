//! The programs in `examples/`, on the bundled model.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use xc2_convert::mix::Preset;

use crate::common::program::{path, stderr, stdout};

/// An example that `cargo test` has built.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.ancestors().nth(2).unwrap(); // target/release/deps/it-…
    profile.join("examples").join(name)
}

/// Runs an example with the bundled model and `args`, and returns its stdout.
#[track_caller]
fn run(name: &str, args: &[&str]) -> String {
    let mut command = Command::new(example(name));
    command.arg(crate::common::trained(Preset::F16)).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    stdout(&output).to_owned()
}

fn picture(name: &str) -> String {
    let scenes = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scenes");
    path(&scenes.join(name))
}

#[test]
fn ask_prints_the_answer() {
    let question = "Please describe this image in detail.";
    let answer = run("ask", &[&picture("three-shapes.png"), question]);
    assert!(answer.contains("three objects"), "{answer}");
}

#[test]
fn caption_folder_prints_a_line_for_each_picture() {
    let scenes = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scenes");
    let captions = run("caption_folder", &[&path(&scenes)]);
    for expected in [
        "five-shapes.png: The image shows five",
        "three-shapes.png: The image shows three",
    ] {
        assert!(captions.contains(expected), "{captions}");
    }
}

#[test]
fn conversation_answers_each_question_and_fills_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let args = [picture("three-shapes.png"), path(cache.path())];
    let args = args.each_ref().map(String::as_str);
    let first = run("conversation", &args);
    assert_eq!(first.lines().count(), 2, "{first}");
    assert!(cache.path().read_dir().unwrap().next().is_some());
    assert_eq!(run("conversation", &args), first);
}

#[test]
fn article_has_its_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let article = dir.path().join("article.md");
    let pictures = ["three-shapes.png", "five-shapes.png"].map(picture);
    run("article", &[&path(&article), &pictures[0], &pictures[1]]);
    let text = std::fs::read_to_string(article).unwrap();
    assert_eq!(text.matches("](article_files/").count(), 2, "{text}");
}
