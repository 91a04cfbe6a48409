//! Help texts and the most frequent errors of `xc2-edge`, compared with the files in `tests/snapshots`.

use std::{fs, os::unix::fs::symlink, path::Path};

use xc2_convert::mix::Preset;

use crate::common::snapshot::{assert_help, assert_snapshot, output_of};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xc2-edge");
const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");

#[test]
fn help_texts_are_as_recorded() {
    assert_help(PROGRAM, Path::new(SNAPSHOTS));
}

/// Command lines that fail, in a directory with `model.gguf`, `one.png`, `notes.txt`, `a.gbnf` and `empty/`.
const FAILURES: [&str; 17] = [
    "run -m missing.gguf -p Hi",
    "run -m notes.txt -p Hi",
    "run -m empty -p Hi",
    "run -m model.gguf --image missing.png -p Hi",
    "run -m model.gguf --image notes.txt -p Hi",
    "run -m model.gguf one.png",
    "run -m model.gguf --tempp 1",
    "run -m model.gguf --top-p 2 -p Hi",
    "run -m model.gguf --grammar missing.gbnf -p Hi",
    "run -m model.gguf --grammar a.gbnf -p Hi",
    "run -m model.gguf --image one.png -p Hi -c 8",
    "run -m model.gguf --image one.png -p Hi --max-memory 1MB",
    "run -m model.gguf --image - -p -",
    "caption -m model.gguf empty",
    "caption -m model.gguf one.png -o captions.json",
    "search empty cat",
    "eval -m model.gguf --scenes 9..1",
];

#[test]
fn errors_are_as_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let picture = crate::common::reference("images").join("one.png");
    symlink(
        crate::common::model("tiny-vl", Preset::F32),
        file("model.gguf"),
    )
    .unwrap();
    fs::copy(picture, file("one.png")).unwrap();
    fs::write(file("notes.txt"), "Buy milk.\n").unwrap();
    fs::write(file("a.gbnf"), "root ::= \"yes\" |\nanswer = \"no\"\n").unwrap();
    fs::create_dir(file("empty")).unwrap();
    let failures = FAILURES.map(|line| {
        let args: Vec<&str> = line.split(' ').collect();
        let output = output_of(PROGRAM, dir.path(), &args);
        format!("$ xc2-edge {line}\n{}", without_sizes(&output))
    });
    assert_snapshot(
        &Path::new(SNAPSHOTS).join("errors.txt"),
        &failures.join("\n"),
    );
}

/// Replaces numbers of bytes, which depend on the machine: `1.5 MB` becomes `# MB`.
fn without_sizes(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for i in 1..words.len() {
        let is_unit = ["GB", "MB", "kB"]
            .iter()
            .any(|unit| words[i].starts_with(unit));
        let start = words[i - 1].trim_start_matches(['(', '`']);
        if is_unit && start.parse::<f64>().is_ok() {
            words[i - 1] = words[i - 1].replace(start, "#");
        }
    }
    words.join(" ")
}
