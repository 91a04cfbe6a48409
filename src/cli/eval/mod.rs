//! `xc2-edge eval`.

mod composition;
mod report;
mod source;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Args, builder::PossibleValuesParser};
use report::{Against, Grade, Report};
use source::{Place, Source};
use xc2_edge::{
    engine::{Answer, Engine, PromptState},
    evaluation::scenes::{EvalCase, FIRST_TRAINED, Task, Unaskable},
    language::{llama::SpecialText, prompt::PloraPolicy},
};

use super::{engine_args::EngineArgs, number::whole, progress::Progress, run::Plora, seeds::Seeds};

/// Grade a model's answers to prompts about drawn scenes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge eval -m xc2-scenes.gguf models/xc2-scenes/heldout.jsonl
  xc2-edge eval -m xc2-scenes.gguf models/xc2-scenes/heldout.jsonl --plora none --tasks
  xc2-edge eval -m xc2-scenes.gguf --scenes 0..100
  xc2-edge eval -m xc2-scenes.gguf --scenes 0..1000 --ask caption_brief,caption_detailed
  xc2-edge eval -m xc2-scenes.gguf --composition 50000..50050
  xc2-edge eval -m q4.gguf --against f16.gguf models/xc2-scenes/heldout.jsonl

An answer is right if it is identical to the expected answer.

Seeds of the bundled model: report results on 0 to 99999 (test set). Tune on 100000 to 199999
(validation set; its training recipe was chosen on them). Seeds from 1000000 on are its training
set.

With --composition, the model writes an article about two or three pictures per seed and places
them. Then it places them again, given in another order. A picture is placed right if the section
before it names everything in that picture, and nothing that only another picture shows.

