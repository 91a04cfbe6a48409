//! Compares output of a program with a file. `UPDATE_SNAPSHOTS=1 cargo test …` rewrites the files.

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// Environment variable that makes the tests rewrite their files.
const UPDATE: &str = "UPDATE_SNAPSHOTS";
/// Terminal width of help texts.
const COLUMNS: usize = 100;

/// What a program printed: its exit status if that is not 0, stdout, then stderr.
pub fn output_of(program: &str, dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program);
    let command = command.args(args).current_dir(dir).stdin(Stdio::null());
    let output = command.env("COLUMNS", COLUMNS.to_string()).output();
    let output = output.unwrap();
    let status = match output.status.code() {
        Some(0) => String::new(),
        code => format!("exit status {}\n", code.expect("not killed")),
    };
    let [stdout, stderr] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    let text = status + &stdout + &stderr;
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// Compares the `--help` texts of a program and its subcommands with the files `help*.txt` in `snapshots`.
pub fn assert_help(program: &str, snapshots: &Path) {
    let mut files = BTreeSet::new();
    let mut compare = |command: &[&str]| {
        let args = [command, &["--help"]].concat();
        let help = output_of(program, snapshots, &args);
        // clap does not wrap the usage line.
        let is_long = |line: &&str| line.chars().count() > COLUMNS && !line.starts_with("Usage:");
        let long = help.lines().find(is_long);
        assert_eq!(long, None, "longer than {COLUMNS} columns");
        let file = format!("{}.txt", [&["help"], command].concat().join("-"));
        assert_snapshot(&snapshots.join(&file), &help);
        files.insert(file);
        help
    };
    let help = compare(&[]);
    for command in subcommands(&help) {
        compare(&[command]);
    }
    let there = fs::read_dir(snapshots).unwrap();
    let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = there.filter(|name| name.starts_with("help")).collect();
    assert_eq!(there, files, "one file for each subcommand");
}

/// The names below `Commands:` in a help text.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| !line.is_empty());
    list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
}

/// Compares a text with a file.
pub fn assert_snapshot(file: &Path, found: &str) {
    if env::var_os(UPDATE).is_some() {
        return fs::write(file, found).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    let first = lines.find(|(_, (expected, found))| expected != found);
    assert!(
        expected == found,
        "{} differs; if that is intended, run the test with {UPDATE}=1. First difference: {first:?}\n{found}",
        file.display()
    );
}
