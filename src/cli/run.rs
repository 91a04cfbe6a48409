//! `xc2-edge run`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use xc2_edge::{
    engine::{DEFAULT_N_PREDICT, Engine, Request},
    prompt::{Chat, PloraPolicy, PromptLayout},
};

use super::{
    engine_args::{EngineArgs, SPEED},
    report::{self, Report},
    sampling_args::SamplingArgs,
    screen::Screen,
};

/// Answer a question about pictures, or without any.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge run -m model.gguf --image photo.jpg -p 'What is the man holding?'
  xc2-edge run -m model.gguf --image a.png --image b.png \\
      -p 'First picture: <ImageHere>, second picture: <ImageHere>. What differs?'
  xc2-edge run -m model.gguf -p 'Write a short poem about rain.' --temp 1 --seed 7")]
pub struct RunArgs {
    /// A picture (JPEG, PNG, WebP, BMP, GIF or TIFF); repeatable.
    #[arg(long = "image", value_name = "FILE", help_heading = "Prompt")]
    images: Vec<PathBuf>,
    /// The question. `<ImageHere>` says where a picture stands; without it they stand in front.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Prompt"
    )]
    prompt: Option<String>,
    /// System text; empty for none [default: the model's own].
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Prompt"
    )]
    system: Option<String>,
    /// Where pictures stand: `chat` as in conversations, `evaluation` as in published scores.
    #[arg(long, value_enum, default_value = "chat", help_heading = "Prompt")]
    layout: Layout,

    /// The most tokens to generate.
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = DEFAULT_N_PREDICT,
        help_heading = "Sampling"
    )]
    n_predict: usize,
    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    engine: EngineArgs,
    /// Which tokens see Partial-LoRA. Anything but `images` is wrong on purpose, to see its effect.
    #[arg(long, value_enum, default_value = "images", help_heading = SPEED)]
    plora: Plora,

    /// Print one JSON object instead of the text.
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Print the answer only: no progress, no timings.
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

/// Which tokens see Partial-LoRA.
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
    let engine = args.engine.load()?;
    let request = args.request(&engine);
    let mut screen = Screen::new(!args.json, args.quiet);
    let answer = engine.answer(&request, &mut screen)?;
    screen.finish()?;
    let report = Report::new(&answer, request.sampling);
    if args.json {
        writeln!(std::io::stdout(), "{}", report.as_json())?;
    } else {
        writeln!(std::io::stdout())?;
    }
    if !args.quiet {
        let _ = writeln!(std::io::stderr(), "{report}");
        if let Some(why) = report::cut(answer.stop).filter(|_| !args.json) {
            let _ = writeln!(std::io::stderr(), "{why}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl RunArgs {
    fn request(&self, engine: &Engine) -> Request {
        let own = || engine.container().info().prompt.system.clone();
        Request {
            images: self.images.iter().map(Into::into).collect(),
            chat: Chat {
                system: self.system.clone().unwrap_or_else(own),
                query: self.prompt.clone().unwrap_or_default(),
                ..Chat::default()
            },
            layout: self.layout.into(),
            bos_rule: None,
            plora: self.plora.into(),
            sampling: self.sampling.options(),
            n_predict: self.n_predict,
        }
    }
}
