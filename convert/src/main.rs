//! The program `xc2-convert`: parses arguments, plans, writes, reports.

mod cli;

use std::{
    fmt,
    io::Write,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use clap::Parser;
use cli::{Cli, Command, ConvertArgs};
use xc2_convert::{
    checkpoint::{Checkpoint, CheckpointError},
    plan::{Plan, PlanError},
    progress::Progress,
    split::{SplitError, split},
    summary::{SUMMARY_HEAD, Summary},
    write::{WriteError, check_target, convert},
};
use xc2_edge::system::units::human;

/// Set by Ctrl-C; checked regularly during a conversion.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Exit status after Ctrl-C, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;

/// Prints a line on standard error. Unlike `eprintln!`, it does not panic if stderr is closed.
macro_rules! say {
    ($($line:tt)*) => {{
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(e) = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)) {
        say!("warning: Ctrl-C will leave a temporary file behind: {e}");
    }
    let result = match cli.command {
        Some(Command::Split { model, dir }) => run_split(&model, &dir),
        None => run_convert(&cli.convert),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if INTERRUPTED.load(Ordering::Relaxed) => {
            say!("{}", failure.message);
            EXIT_INTERRUPTED.into()
        }
        Err(failure) => {
            say!("error: {}", failure.message);
            if let Some(hint) = failure.hint {
                say!("\nhint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// An error as it is printed.
struct Failure {
    message: String,
    hint: Option<&'static str>,
}

/// An error and its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |message, cause| {
        format!("{message}: {cause}")
    })
}

macro_rules! failure_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                Self { message: with_causes(&e), hint: e.hint() }
            }
        }
    )*};
}
failure_from!(CheckpointError, PlanError, WriteError);

impl From<SplitError> for Failure {
    fn from(e: SplitError) -> Self {
        match e {
            SplitError::Write(e) => e.into(),
            e => Self {
                message: with_causes(&e),
                hint: None,
            },
        }
    }
}

fn run_convert(args: &ConvertArgs) -> Result<(), Failure> {
    let hf_dir = args
        .hf_dir
        .as_deref()
        .expect("required unless there is a command");
    if let Some(out) = args.out.as_deref().filter(|_| !args.dry_run) {
        check_target(out)?;
    }
    let checkpoint = Checkpoint::open(hf_dir)?;
    let plan = Plan::new(&checkpoint, &args.options())?;
    if !args.quiet {
        report_plan(&checkpoint, &plan);
    }
    let summary = Summary::new(&plan);
    if args.dry_run {
        return print(format_args!("{plan}\n{SUMMARY_HEAD}\n{summary}"));
    }
    let out = args
        .out
        .as_deref()
        .expect("required unless it is a dry run");
    let n_cores = thread::available_parallelism().map_or(1, usize::from);
    let n_workers = args.threads.map_or(n_cores + 1, usize::from);
    let mut progress = Progress::start(plan.source_bytes(), args.quiet);
    let n_bytes = convert(&plan, out, n_workers, &INTERRUPTED, |n| progress.advance(n));
    let speed = progress.finish();
    let n_bytes = n_bytes?;
    if !args.quiet {
        say!("{SUMMARY_HEAD}\n{}", summary.to_string().trim_end());
        say!("{}: {} in {speed}", out.display(), human(n_bytes));
    }
    Ok(())
}

/// Prints a result on standard output.
fn print(result: fmt::Arguments) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_fmt(result).and_then(|()| stdout.flush()) {
        // A closed pipe (`| head`) is not a failure.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure {
            message: format!("standard output: cannot be written: {e}"),
            hint: None,
        }),
        _ => Ok(()),
    }
}

/// Prints what was recognised, and notes on anything unexpected.
fn report_plan(checkpoint: &Checkpoint, plan: &Plan) {
    let (d, v) = (&plan.model.decoder, &plan.model.vision);
    say!(
        "{}: {} model, {}x{} pixels, decoder {} layers of {}, tower {} layers of {}",
        checkpoint.name(),
        plan.model.family.name(),
        v.image_size,
        v.image_size,
        d.n_layer,
        d.n_embd,
        v.n_layer,
        v.n_embd,
    );
    for note in &plan.notes {
        say!("note: {note}");
    }
    report_types(plan);
    report_ignored(plan);
}

/// Prints which tensors get other types than requested, one line per reason.
fn report_types(plan: &Plan) {
    let mut reasons: Vec<(_, Vec<&str>)> = Vec::new();
    for write in plan.writes.iter().filter(|w| w.wanted != w.target.ty) {
        let reason = (write.target.shape[0], write.wanted, write.target.ty);
        let name = &write.target.name[..];
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    for ((n_cols, wanted, stored), names) in reasons {
        let example = example(&names);
        say!("note: {example}: rows of {n_cols} do not fit {wanted}; stored as {stored}");
    }
}

fn report_ignored(plan: &Plan) {
    let names: Vec<&str> = plan.ignored.iter().map(String::as_str).collect();
    match names.len() {
        0 => {}
        1 => say!(
            "warning: tensor {} is not part of this model and was skipped",
            example(&names)
        ),
        _ => say!(
            "warning: {}, are not part of this model and were skipped",
            example(&names)
        ),
    }
}

/// The name of a single tensor, or the number of tensors and the first name.
fn example(names: &[&str]) -> String {
    match names {
        [name] => format!("`{name}`"),
        names => format!("{} tensors, such as `{}`", names.len(), names[0]),
    }
}

fn run_split(model: &Path, dir: &Path) -> Result<(), Failure> {
    let written = split(model, dir, &INTERRUPTED)?;
    for (path, n_bytes) in &written {
        say!("{}: {}", path.display(), human(*n_bytes));
    }
    if written.len() < 3 {
        say!(
            "note: no mmproj.gguf, because no other program cuts pictures into tiles as this model needs it"
        );
    }
    Ok(())
}
