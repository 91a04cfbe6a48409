//! `xc2-edge run`.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use xc2_edge::{
    engine::{DEFAULT_N_PREDICT, Engine, EngineError, MAX_BEAMS, Picture, Request},
    language::prompt::{Chat, PloraPolicy, PromptLayout},
    system::text,
    vision::image,
};

use super::{
    chat,
    engine_args::{EngineArgs, SPEED},
    frames_args::{self, FramesArgs},
    grammar_args::GrammarArgs,
    number::whole,
    report::{self, Report},
    sampling_args::SamplingArgs,
    screen::Screen,
    tiles_args::TilesArgs,
};

/// Answer a question, with or without pictures.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge run -m model.gguf --image photo.jpg -p 'What is the man holding?'
  xc2-edge run -m model.gguf --image a.png --image b.png \\
      -p 'First picture: <ImageHere>, second picture: <ImageHere>. What differs?'
  xc2-edge run -m model.gguf -p 'Write a short poem about rain.' --temp 1 --seed 7
  xc2-edge run -m model.gguf --image photo.jpg -p 'How many cups are there?' --beams 3
  xc2-edge run -m model.gguf --image photo.jpg -p 'Is it day or night?' --grammar answer.gbnf
  xc2-edge run -m model.gguf --image bill.jpg -p 'Date and total, as JSON.' --json-schema bill.json
  xc2-edge run -m model.gguf --image photo.jpg          # a conversation; /help lists its commands
  xc2-edge run -m model.gguf --image plan.png --hd-num 40 -p 'Which room is the largest?'
  xc2-edge run -m model.gguf --frames frames            # a video, one picture per second
  xc2-edge run -m model.gguf < question.txt
  grim - | xc2-edge run -m model.gguf --image - -p 'What does the screen show?'")]
pub struct RunArgs {
    /// Picture file (JPEG, PNG, WebP, BMP, GIF or TIFF), or `-` to read one from stdin; repeatable.
    #[arg(long = "image", value_name = "FILE", help_heading = "Prompt")]
    images: Vec<PathBuf>,
    /// Question; `-` reads it from stdin. `<ImageHere>` marks the place of a picture; without it, pictures
    /// come before the question. Without -p, a terminal starts a conversation, and piped input is the
    /// question.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Prompt"
    )]
    prompt: Option<String>,
    /// System prompt; empty for none [default: the model's].
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Prompt"
    )]
    system: Option<String>,
    /// Prompt layout: `chat` as in conversations, `evaluation` as for published scores.
    #[arg(long, value_enum, default_value = "chat", help_heading = "Prompt")]
    layout: Layout,
    #[command(flatten)]
    frames: FramesArgs,
    #[command(flatten)]
    tiles: TilesArgs,

    /// Maximum number of tokens to generate.
    #[arg(
        short,
        long,
        value_name = "N",
        value_parser = whole::<usize>(0..),
        default_value_t = DEFAULT_N_PREDICT,
        help_heading = "Sampling"
    )]
    n_predict: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Beam search with N beams. Published scores use 3 or 5; decoding then takes about two or three times
    /// as long. Cannot be combined with --temp, --repeat-penalty or a grammar.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=MAX_BEAMS as u64), default_value_t = 1, help_heading = "Sampling")]
    beams: usize,
    #[command(flatten)]
    grammar: GrammarArgs,

    #[command(flatten)]
    engine: EngineArgs,
    /// Tokens to apply Partial-LoRA to. Only `images` is correct; the others show its effect.
    #[arg(long, value_enum, default_value = "images", help_heading = SPEED)]
    plora: Plora,

    /// Print one JSON object instead of the text.
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Print only the answer, no progress or timings.
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    Chat,
    Evaluation,
}

impl From<Layout> for PromptLayout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Chat => Self::Chat,
            Layout::Evaluation => Self::Evaluation,
        }
    }
}

/// Tokens to apply Partial-LoRA to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Plora {
    Images,
    None,
    All,
}

impl From<Plora> for PloraPolicy {
    fn from(plora: Plora) -> Self {
        match plora {
            Plora::Images => Self::Images,
            Plora::None => Self::Nowhere,
            Plora::All => Self::Everywhere,
        }
    }
}

