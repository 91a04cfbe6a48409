//! `xc2-edge compose`.

mod screen;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use xc2_edge::{
    engine::Picture,
    model::container::{Family, Task},
    system::{atomic_file, text},
    tasks::compose::{
        Brief, ComposeOptions, Composer, Composition, Count, EngineChatModel, Language, Library,
        Prompts, StageRecord,
        composer::DEFAULT_N_PREDICT,
        edit::Edit,
        output::{self, Format},
        reply,
    },
};

use super::{
    engine_args::EngineArgs, number::whole, sampling_args::SamplingArgs, say, tiles_args::TilesArgs,
};
use screen::Screen;

/// Maximum number of given pictures, as in the original implementation.
const MAX_GIVEN: usize = 10;

/// Write an article and illustrate it with pictures.
#[derive(Debug, Args)]
#[command(mut_arg("top_k", |arg| arg.default_value("40")))] // as in the published demo
#[command(mut_arg("repeat_penalty", |arg| arg.default_value("1.005")))]
#[command(after_help = "Examples:
  xc2-edge compose -m M.gguf --image a.jpg --image b.jpg --out article.html
  xc2-edge compose -m M.gguf -p 'Write about a fox.' --library photos --images 3 --out fox.md
  xc2-edge compose -m M.gguf --title 'Ink and water' --outline points.txt --text notes.txt --lang zh
  xc2-edge compose -m M.gguf --article text.txt --library photos --out text.html
  xc2-edge compose -m M.gguf --image a.jpg --out a.json --out a.md
  xc2-edge compose -m M.gguf --edit a.json --rewrite 2 'Say that it rained.' --out a.md

Stages: write the article; choose the sections that get a picture; with a library, write a caption
for each of these sections and search for the four pictures that match it best; let the model
choose among the pictures. Sections are numbered from 0, as in the JSON. `--out` is repeatable:
.md comes with a directory of pictures, .html contains them, .json is the input of --edit.")]
pub struct ComposeArgs {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    tiles: TilesArgs,

    /// What to write, in your own words.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Article"
    )]
    prompt: Option<String>,
    /// Headline.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Article"
    )]
    title: Option<String>,
    /// Text file with an outline, one point per line.
    #[arg(long, value_name = "FILE", help_heading = "Article")]
    outline: Option<PathBuf>,
    /// Text file with source material.
    #[arg(long, value_name = "FILE", help_heading = "Article")]
    text: Option<PathBuf>,
    /// Illustrate this text file instead of writing an article.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "title", "outline", "text"], help_heading = "Article")]
    article: Option<PathBuf>,
    /// Language of the article.
    #[arg(long, value_enum, default_value = "en", help_heading = "Article")]
    lang: Lang,
    /// Maximum number of tokens in the article.
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(0..), default_value_t = DEFAULT_N_PREDICT, help_heading = "Article")]
    n_predict: usize,

    /// Picture to write about and to place in the article; repeatable, up to ten. With --library it is not
    /// placed, only written about.
    #[arg(long = "image", value_name = "FILE", help_heading = "Pictures")]
    images: Vec<PathBuf>,
    /// Choose pictures from this directory, indexed by `xc2-edge index`.
    #[arg(long, value_name = "DIR", help_heading = "Pictures")]
    library: Option<PathBuf>,
    /// Index file of the library, if it was made with `xc2-edge index --index FILE`.
    #[arg(long, value_name = "FILE", help_heading = "Pictures")]
    index: Option<PathBuf>,
    /// Number of pictures in the article [default: all given pictures, or as many as the model chooses].
    #[arg(long = "images", value_name = "N", value_parser = whole::<usize>(0..), help_heading = "Pictures")]
    count: Option<usize>,
    /// Use the file names of given pictures as descriptions, instead of asking the model.
    #[arg(long, help_heading = "Pictures")]
    no_descriptions: bool,

    /// Edit an article that was written with `--out FILE.json`; without --out, that file is overwritten.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["prompt", "title", "outline", "text", "article", "count"], requires = "change", help_heading = "Editing")]
    edit: Option<PathBuf>,
    #[command(flatten)]
    change: Change,

    /// Output file: .md, .html or .json; repeatable.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: Vec<PathBuf>,
    /// Print one JSON object with the prompt, answer and choice of every stage, instead of the text.
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Print no progress and no stages.
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,

    /// Directory of prompts that replace the built-in ones (see docs/composition.md).
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    prompts: Option<PathBuf>,
}

