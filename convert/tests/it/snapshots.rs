//! Help texts and the most frequent errors of `xc2-convert`, compared with the files in `convert/tests/snapshots`.

#[path = "../../../tests/it/common/snapshot.rs"]
mod snapshot;

use std::{fs, path::Path};

use crate::common::{Fixture, SMALL};
use snapshot::{assert_help, assert_snapshot, output_of};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xc2-convert");
const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");

#[test]
fn help_texts_are_as_recorded() {
    assert_help(PROGRAM, Path::new(SNAPSHOTS));
}

/// Command lines that fail, in a directory with `notes.txt`, `empty/`, and two small checkpoints: `model/`, and
/// `damaged/` without `tokenizer.model`.
const FAILURES: [&str; 11] = [
    "missing out.gguf",
    "notes.txt out.gguf",
    "empty out.gguf",
    "damaged out.gguf",
    "model",
    "model missing/out.gguf",
    "model empty",
    "model out.gguf --q3_k",
    "model out.gguf --vision-type q9_0",
    "model out.gguf --tensor-type blk.99.*=q8_0",
    "split notes.txt parts",
];

#[test]
fn errors_are_as_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    for name in ["model", "damaged"] {
        let fixture = Fixture::new(SMALL);
        fs::create_dir(file(name)).unwrap();
        for entry in fs::read_dir(fixture.save()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), file(name).join(entry.file_name())).unwrap();
        }
    }
    fs::remove_file(file("damaged/tokenizer.model")).unwrap();
    fs::write(file("notes.txt"), "Buy milk.\n").unwrap();
    fs::create_dir(file("empty")).unwrap();
    let failures = FAILURES.map(|line| {
        let args: Vec<&str> = line.split(' ').collect();
        let output = output_of(PROGRAM, dir.path(), &args);
        format!("$ xc2-convert {line}\n{output}")
    });
    assert_snapshot(
        &Path::new(SNAPSHOTS).join("errors.txt"),
        &failures.join("\n"),
    );
}
