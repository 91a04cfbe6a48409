//! The command line: parses arguments and calls the library.
//!
//! Results go to stdout, everything else to stderr. Exit status: 0 success, 1 failure, 2 wrong usage, 3 `caption` or
//! `index` finished but some pictures have no caption or some folders could not be read, 130 Ctrl-C.

mod arithmetic;
mod bench;
mod caption;
mod chat;
mod compose;
mod demo_scenes;
mod doctor;
mod engine_args;
mod eval;
mod frames_args;
mod grammar_args;
mod hint;
mod index;
mod info;
mod number;
mod progress;
mod report;
mod run;
mod sampling_args;
mod screen;
mod search;
mod seeds;
mod tally;
mod text_stream;
mod tiles_args;
mod usage;
mod verify;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};
pub use hint::hint;
use number::whole;
pub use usage::parse;

/// InternLM-XComposer2 on the CPU: ask about pictures, offline.
///
/// `xc2-convert` makes a model: one file with everything in it. A small model that describes drawn scenes
/// is bundled; `xc2-edge demo-scenes --help` shows how to try it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
// Report `-5` as a number out of range, not as an unknown option.
#[command(mut_subcommands(|command| command.allow_negative_numbers(true)))]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Show warnings of llama.cpp; repeat for more detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Give way to other programs: lower the CPU priority by N, 1 to 19 [default: 10].
    #[arg(
        long,
        global = true,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "10",
        value_parser = whole::<u8>(1..=19)
    )]
    pub nice: Option<u8>,
}

const EXAMPLES: &str = "Examples:
  xc2-edge run -m model.gguf --image photo.jpg -p 'Please describe this image in detail.'
  xc2-edge run -m model.gguf --image a.png --image b.png -p 'What differs?' --json
  xc2-edge caption -m model.gguf photos -o captions.jsonl
  xc2-edge compose -m model.gguf --image a.jpg --image b.jpg --out article.html
  xc2-edge index photos -m model.gguf
  xc2-edge search photos 'a dog on the beach'
  xc2-edge info -m model.gguf
  xc2-edge doctor -m model.gguf
  xc2-edge bench -m model.gguf
  xc2-edge verify -m model.gguf tests/reference/golden/tiny-vl
  xc2-edge eval -m model.gguf models/xc2-scenes/heldout.jsonl
  xc2-edge demo-scenes 200..210 scenes";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a question, with or without pictures.
    Run(run::RunArgs),
    /// Caption pictures: files, folders, a watched folder, a camera stream.
    Caption(Box<caption::CaptionArgs>),
    /// Write an article and illustrate it with pictures.
    Compose(Box<compose::ComposeArgs>),
    /// Caption the pictures in a directory, so that they can be searched by words.
    Index(index::IndexArgs),
    /// Search the pictures of an indexed directory by words.
    Search(search::SearchArgs),
    /// Show what a model file contains and how much memory it needs.
    Info(info::InfoArgs),
    /// Measure the speed of a model on this machine, stage by stage.
    Bench(bench::BenchArgs),
    /// Check this machine: CPU features in use, what slows it down, expected speed.
    Doctor(doctor::DoctorArgs),
    /// Compare a model, stage by stage, with recorded outputs of the original implementation.
    Verify(verify::VerifyArgs),
    /// Grade a model's answers to prompts about drawn scenes.
    Eval(eval::EvalArgs),
    /// Draw scenes that the bundled model knows, with captions that describe them.
    DemoScenes(demo_scenes::DemoScenesArgs),
}

/// Runs a command.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    xc2_kernels::check_environment().map_err(anyhow::Error::msg)?;
    match command {
        Command::Run(args) => run::run(args),
        Command::Caption(args) => caption::run(args),
        Command::Compose(args) => compose::run(args),
        Command::Index(args) => index::run(args),
        Command::Search(args) => search::run(args),
        Command::Info(args) => info::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Eval(args) => eval::run(args),
        Command::DemoScenes(args) => demo_scenes::run(args),
    }
}

/// Exit status after Ctrl-C, as shells report it.
const ENDED_BY_CTRL_C: i32 = 130;

/// Prints a line on stderr; ignores write errors.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error with its causes, in one line.
fn in_one_line(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

/// Starts as many threads for the tower as the decoder uses.
fn use_threads(n: usize) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n);
    match pool.build_global() {
        // An error with a source comes from the system. Without one, the pool exists already: use it.
        Err(error) if std::error::Error::source(&error).is_some() => {
            Err(anyhow::Error::new(error).context(format!("cannot start {n} threads")))
        }
        _ => Ok(()),
    }
}

/// Lowers the CPU priority of this thread and of all threads that are started later.
pub fn lower_priority(nice: Option<u8>) {
    let Some(nice) = nice else { return };
    if let Err(error) = rustix::process::nice(i32::from(nice)) {
        say(&format!("warning: cannot lower the priority: {error}"));
    }
}

/// Writes llama.cpp's log to stderr if `--verbose` is given.
pub fn init_log(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing::Level::WARN,
        2 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}

/// Whether an error is a closed pipe, as in `xc2-edge … | head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
