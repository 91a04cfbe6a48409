//! `xc2-edge index`.

use std::{
    cell::RefCell,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::ensure;
use clap::Args;
use xc2_edge::{
    engine::{Engine, Request},
    language::prompt::Chat,
    tasks::{
        caption::{Captioner, EXTENSIONS, Exclude, Job, Next, Selection},
        compose::library::{Library, Survey, Uncaptioned},
    },
};

use super::{
    caption::{SOME_FAILED, why},
    engine_args::{EngineArgs, ParallelArgs},
    in_one_line,
    number::whole,
    say,
    tally::Tally,
    tiles_args::TilesArgs,
};

/// Caption the pictures in a directory, so that they can be searched by words.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge index photos -m M.gguf
  xc2-edge index photos -m M.gguf -p '用一句话描述这张图片。'
  xc2-edge search photos 'a dog on the beach'
  xc2-edge compose -m M.gguf -p 'Write about our summer.' --library photos --out summer.html

The index is one file in DIR, `.xc2-library.sqlite`; nothing else in DIR is changed. You can
interrupt the command: the next run resumes. Each run captions new and changed pictures,
recognizes moved files, and removes deleted files from the index. Subdirectories are included,
except those that docs/captions.md lists. If a directory cannot be read, a warning is printed, and
the captions of its pictures are kept. If DIR is read-only, use `--index FILE` to put the index
elsewhere.

Exit status: 0 success, 1 failure, 2 wrong usage, 3 finished, but some pictures could not be
captioned or read, or some directories could not be read.")]
pub struct IndexArgs {
    /// Directory of pictures.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Keep the index in this file instead of in DIR; `search` and `compose` then need the same option.
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Skip files and directories with this name or path; `*` and `?` are wildcards; repeatable.
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    exclude: Vec<Exclude>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    parallel: ParallelArgs,
    /// Question to ask about each picture.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        default_value = "Describe this image briefly."
    )]
    prompt: String,
    /// Maximum number of tokens in a caption.
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(1..), default_value_t = 200)]
    n_predict: usize,
    #[command(flatten)]
    tiles: TilesArgs,
    /// Caption all pictures again, for example with another model or prompt.
    #[arg(long)]
    again: bool,
    /// Print no progress and no rate.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub fn run(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        !args.prompt.is_empty(),
        "--prompt: expected a question, found nothing"
    );
    let mut library = match &args.index {
        Some(index) => Library::create_at(&args.dir, index)?,
        None => Library::create(&args.dir)?,
    };
    let result = index(args, &mut library);
    if result.is_err() {
        library.discard_if_new();
    }
    result
}

/// Brings the library up to date.
fn index(args: &IndexArgs, library: &mut Library) -> anyhow::Result<ExitCode> {
    let survey = library.survey_of(&Selection::new(&args.exclude, None), args.again)?;
    for (file, why) in survey.unreadable.iter().chain(&survey.unreadable_folders) {
        say(&format!("warning: {}: {why}", file.display()));
    }
    ensure!(
        survey.known + survey.removed + survey.uncaptioned.len() + survey.unreadable.len() > 0,
        "{}: no pictures found; it is searched for files that end in {}{}",
        args.dir.display(),
        EXTENSIONS.join(", "),
        not_taken(&survey)
    );
    let n_failed = caption(args, library, &survey)?;
    writeln!(
        std::io::stdout(),
        "{}",
        summary(library.index(), &survey, n_failed)
    )?;
    ensure!(
        n_failed == 0 || n_failed < survey.uncaptioned.len(),
        "none of {n_failed} pictures could be captioned"
    );
    let n_left = n_failed + survey.unreadable.len() + survey.unreadable_folders.len();
    Ok(match n_left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// Captions the pictures that have no caption; returns the number of failures.
fn caption(args: &IndexArgs, library: &mut Library, survey: &Survey) -> anyhow::Result<usize> {
    if survey.uncaptioned.is_empty() {
        return Ok(0); // no need for the model
    }
    let engine = args.engine.load()?;
    let model = engine.container().info().name.clone();
    let captioner = args.captioner(&engine)?.at_most(survey.uncaptioned.len());
    let tally = RefCell::new(Tally::new(args.quiet));
    tally
        .borrow_mut()
        .begin(Some(survey.uncaptioned.len()), true);
    let mut uncaptioned = survey.uncaptioned.iter();
    let source = |_| {
        for picture in uncaptioned.by_ref() {
            match captioner.open(&picture.file).1 {
                Ok(opened) => {
                    return Next::Item(Job {
                        tag: picture,
                        picture: opened.picture,
                        prompt: None,
                    });
                }
                Err(error) => tally.borrow_mut().failed(&name(picture), &why(error)),
            }
        }
        Next::End
    };
    captioner.run(source, |picture: &Uncaptioned, answer| {
        let mut tally = tally.borrow_mut();
        match answer {
            Ok(answer) => {
                library.put(picture, answer.text.trim(), &model)?;
                tally.captioned();
            }
            Err(error) => tally.failed(&name(picture), &in_one_line(error)),
        }
        anyhow::Ok(())
    })?;
    let mut tally = tally.into_inner();
    tally.finish();
    Ok(tally.counts().failed)
}

fn name(picture: &Uncaptioned) -> String {
    picture.file.display().to_string()
}

impl IndexArgs {
    fn captioner<'a>(&self, engine: &'a Engine) -> anyhow::Result<Captioner<'a>> {
        let request = Request {
            chat: Chat {
                system: engine.container().info().prompt.system.clone(),
                query: self.prompt.clone(),
                ..Chat::default()
            },
            n_predict: self.n_predict,
            tiles: self.tiles.options(),
            ..Request::default()
        };
        self.tiles.warn_if_reduced(engine);
        Ok(Captioner::new(engine, request, self.parallel.count())?)
    }
}

/// What was found in the directory but not captioned, as the end of a message.
fn not_taken(survey: &Survey) -> String {
    let n_closed = survey.unreadable_folders.len();
    let plural = if n_closed == 1 { "" } else { "s" };
    let closed = (n_closed > 0).then(|| format!("{n_closed} folder{plural} not readable"));
    let parts = survey.skipped.summary().into_iter().chain(closed);
    parts.map(|part| format!("; {part}")).collect()
}

fn summary(index: &Path, survey: &Survey, n_failed: usize) -> String {
    let new = survey.uncaptioned.len() - n_failed;
    let parts = [
        (new, "captioned"),
        (survey.known, "known"),
        (survey.moved, "of them moved or copied"),
        (survey.removed, "gone"),
        (n_failed + survey.unreadable.len(), "unreadable"),
    ];
    let part =
        |(n, what): &(usize, &str)| (*n > 0 || *what == "captioned").then(|| format!("{n} {what}"));
    let parts: Vec<_> = parts.iter().filter_map(part).collect();
    let not_taken = not_taken(survey);
    format!("{}: {}{not_taken}", index.display(), parts.join(", "))
}