/// Runs the command.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    args.check_stdin()?;
    let is_asked = args.prompt.is_some() || args.frames.frames.is_some();
    if !is_asked && !args.json && chat::is_possible() {
        return converse(args);
    }
    // Check the request and read the question before loading the model: both may fail.
    let mut request = args.request()?;
    request.chat.query = args.prompt()?;
    if let Some(at) = args.dashes().next() {
        request.images[at] = args.picture_on_stdin()?;
    }
    let engine = args.engine.load()?;
    args.set_system(&mut request, &engine);
    if !args.quiet {
        args.tiles.announce(&engine, &request)?;
    }
    let mut screen = Screen::new(!args.json, args.quiet);
    let answer = engine.answer(&request, &mut screen)?;
    screen.finish()?;
    let report = Report::new(&answer, request.sampling, engine.matmul_backend());
    if args.json {
        writeln!(std::io::stdout(), "{}", report.as_json())?;
    } else {
        writeln!(std::io::stdout())?;
    }
    if !args.quiet {
        let _ = writeln!(std::io::stderr(), "{report}");
        if let Some(warning) = report::truncated(&answer) {
            let _ = writeln!(std::io::stderr(), "{warning}");
        }
        if let Some(why) = report::cut(answer.stop).filter(|_| !args.json) {
            let _ = writeln!(std::io::stderr(), "{why}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn converse(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut like = args.request()?;
    let engine = args.engine.load_with(args.engine.options_with_cache())?;
    args.set_system(&mut like, &engine);
    args.tiles.warn_if_reduced(&engine);
    let options = chat::Options {
        like,
        images: args.images.clone(),
        n_ctx: args.engine.ctx_size,
        quiet: args.quiet,
    };
    chat::run(&engine, options)
}

/// Size limit of a question on stdin; far above any context.
const MAX_PROMPT_BYTES: u64 = 16 << 20;

const PICTURE_ON_STDIN: &str = "the picture on stdin";

impl RunArgs {
    /// Positions of `-` among the pictures.
    fn dashes(&self) -> impl Iterator<Item = usize> {
        let is_dash = |(at, path): (usize, &PathBuf)| (path == Path::new("-")).then_some(at);
        self.images.iter().enumerate().filter_map(is_dash)
    }

    /// Checks that at most one input comes from stdin.
    fn check_stdin(&self) -> anyhow::Result<()> {
        let n_dashes = self.dashes().count();
        ensure!(
            n_dashes <= 1,
            "--image -: expected one picture on stdin, found `-` {n_dashes} times"
        );
        if n_dashes == 0 {
            return Ok(());
        }
        ensure!(
            self.prompt.as_deref() != Some("-"),
            "--image - and -p -: expected the picture or the question on stdin, found both; name a file, or \
             give the question as text"
        );
        ensure!(
            !std::io::stdin().is_terminal(),
            "--image -: expected a picture on stdin, found a terminal"
        );
        ensure!(
            self.prompt.is_some(),
            "--image -: the picture is read from stdin, so give the question with -p"
        );
        Ok(())
    }

    /// Reads the picture from stdin.
    fn picture_on_stdin(&self) -> anyhow::Result<Picture> {
        let max_bytes = self.engine.max_memory.unwrap_or(u64::MAX);
        let file = image::read_from(std::io::stdin().lock(), max_bytes);
        let file = file.map_err(EngineError::from).context(PICTURE_ON_STDIN)?;
        ensure!(
            !file.is_empty(),
            "{PICTURE_ON_STDIN}: expected the content of a picture file, found nothing"
        );
        Ok(Picture::Encoded {
            name: "stdin".to_owned(),
            bytes: file.into(),
        })
    }

    /// The question given with `-p` or on stdin; empty if there is none.
    fn prompt(&self) -> anyhow::Result<String> {
        match self.prompt.as_deref() {
            Some("-") => {}
            Some(text) => return Ok(text.to_owned()),
            None if self.frames.frames.is_some() => return Ok(frames_args::QUESTION.to_owned()),
            None if std::io::stdin().is_terminal() => return Ok(String::new()),
            None => {}
        }
        let stdin = std::io::stdin().lock();
        let text = text::take_at_most(stdin, MAX_PROMPT_BYTES).context("the question on stdin")?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The request without its texts.
    fn request(&self) -> anyhow::Result<Request> {
        let frames = self.frames.picture()?;
        let images = self.images.iter().map(Into::into);
        let request = Request {
            images: images.chain(frames).collect(),
            tiles: self.tiles.options(),
            chat: Chat::default(),
            layout: self.layout.into(),
            bos_rule: None,
            plora: self.plora.into(),
            sampling: self.sampling.options(),
            n_predict: self.n_predict,
            beams: self.beams,
            grammar: self.grammar.grammar()?,
        };
        request.check_beams()?;
        Ok(request)
    }

    fn set_system(&self, request: &mut Request, engine: &Engine) {
        let own = || engine.container().info().prompt.system.clone();
        request.chat.system = self.system.clone().unwrap_or_else(own);
    }
}