/// The edit: exactly one of these.
#[derive(Debug, Args)]
#[group(id = "change", multiple = false)]
struct Change {
    /// Rewrite section N as TEXT instructs.
    #[arg(long, num_args = 2, value_names = ["N", "TEXT"], requires = "edit", help_heading = "Editing")]
    rewrite: Option<Vec<String>>,
    /// Expand section N as TEXT instructs.
    #[arg(long, num_args = 2, value_names = ["N", "TEXT"], requires = "edit", help_heading = "Editing")]
    expand: Option<Vec<String>>,
    /// Shorten section N.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..), requires = "edit", help_heading = "Editing")]
    shorten: Option<usize>,
    /// Insert a new section about TEXT after section N.
    #[arg(long, num_args = 2, value_names = ["N", "TEXT"], requires = "edit", help_heading = "Editing")]
    insert_after: Option<Vec<String>>,
    /// Replace the picture after section N: with one given with --image, an unused one, or one from the
    /// library.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..), requires = "edit", help_heading = "Editing")]
    swap_image: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Lang {
    En,
    Zh,
}

impl From<Lang> for Language {
    fn from(lang: Lang) -> Self {
        match lang {
            Lang::En => Self::En,
            Lang::Zh => Self::Zh,
        }
    }
}

/// Runs the command.
pub fn run(args: &ComposeArgs) -> anyhow::Result<ExitCode> {
    let job = args.job()?;
    let outputs = args.outputs()?;
    let n_earlier = job.n_stages();
    let mut prompts = Prompts::load(job.language(args.lang.into()), args.prompts.as_deref())?;
    let library = job.library(args.library.as_deref());
    ensure!(
        args.index.is_none() || library.is_some(),
        "--index: expected `--library` as well"
    );
    let library = library.map(|dir| match &args.index {
        Some(index) => Library::open_at(dir, index),
        None => Library::open(dir),
    });
    let library = library.transpose()?;
    let engine = args.engine.load()?;
    args.tiles.warn_if_reduced(&engine);
    let info = engine.container().info();
    if info.family == Family::V2d5 {
        if args.prompts.is_none() {
            prompts = prompts.with_numbered_pictures();
        }
        if info.task != Task::Write {
            say(
                "note: this 2.5 model has no adapters for articles; `xc2-convert --mode write` merges them",
            );
        }
    }
    let model = EngineChatModel::new(&engine, args.sampling.options(), args.engine.ctx_size);
    let mut model = model.with_tiles(args.tiles.options());
    let streams = !args.json && job.is_written();
    let mut screen = Screen::new(streams, args.quiet);
    let mut composer = Composer::new(&mut model, &prompts, args.options(), &mut screen);
    for image in &args.images {
        composer.add_picture(std::path::absolute(image)?, Picture::File(image.clone()));
    }
    let outcome = match job {
        Job::Write(brief) => composer.compose(args.lang.into(), &brief, library.as_ref()),
        Job::Illustrate(sections) => composer.illustrate(
            args.lang.into(),
            &Brief::default(),
            sections,
            library.as_ref(),
        ),
        Job::Edit(composition, edit) => composer.edit(*composition, &edit, library.as_ref()),
    };
    screen.finish()?;
    let composition = outcome?;
    for (format, path) in &outputs {
        output::write(&composition, *format, path)?;
    }
    let mut stdout = std::io::stdout();
    if args.json {
        write!(stdout, "{}", composition.to_json())?;
    } else if streams {
        writeln!(stdout)?;
    }
    if !args.quiet {
        summary(&composition, n_earlier, &outputs);
    }
    Ok(ExitCode::SUCCESS)
}

/// The task that the arguments describe.
enum Job {
    Write(Brief),
    Illustrate(Vec<String>),
    Edit(Box<Composition>, Edit),
}

impl Job {
    fn language(&self, typed: Language) -> Language {
        match self {
            Self::Edit(composition, _) => composition.language,
            _ => typed,
        }
    }

    /// The library to search: the one given, or for a swap the one used before.
    fn library<'a>(&'a self, typed: Option<&'a Path>) -> Option<&'a Path> {
        match self {
            Self::Edit(composition, Edit::SwapImage(_)) => typed.or(composition.library.as_deref()),
            Self::Edit(..) => None,
            _ => typed,
        }
    }

    fn is_written(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    /// Number of stages that earlier runs completed.
    fn n_stages(&self) -> usize {
        match self {
            Self::Edit(composition, _) => composition.stages.len(),
            _ => 0,
        }
    }
}

impl ComposeArgs {
    fn job(&self) -> anyhow::Result<Job> {
        ensure!(
            !self.images.iter().any(|image| image == Path::new("-")),
            "--image -: expected a file: an article refers to its pictures by name, and a picture on stdin \
             has none (use `./-` for a file of this name)"
        );
        ensure!(
            self.images.len() <= MAX_GIVEN,
            "--image: expected at most {MAX_GIVEN} pictures, found {}",
            self.images.len()
        );
        if let Some(path) = &self.edit {
            let composition =
                Composition::from_json(&read(path)?).with_context(|| path.display().to_string())?;
            return Ok(Job::Edit(Box::new(composition), self.change.edit()?));
        }
        if let Some(path) = &self.article {
            let (sections, n_more) = reply::sections(&read(path)?);
            ensure!(
                !sections.is_empty(),
                "{}: expected some text, found none",
                path.display()
            );
            ensure!(
                n_more == 0,
                "{}: expected at most {} lines of text, found {}",
                path.display(),
                reply::MAX_SECTIONS,
                reply::MAX_SECTIONS + n_more
            );
            self.check_count()?;
            return Ok(Job::Illustrate(sections));
        }
        let file = |path: &Option<PathBuf>| path.as_ref().map_or(Ok(String::new()), |p| read(p));
        let brief = Brief {
            instruction: self.prompt.clone().unwrap_or_default(),
            title: self.title.clone().unwrap_or_default(),
            outline: file(&self.outline)?.trim().to_owned(),
            material: file(&self.text)?.trim().to_owned(),
        };
        if brief.is_empty() && self.images.is_empty() {
            bail!(
                "nothing to write about: expected `--prompt`, `--title`, `--outline`, `--text` or `--image`"
            );
        }
        self.check_count()?;
        Ok(Job::Write(brief))
    }

