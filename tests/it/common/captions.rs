//! `xc2-edge caption` on drawn scenes.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
};

use serde_json::Value;
use xc2_convert::mix::Preset;

/// The bundled model, converted once.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| super::trained(Preset::Q4K))
}

/// An empty directory.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(std::process::id().to_string())
        .join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Draws the scenes of `seeds` into `dir`/pictures, and returns their captions by file name.
pub fn draw(dir: &Path, seeds: &str) -> BTreeMap<String, String> {
    let pictures = dir.join("pictures");
    let drawn = Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(["demo-scenes", seeds])
        .arg(&pictures)
        .output()
        .unwrap();
    assert!(drawn.status.success());
    let truth = lines(&fs::read_to_string(pictures.join("truth.jsonl")).unwrap());
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let truth = truth
        .iter()
        .map(|line| (text(line, "file"), text(line, "caption")));
    truth.collect()
}

/// `xc2-edge caption` in `dir`.
pub fn caption(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
    command
        .current_dir(dir)
        .arg("caption")
        .arg("-m")
        .arg(model())
        .args(args);
    command
}

/// Runs it and waits.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    caption(dir, args).output().unwrap()
}

/// Runs a command with `input` on stdin and waits. It may end before it has read all of it.
pub fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

/// Asserts the exit status and returns stderr.
#[track_caller]
pub fn assert_status(output: &Output, status: i32) -> String {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{message}");
    message
}

/// Lines of JSON.
pub fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The records of a file.
pub fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    lines(&text)
}

/// Captions by file name. Each picture must occur once.
#[track_caller]
pub fn captions(records: &[Value]) -> BTreeMap<String, String> {
    let mut captions = BTreeMap::new();
    for record in records {
        let path = Path::new(record["path"].as_str().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let caption = record["caption"].as_str().unwrap_or("(failed)").to_owned();
        assert!(
            captions.insert(name.clone(), caption).is_none(),
            "{name} twice"
        );
    }
    captions
}

/// A process that is killed (SIGKILL) when this is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
