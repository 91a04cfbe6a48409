//! `xc2-edge eval`.

mod composition;
mod report;
mod source;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Args, builder::PossibleValuesParser};
use report::{Against, Mark, Report};
use source::{Place, Source};
use xc2_edge::{
    engine::{AfterPrompt, Answer, Engine},
    evaluation::scenes::{EvalCase, FIRST_TRAINED, Task, Unaskable},
    language::{llama::SpecialText, prompt::PloraPolicy},
};

use super::{engine_args::EngineArgs, number::whole, progress::Progress, run::Plora, seeds::Seeds};

/// Mark a model's answers to prompts about drawn scenes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge eval -m xc2-scenes.gguf models/xc2-scenes/heldout.jsonl
  xc2-edge eval -m xc2-scenes.gguf models/xc2-scenes/heldout.jsonl --plora none --tasks
  xc2-edge eval -m xc2-scenes.gguf --scenes 0..100
  xc2-edge eval -m xc2-scenes.gguf --scenes 0..1000 --ask caption_brief,caption_detailed
  xc2-edge eval -m xc2-scenes.gguf --composition 50000..50050
  xc2-edge eval -m q4.gguf --against f16.gguf models/xc2-scenes/heldout.jsonl

An answer is right if it equals the expected one to the letter.

Seeds of the bundled model: report 0 to 99999; 100000 to 199999 were looked at while its recipe was
made, so tune on those; from 1000000 on it was trained on them.

With --composition, the model writes an article about two or three pictures of each seed and places
them; then it places them again, given in another order. A picture is right if the section before it
names everything in it, and nothing that only another one has.

With --against, the model is led along the reference's answers, and for each token its distribution
is held against the reference's: mean KL divergence (reference || model) in nats, and how often the
likeliest token is the same. The standard error of the mean is that of other prompts of the kind,
estimated from how these differ. Of two models along the same prompts the difference is often surer
than either mean: take it prompt by prompt, from `compared` of --json. Margins are those of the
expected answers: the logit of the right token less the best other one, negative where the model
would say something else.")]
pub struct EvalArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Prompts, one JSON object a line.
    #[arg(value_name = "PROMPTS", required_unless_present_any = ["scenes", "composition"])]
    prompts: Option<PathBuf>,
    /// Ask about the scenes of these seeds instead; the end is not included.
    #[arg(
        long,
        value_name = "SEED..SEED",
        allow_hyphen_values = true,
        conflicts_with = "prompts"
    )]
    scenes: Option<Seeds>,
    /// Compose an article about pictures of each of these seeds instead.
    #[arg(long, value_name = "SEED..SEED", allow_hyphen_values = true, conflicts_with_all = ["prompts", "scenes", "ask", "against", "limit", "n_predict", "plora", "tasks"])]
    composition: Option<Seeds>,
    /// With --scenes: ask these tasks only [default: all].
    #[arg(long, value_name = "TASK", value_delimiter = ',', conflicts_with = "prompts", value_parser = PossibleValuesParser::new(Task::ALL.map(Task::name)))]
    ask: Vec<String>,
    /// Also compare with this reference model, token by token: the file from which the model was
    /// quantized, say. The reference always has Partial-LoRA on pictures.
    #[arg(long, value_name = "GGUF")]
    against: Option<PathBuf>,
    /// Ask the first N prompts only.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    limit: Option<usize>,
    /// The most tokens of an answer.
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(0..), default_value_t = 300)]
    n_predict: usize,
    /// Which tokens see Partial-LoRA. Anything but `images` is wrong on purpose, to see its effect.
    #[arg(long, value_enum, default_value = "images")]
    plora: Plora,
    /// A row for each task instead of each group of tasks; always so with --scenes.
    #[arg(long)]
    tasks: bool,
    /// Print one JSON object, with every answer that departs, and with --against each prompt's numbers.
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
    for (done, (place, paper)) in source.papers.enumerate() {
        progress.update("eval", done, source.total);
        match examiner.mark(&paper) {
            Ok(mark) => report.add(place, &paper, mark, args.tasks || args.scenes.is_some()),
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

    /// What a prompt is called.
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
             its figures there say little, smaller seeds are for reporting"
        );
    }
}

/// The model, and what it is held against.
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

    fn mark(&self, paper: &EvalCase) -> anyhow::Result<Mark> {
        let (answer, here) = self.ask(&self.model, paper, self.plora)?;
        let against = match &self.reference {
            Some(reference) => Some(self.compare(paper, reference, here)?),
            None => None,
        };
        Ok(Mark {
            answer: answer.text,
            against,
        })
    }

    fn ask(
        &self,
        engine: &Engine,
        paper: &EvalCase,
        plora: PloraPolicy,
    ) -> anyhow::Result<(Answer, AfterPrompt)> {
        let side = engine.preprocessor().image_size() as usize;
        let mut request = paper.request(&engine.container().info().prompt, side)?;
        (request.plora, request.n_predict) = (plora, self.n_predict);
        Ok(engine.answer_and_stay(&request, &mut ())?)
    }

    /// Leads the model along the reference's answer, then along the expected one.
    fn compare(
        &self,
        paper: &EvalCase,
        reference: &Engine,
        mut here: AfterPrompt,
    ) -> anyhow::Result<Against> {
        let (answer, mut there) = self.ask(reference, paper, PloraPolicy::Images)?;
        let mut rows = Vec::new();
        there.follow(&answer.ids, |_, row| rows.push(row.to_vec()))?;
        let mut against = Against::default();
        // Where a context ends early, one of them has fewer rows.
        here.follow(&answer.ids, |i, row| {
            if let Some(reference) = rows.get(i) {
                against.closeness.see(reference, row);
            }
        })?;

        let tokenizer = self.model.tokenizer();
        let mut expected = tokenizer.encode(&paper.expected, SpecialText::Plain);
        expected.push(self.model.container().info().prompt.turn_end);
        expected.truncate(self.n_predict);
        let said = &expected[..expected.len().saturating_sub(1)];
        here.follow(said, |i, row| {
            if let Some(right) = expected.get(i) {
                against.margins.see(row, *right);
            }
        })?;
        Ok(against)
    }
}
