//! `xc2-edge index`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::ensure;
use clap::Args;
use xc2_edge::{
    compose::library::{Fresh, INDEX, Library, Survey},
    engine::{Engine, Request},
    prompt::Chat,
};

use super::{engine_args::EngineArgs, progress::Progress};

/// Caption the pictures of a directory, so that they can be found by words.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge index photos -m M.gguf
  xc2-edge index photos -m M.gguf -p '用一句话描述这张图片。'
  xc2-edge search photos 'a dog on the beach'
  xc2-edge compose -m M.gguf -p 'Write about our summer.' --library photos --out summer.html

The index is one file in DIR, `.xc2-library.sqlite`; take it away and everything is as before. It
can be interrupted, and goes on where it was. Run again, it captions what is new or changed, knows
moved files again, and forgets those that are gone. Pictures of all directories below DIR belong to
it; hidden files do not.")]
pub struct IndexArgs {
    /// The directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
    /// What is asked about each picture.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        default_value = "Describe this image briefly."
    )]
    prompt: String,
    /// The most tokens of a caption.
    #[arg(short, long, value_name = "N", default_value_t = 200)]
    n_predict: usize,
    /// Caption all pictures again, with another model or prompt, say.
    #[arg(long)]
    again: bool,
}

/// Runs the command.
pub fn run(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let mut library = Library::create(&args.dir)?;
    let survey = library.survey(args.again)?;
    for (file, why) in &survey.unreadable {
        warn(&format!("{}: {why}", file.display()));
    }
    let n_failed = caption(args, &mut library, &survey)?;
    writeln!(std::io::stdout(), "{}", summary(args, &survey, n_failed))?;
    ensure!(
        n_failed == 0 || n_failed < survey.fresh.len(),
        "none of {n_failed} pictures could be captioned"
    );
    Ok(ExitCode::SUCCESS)
}

/// Captions what has none; returns how many could not be.
fn caption(args: &IndexArgs, library: &mut Library, survey: &Survey) -> anyhow::Result<usize> {
    if survey.fresh.is_empty() {
        return Ok(0); // no need for the model
    }
    let engine = args.engine.load()?;
    let model = engine.container().info().name.clone();
    let (mut progress, mut n_failed) = (Progress::default(), 0);
    for (done, picture) in survey.fresh.iter().enumerate() {
        progress.update("caption", done, survey.fresh.len());
        match engine.answer(&args.request(&engine, picture), &mut ()) {
            Ok(answer) => library.put(picture, answer.text.trim(), &model)?,
            Err(error) => {
                progress.clear();
                warn(&format!("{:#}", anyhow::Error::new(error)));
                n_failed += 1;
            }
        }
    }
    progress.clear();
    Ok(n_failed)
}

impl IndexArgs {
    fn request(&self, engine: &Engine, picture: &Fresh) -> Request {
        Request {
            images: vec![picture.file.clone().into()],
            chat: Chat {
                system: engine.container().info().prompt.system.clone(),
                query: self.prompt.clone(),
                ..Chat::default()
            },
            n_predict: self.n_predict,
            ..Request::default()
        }
    }
}

fn summary(args: &IndexArgs, survey: &Survey, n_failed: usize) -> String {
    let new = survey.fresh.len() - n_failed;
    let parts = [
        (new, "captioned"),
        (survey.known, "known"),
        (survey.moved, "of them moved or copied"),
        (survey.gone, "gone"),
        (n_failed + survey.unreadable.len(), "unreadable"),
    ];
    let told =
        |(n, what): &(usize, &str)| (*n > 0 || *what == "captioned").then(|| format!("{n} {what}"));
    let told: Vec<_> = parts.iter().filter_map(told).collect();
    format!("{}: {}", args.dir.join(INDEX).display(), told.join(", "))
}

fn warn(what: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {what}");
}