With --against, both models process the reference's answers token by token, and their
distributions are compared: mean KL divergence (reference || model) in nats, and how often the
most likely token is the same. The standard error covers the choice of prompts; it is estimated
from the differences between them. To compare two models, use the differences per prompt
(`compared` in the --json output): they are often more precise than either mean. A margin is the
logit of the expected token minus the largest other logit; it is negative where the model would
choose another token.")]
pub struct EvalArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// File of prompts, one JSON object per line.
    #[arg(value_name = "PROMPTS", required_unless_present_any = ["scenes", "composition"])]
    prompts: Option<PathBuf>,
    /// Ask about the scenes of these seeds instead of a file; the end is not included.
    #[arg(
        long,
        value_name = "SEED..SEED",
        allow_hyphen_values = true,
        conflicts_with = "prompts"
    )]
    scenes: Option<Seeds>,
    /// Compose an article about the pictures of each of these seeds instead.
    #[arg(long, value_name = "SEED..SEED", allow_hyphen_values = true, conflicts_with_all = ["prompts", "scenes", "ask", "against", "limit", "n_predict", "plora", "tasks"])]
    composition: Option<Seeds>,
    /// With --scenes: ask only these tasks, separated by commas [default: all].
    #[arg(long, value_name = "TASK", value_delimiter = ',', conflicts_with = "prompts", value_parser = PossibleValuesParser::new(Task::ALL.map(Task::name)))]
    ask: Vec<String>,
    /// Also compare with this reference model, token by token: for example with an f16 conversion of the
    /// same checkpoint. The reference always applies Partial-LoRA to pictures.
    #[arg(long, value_name = "GGUF")]
    against: Option<PathBuf>,
    /// Ask only the first N prompts.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    limit: Option<usize>,
    /// Maximum number of tokens in an answer.
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(0..), default_value_t = 300)]
    n_predict: usize,
    /// Tokens to apply Partial-LoRA to. Only `images` is correct; the others show its effect.
    #[arg(long, value_enum, default_value = "images")]
    plora: Plora,
    /// Print a row per task instead of per group of tasks; --scenes implies this.
    #[arg(long)]
    tasks: bool,
    /// Print one JSON object with every answer that differs, and with --against the numbers of each prompt.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    if let Some(seeds) = &args.composition {
        warn_of_trained(seeds);
        composition::run(&args.engine.load()?, seeds, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let source = args.source()?;
    let examiner = Examiner::new(args)?;
    let mut report = Report::default();
    let mut progress = Progress::default();
    for (done, (place, case)) in source.cases.enumerate() {
        progress.update("eval", done, source.total);
        match examiner.grade(&case) {
            Ok(grade) => report.add(place, &case, grade, args.tasks || args.scenes.is_some()),
            Err(error) => match error.downcast_ref::<Unaskable>() {
                Some(form @ Unaskable::Form { .. }) => report.skip(form),
                _ => return Err(error.context(args.name(place))),
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

impl EvalArgs {
    fn source(&self) -> anyhow::Result<Source> {
        let limit = self.limit.unwrap_or(usize::MAX);
        if let Some(prompts) = &self.prompts {
            return Source::file(prompts, limit);
        }
        let seeds = self.scenes.as_ref().context("no prompts")?;
        warn_of_trained(seeds);
        let is_asked =
            |task: &Task| self.ask.is_empty() || self.ask.iter().any(|a| a == task.name());
        let tasks = Task::ALL.into_iter().filter(is_asked).collect();
        Ok(Source::seeds(seeds, tasks, limit))
    }

    /// Name of a prompt in messages.
    fn name(&self, place: Place) -> String {
        match (place, &self.prompts) {
            (Place::Line(line), Some(file)) => format!("{}:{line}", file.display()),
            (Place::Line(line), None) => format!("line {line}"),
            (Place::Seed(seed), _) => format!("seed {seed}"),
        }
    }
}

fn warn_of_trained(seeds: &Seeds) {
    if seeds.0.end > FIRST_TRAINED {
        let _ = writeln!(
            std::io::stderr(),
            "warning: the bundled model was trained on seeds from {FIRST_TRAINED} on; \
             results on them are not meaningful; use smaller seeds"
        );
    }
}

/// The model, and the reference model if there is one.
struct Examiner {
    model: Engine,
    reference: Option<Engine>,
    plora: PloraPolicy,
    n_predict: usize,
}

impl Examiner {
    fn new(args: &EvalArgs) -> anyhow::Result<Self> {
        let options = args.engine.options_of_reference();
        let model = args.engine.load_with(options.clone())?;
        let load = |path: &PathBuf| Engine::load(path, options.clone());
        let reference = args.against.as_ref().map(load).transpose()?;
        if let Some(reference) = &reference {
            let pieces = |engine: &Engine| engine.tokenizer().n_vocab();
            let (expected, found) = (pieces(reference), pieces(&model));
            ensure!(
                expected == found,
                "--against: expected two files of one model, found vocabularies of {expected} and \
                 {found} pieces"
            );
        }
        Ok(Self {
            model,
            reference,
            plora: args.plora.into(),
            n_predict: args.n_predict,
        })
    }

    fn grade(&self, case: &EvalCase) -> anyhow::Result<Grade> {
        let (answer, here) = self.ask(&self.model, case, self.plora)?;
        let against = match &self.reference {
            Some(reference) => Some(self.compare(case, reference, here)?),
            None => None,
        };
        Ok(Grade {
            answer: answer.text,
            against,
        })
    }

    fn ask(
        &self,
        engine: &Engine,
        case: &EvalCase,
        plora: PloraPolicy,
    ) -> anyhow::Result<(Answer, PromptState)> {
        let side = engine.preprocessor().image_size() as usize;
        let mut request = case.request(&engine.container().info().prompt, side)?;
        (request.plora, request.n_predict) = (plora, self.n_predict);
        Ok(engine.answer_and_keep_prompt(&request, &mut ())?)
    }

    /// Runs the model on the reference's answer (teacher forcing), then on the expected answer.
    fn compare(
        &self,
        case: &EvalCase,
        reference: &Engine,
        mut here: PromptState,
    ) -> anyhow::Result<Against> {
        let (answer, mut there) = self.ask(reference, case, PloraPolicy::Images)?;
        let mut rows = Vec::new();
        there.force_tokens(&answer.ids, |_, row| rows.push(row.to_vec()))?;
        let mut against = Against::default();
        // One of them has fewer rows if its context ends early.
        here.force_tokens(&answer.ids, |i, row| {
            if let Some(reference) = rows.get(i) {
                against.divergence.add_token(reference, row);
            }
        })?;

        let tokenizer = self.model.tokenizer();
        let mut expected = tokenizer.encode(&case.expected, SpecialText::Plain);
        expected.push(self.model.container().info().prompt.turn_end);
        expected.truncate(self.n_predict);
        let forced = &expected[..expected.len().saturating_sub(1)];
        here.force_tokens(forced, |i, row| {
            if let Some(right) = expected.get(i) {
                against.margins.add_token(row, *right);
            }
        })?;
        Ok(against)
    }
}
