//! The command line: what was typed, turned into calls of the library.
//!
//! Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong usage.

mod arithmetic;
mod bench;
mod caption;
mod chat;
mod compose;
mod demo_scenes;
mod doctor;
mod engine_args;
mod eval;
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
mod usage;
mod verify;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};
pub use hint::hint;
use number::whole;
pub use usage::parse;

/// InternLM-XComposer2 on the CPU: ask about pictures, offline.
///
/// Models are made by `xc2-convert`; one file holds everything. A small one that describes drawn scenes
/// is bundled: `xc2-edge demo-scenes --help` tells how to try it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
// `-5` is a number out of range, and no option that nobody knows.
#[command(mut_subcommands(|command| command.allow_negative_numbers(true)))]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Also show what llama.cpp says (twice: its details).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Leave the CPU to other programs that want it: lower the priority by N, 1 to 19 [default: 10].
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
    /// Answer a question about pictures, or without any.
    Run(run::RunArgs),
    /// Caption pictures: folders, a watched folder, a camera, a share of a cluster's work.
    Caption(Box<caption::CaptionArgs>),
    /// Write an article and put the right pictures into the right places.
    Compose(Box<compose::ComposeArgs>),
    /// Caption the pictures of a directory, so that they can be found by words.
    Index(index::IndexArgs),
    /// Find pictures of an indexed directory by words.
    Search(search::SearchArgs),
    /// Say what a model file is and what it will need.
    Info(info::InfoArgs),
    /// Measure a model on this machine, stage by stage.
    Bench(bench::BenchArgs),
    /// Look at this machine: what is used of it, what slows it down, and what to expect.
    Doctor(doctor::DoctorArgs),
    /// Hold a model, stage by stage, against recorded outputs of the original.
    Verify(verify::VerifyArgs),
    /// Mark a model's answers to prompts about drawn scenes.
    Eval(eval::EvalArgs),
    /// Draw pictures of the bundled model's world, with what is in them.
    DemoScenes(demo_scenes::DemoScenesArgs),
}

/// Carries out a command.
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

/// What a shell reports for a program that Ctrl-C ended.
const ENDED_BY_CTRL_C: i32 = 130;

/// Tells something on stderr. That nobody listens is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error with its causes, in one line.
fn in_one_line(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

/// Gives the tower as many threads as the decoder gets.
fn use_threads(n: usize) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n);
    match pool.build_global() {
        // The system refused; without a source the pool exists already, and serves.
        Err(error) if std::error::Error::source(&error).is_some() => {
            Err(anyhow::Error::new(error).context(format!("cannot start {n} threads")))
        }
        _ => Ok(()),
    }
}

/// Lowers the priority of this thread, and of all that are started after it.
pub fn lower_priority(nice: Option<u8>) {
    let Some(nice) = nice else { return };
    if let Err(error) = rustix::process::nice(i32::from(nice)) {
        say(&format!("warning: cannot lower the priority: {error}"));
    }
}

/// Sends llama.cpp's log to stderr when `--verbose` asks for it.
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

/// Whether an error is a reader that went away, as in `xc2-edge … | head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
