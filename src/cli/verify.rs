//! `xc2-edge verify`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use xc2_edge::{
    engine::{Engine, default_threads},
    evaluation::verify::{self, GoldenDir, Outcome, Precision, Stage},
};

use super::{engine_args::Backend, number::whole};

/// Compare a model, stage by stage, with recorded outputs of the original implementation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge verify -m model.gguf tests/reference/golden/tiny-vl
  xc2-edge verify -m model.gguf GOLDEN_DIR --failures

Exit status: 0 every stage is within its tolerance, 1 some are not or failure, 2 wrong usage.")]
pub struct VerifyArgs {
    /// Model file, made by xc2-convert.
    #[arg(short, long, value_name = "GGUF")]
    model: PathBuf,
    /// Directory of recorded cases: NAME.json (with NAME.safetensors, or with token ids only), and
    /// images/.
    golden: PathBuf,
    /// Directory of the pictures [default: in or near the directory of cases].
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Threads [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = whole::<u16>(1..=512))]
    threads: Option<u16>,
    /// Kernels for the decoder's matrix products, as in `run`.
    #[arg(long, value_enum, default_value = "xc2", value_name = "KERNELS")]
    backend: Backend,
    /// Show only stages that are out of tolerance.
    #[arg(long)]
    failures: bool,
    /// Print one JSON object per picture and conversation.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut options = verify::engine_options();
    options.n_threads = args.threads.map_or_else(default_threads, usize::from);
    options.matmul_backend = args.backend.into();
    super::use_threads(options.n_threads)?;
    let golden = GoldenDir::new(&args.golden, args.images.as_deref());
    let total = golden.n_records()?;
    let engine = Engine::load(&args.model, options)?;
    if !args.json {
        writeln!(
            std::io::stdout(),
            "weights: {}",
            Precision::of(engine.container())
        )?;
    }
    let mut tally = Tally::default();
    let mut progress = super::progress::Progress::default();
    let mut written = Ok(());
    let left_out = verify::verify(&engine, &golden, |outcome| {
        progress.clear();
        if written.is_ok() {
            written = show(&outcome, args);
        }
        tally.add(&outcome);
        progress.update("verify", tally.n_subjects, total);
    })?;
    progress.clear();
    written?;
    for case in left_out {
        super::say(&format!(
            "left out: {}, recorded in mode {} (the model's is {})",
            case.name,
            case.mode,
            engine.container().info().task.name()
        ));
    }
    super::say(&tally.to_string());
    Ok(if tally.first_departure.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn show(outcome: &Outcome, args: &VerifyArgs) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        return writeln!(out, "{}", serde_json::to_string(outcome)?);
    }
    let shown: Vec<&Stage> = outcome
        .stages
        .iter()
        .filter(|s| !args.failures || !s.ok)
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", outcome.subject)?;
    for stage in shown {
        let verdict = if stage.ok { "ok" } else { "FAIL" };
        let (max, mean) = stage.deviation.map_or((String::new(), String::new()), |d| {
            (format!("max {:.2e}", d.max), format!("mean {:.2e}", d.mean))
        });
        let (name, tolerance) = (&stage.name, &stage.tolerance);
        let line = format!("  {verdict:<4} {name:<31} {max:<13} {mean:<14} {tolerance}");
        let note = if stage.note.is_empty() {
            String::new()
        } else {
            format!("  ({})", stage.note)
        };
        writeln!(out, "{}{note}", line.trim_end())?;
    }
    Ok(())
}

/// Totals of all outcomes.
#[derive(Default)]
struct Tally {
    n_subjects: usize,
    n_stages: usize,
    n_departed: usize,
    first_departure: Option<String>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        self.n_subjects += usize::from(outcome.is_record);
        self.n_stages += outcome.stages.len();
        self.n_departed += outcome.stages.iter().filter(|s| !s.ok).count();
        if let (None, Some(stage)) = (&self.first_departure, outcome.first_departure()) {
            self.first_departure = Some(format!("`{}` of {}", stage.name, outcome.subject));
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            n_subjects,
            n_stages,
            n_departed,
            ..
        } = self;
        write!(
            f,
            "{n_subjects} pictures and conversations, {n_stages} stages"
        )?;
        match &self.first_departure {
            None => write!(f, ": all within tolerance"),
            Some(first) => write!(
                f,
                ", {n_departed} out of tolerance; the first: stage {first}"
            ),
        }
    }
}
