//! `xc2-edge bench`.

mod profile;
mod samples;
mod stages;
mod table;

use std::{io::Write, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{engine_args::EngineArgs, number::whole};

/// Measure the speed of a model on this machine, stage by stage.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge bench -m model.gguf
  xc2-edge bench -m model.gguf --stages encode -r 10
  xc2-edge bench -m model.gguf --stages prefill,plora,decode -p 512 -n 128 -t 4
  xc2-edge bench -m model.gguf --json | jq '.stages[] | {stage, median_s, rate}'
  xc2-edge bench -m model.gguf --stages prefill,plora,decode --compare
  XC2_SIMD=avx2 xc2-edge bench -m model.gguf --stages encode

Only the model is needed: pictures and tokens are synthetic. Each stage runs once to warm up
(shown as `first`), then -r times. Memory is the peak of the process during the stage. Measure on
an idle machine.")]
pub struct BenchArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Stages to measure, separated by commas.
    #[arg(
        long,
        value_enum,
        value_name = "STAGE",
        value_delimiter = ',',
        default_value = "load,encode,prefill,plora,decode"
    )]
    stages: Vec<Stage>,
    /// Number of measured runs per stage.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = whole::<u16>(1..))]
    repetitions: u16,
    /// Prompt length in tokens, for `prefill`, `plora` and `decode` [default: as many as the pictures
    /// take].
    #[arg(short = 'p', long, value_name = "N", value_parser = whole::<u32>(1..))]
    n_prompt: Option<u32>,
    /// Tokens to decode per run.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 32, value_parser = whole::<u32>(1..))]
    n_decode: u32,
    /// Pictures to encode per run, one after another.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u16>(1..=1000))]
    images: u16,
    /// Measure the decoder's stages with llama.cpp's kernels as well.
    #[arg(long)]
    compare: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A measured stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Load the model and create a context.
    Load,
    /// Encode pictures with the vision tower and the projector.
    Encode,
    /// Compute a prompt of text, without Partial-LoRA.
    Prefill,
    /// Compute a prompt of picture embeddings, with Partial-LoRA.
    Plora,
    /// Generate tokens after the prompt.
    Decode,
}

impl Stage {
    /// Name in `--stages`.
    fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Encode => "encode",
            Self::Prefill => "prefill",
            Self::Plora => "plora",
            Self::Decode => "decode",
        }
    }
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let table = stages::run(args)?;
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{:#}", table.as_json())?;
    } else {
        write!(stdout, "{table}")?;
    }
    Ok(ExitCode::SUCCESS)
}
