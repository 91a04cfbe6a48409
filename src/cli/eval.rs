//! `xc2-edge eval`.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use xc2_edge::{
    engine::{Engine, EngineOptions, default_threads},
    scenes::{Paper, Unaskable},
};

use super::run::Plora;

/// Mark a model's answers to held-out prompts about drawn scenes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge eval -m xc2-scenes.gguf models/xc2-scenes/heldout.jsonl
  xc2-edge eval -m xc2-scenes.gguf models/xc2-scenes/heldout.jsonl --plora none --tasks

An answer is right if it equals the expected one to the letter.")]
pub struct EvalArgs {
    /// The model, as written by xc2-convert.
    #[arg(short, long, value_name = "GGUF")]
    model: PathBuf,
    /// Held-out prompts, one JSON object a line.
    heldout: PathBuf,
    /// Ask the first N prompts only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The most tokens of an answer.
    #[arg(short, long, value_name = "N", default_value_t = 300)]
    n_predict: usize,
    /// Threads [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Which tokens see Partial-LoRA. Anything but `images` is wrong on purpose, to see its effect.
    #[arg(long, value_enum, default_value = "images")]
    plora: Plora,
    /// A row for each task instead of each group of tasks.
    #[arg(long)]
    tasks: bool,
    /// Print one JSON object, with every answer that departs.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let papers = read(args)?;
    let options = EngineOptions {
        n_threads: args.threads.map_or_else(default_threads, usize::from),
        ..EngineOptions::default()
    };
    let engine = Engine::load(&args.model, options)?;
    let mut report = Report::default();
    let mut progress = super::progress::Progress::default();
    for (done, (line, paper)) in papers.iter().enumerate() {
        progress.update("eval", done, papers.len());
        match ask(&engine, paper, args) {
            Ok(answer) => report.mark(*line, paper, answer, args.tasks),
            Err(error) => match error.downcast_ref::<Unaskable>() {
                Some(form @ Unaskable::Form { .. }) => report.skip(form),
                _ => return Err(error.context(format!("{}:{line}", args.heldout.display()))),
            },
        }
    }
    progress.clear();
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(std::io::stdout(), "{report}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The prompts, each with the number of its line.
fn read(args: &EvalArgs) -> anyhow::Result<Vec<(usize, Paper)>> {
    let name = args.heldout.display();
    let text = fs::read_to_string(&args.heldout).with_context(|| name.to_string())?;
    let lines = (1..).zip(text.lines());
    lines
        .take(args.limit.unwrap_or(usize::MAX))
        .map(|(number, line)| {
            let paper = serde_json::from_str(line).with_context(|| format!("{name}:{number}"))?;
            Ok((number, paper))
        })
        .collect()
}

fn ask(engine: &Engine, paper: &Paper, args: &EvalArgs) -> anyhow::Result<String> {
    let side = engine.preprocessor().image_size() as usize;
    let mut request = paper.request(&engine.container().info().prompt, side)?;
    request.plora = args.plora.into();
    request.n_predict = args.n_predict;
    Ok(engine.answer(&request, &mut ())?.text)
}

/// How many answers there are, and how many of them are as they should be.
#[derive(Clone, Debug, Default, Serialize)]
struct Score {
    prompts: usize,
    /// Equal to the true answer.
    right: usize,
    /// Equal to what the model said in PyTorch.
    as_recorded: usize,
}

impl Score {
    fn add(&mut self, paper: &Paper, answer: &str) {
        self.prompts += 1;
        self.right += usize::from(answer == paper.expected);
        self.as_recorded += usize::from(answer == paper.greedy);
    }
}

/// An answer that is wrong, or not the recorded one.
#[derive(Debug, Serialize)]
struct Departure {
    line: usize,
    task: String,
    /// Of the recorded answer: near zero, float noise may decide.
    margin: f64,
    expected: String,
    recorded: String,
    answer: String,
}

/// What came of all prompts.
#[derive(Debug, Default, Serialize)]
struct Report {
    all: Score,
    /// By group or task, in the order of the file.
    rows: Vec<(String, Score)>,
    /// Prompts that were not put to the model, by reason.
    skipped: BTreeMap<String, usize>,
    departures: Vec<Departure>,
}

impl Report {
    fn mark(&mut self, line: usize, paper: &Paper, answer: String, by_task: bool) {
        self.all.add(paper, &answer);
        let name = if by_task { &paper.task } else { &paper.group };
        self.row(name).add(paper, &answer);
        if answer != paper.expected || answer != paper.greedy {
            self.departures.push(Departure {
                line,
                task: paper.task.clone(),
                margin: paper.margin,
                expected: paper.expected.clone(),
                recorded: paper.greedy.clone(),
                answer,
            });
        }
    }

    fn row(&mut self, name: &str) -> &mut Score {
        let known = self.rows.iter().position(|(row, _)| row == name);
        let index = known.unwrap_or_else(|| {
            self.rows.push((name.to_owned(), Score::default()));
            self.rows.len() - 1
        });
        &mut self.rows[index].1
    }

    fn skip(&mut self, reason: &Unaskable) {
        *self.skipped.entry(reason.to_string()).or_default() += 1;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<22} prompts    right  as PyTorch", "")?;
        let rows = self.rows.iter().map(|(name, score)| (name.as_str(), score));
        for (name, score) in rows.chain([("all", &self.all)]) {
            let percent = |n: usize| 100.0 * n as f64 / score.prompts.max(1) as f64;
            let (right, same) = (percent(score.right), percent(score.as_recorded));
            let prompts = score.prompts;
            writeln!(f, "{name:<22} {prompts:>7} {right:>6.1} % {same:>8.1} %")?;
        }
        for (reason, n) in &self.skipped {
            writeln!(f, "{n} skipped: {reason}")?;
        }
        Ok(())
    }
}