    /// Checks that a number of pictures comes with a source of pictures.
    fn check_count(&self) -> anyhow::Result<()> {
        let count = self.count.filter(|count| *count > 0);
        ensure!(
            count.is_none() || !self.images.is_empty() || self.library.is_some(),
            "--images {}: expected pictures to choose from, with `--image` or `--library`",
            count.unwrap_or(0)
        );
        Ok(())
    }

    /// The output files, checked before anything expensive begins.
    fn outputs(&self) -> anyhow::Result<Vec<(Format, PathBuf)>> {
        let mut outputs = Vec::new();
        for path in &self.out {
            let Some(format) = Format::of(path) else {
                bail!(
                    "--out {}: expected a name that ends in .md, .html or .json",
                    path.display()
                );
            };
            let dir = path
                .parent()
                .filter(|dir| *dir != Path::new(""))
                .unwrap_or(Path::new("."));
            ensure!(
                dir.is_dir(),
                "--out {}: expected a directory {}",
                path.display(),
                dir.display()
            );
            atomic_file::check(path)
                .with_context(|| format!("--out {}: cannot be written", path.display()))?;
            outputs.push((format, path.clone()));
        }
        if let Some(path) = self.edit.as_ref().filter(|_| outputs.is_empty()) {
            atomic_file::check(path).with_context(|| {
                let path = path.display();
                format!("--edit {path}: cannot be written (use `--out` to write another file)")
            })?;
            outputs.push((Format::Json, path.clone()));
        }
        Ok(outputs)
    }

    fn options(&self) -> ComposeOptions {
        ComposeOptions {
            n_predict: self.n_predict,
            count: self.count.map_or(Count::Auto, Count::Exactly),
            describe: !self.no_descriptions,
        }
    }
}

impl Change {
    fn edit(&self) -> anyhow::Result<Edit> {
        let typed = |name: &str, values: &[String]| {
            let found = &values[0];
            let section = found.parse::<usize>();
            let section = section.with_context(|| {
                format!("--{name}: expected a section's number, found `{found}`")
            })?;
            anyhow::Ok((section, values[1].clone()))
        };
        Ok(if let Some(values) = &self.rewrite {
            let (n, text) = typed("rewrite", values)?;
            Edit::Rewrite(n, text)
        } else if let Some(values) = &self.expand {
            let (n, text) = typed("expand", values)?;
            Edit::Expand(n, text)
        } else if let Some(values) = &self.insert_after {
            let (n, text) = typed("insert-after", values)?;
            Edit::InsertAfter(n, text)
        } else if let Some(n) = self.shorten {
            Edit::Shorten(n)
        } else {
            Edit::SwapImage(self.swap_image.context("expected a change")?)
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    text::read(path).with_context(|| path.display().to_string())
}

/// Prints what this run did, without the first `n_earlier` stages, which earlier runs completed.
fn summary(composition: &Composition, n_earlier: usize, outputs: &[(Format, PathBuf)]) {
    let stages = &composition.stages[n_earlier..];
    let sum = |count: fn(&StageRecord) -> usize| stages.iter().map(count).sum::<usize>();
    let seconds: f64 = stages.iter().flat_map(|s| s.seconds).sum();
    let (n_prompt, n_prefill) = (sum(|s| s.n_prompt), sum(|s| s.n_prefill));
    let shown = sum(|s| s.pictures.len());
    let mut lines = String::new();
    for placed in &composition.pictures {
        lines += &format!(
            "after section {}: {}\n",
            placed.section,
            placed.file.display()
        );
    }
    for unused in composition
        .unused()
        .filter(|_| composition.library.is_none())
    {
        lines += &format!("not used: {}\n", unused.display());
    }
    lines += &format!(
        "{} stage{} in {seconds:.1} s; {} of {shown} pictures encoded, {n_prefill} of {n_prompt} prompt \
         tokens computed\n",
        stages.len(),
        if stages.len() == 1 { "" } else { "s" },
        sum(|s| s.n_encoded)
    );
    for (_, path) in outputs {
        lines += &format!("{}\n", path.display());
    }
    let _ = write!(std::io::stderr(), "{lines}");
}
