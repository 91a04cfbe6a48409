//! `xc2-edge run`.

use std::{
    io::Write,
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, ValueEnum};
use serde_json::json;
use xc2_edge::{
    engine::{
        Answer, DEFAULT_N_PREDICT, Engine, EngineOptions, Observer, Request, StopReason,
        default_threads,
    },
    image::Orientation,
    llama::{KvType, LoadOptions, SamplerOptions},
    memory,
    prompt::{Chat, PloraPolicy, PromptLayout},
    vision::Precision,
};

use super::progress::Progress;

/// Answer a question about pictures, or without any.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge run -m model.gguf --image photo.jpg -p 'What is the man holding?'
  xc2-edge run -m model.gguf --image a.png --image b.png \\
      -p 'First picture: <ImageHere>, second picture: <ImageHere>. What differs?'
  xc2-edge run -m model.gguf -p 'Write a short poem about rain.' --temp 1 --seed 7")]
pub struct RunArgs {
    /// The model, as written by xc2-convert.
    #[arg(short, long, value_name = "GGUF", help_heading = "Model")]
    model: PathBuf,
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
    /// Ignore the EXIF orientation of pictures, as the original code does.
    #[arg(long, help_heading = "Prompt")]
    no_exif_orientation: bool,

    /// The most tokens to generate.
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = DEFAULT_N_PREDICT,
        help_heading = "Sampling"
    )]
    n_predict: usize,
    /// Temperature; 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature, help_heading = "Sampling")]
    temp: f32,
    /// Draw among the K likeliest tokens; 0 for all.
    #[arg(
        long,
        value_name = "K",
        default_value_t = 50,
        help_heading = "Sampling"
    )]
    top_k: usize,
    /// Draw among the likeliest tokens that make up this probability.
    #[arg(long, value_name = "P", default_value_t = 0.8, value_parser = probability, help_heading = "Sampling")]
    top_p: f32,
    /// Make tokens that were said before less likely; 1 is off, the original's chat uses 1.005.
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = positive, help_heading = "Sampling")]
    repeat_penalty: f32,
    /// Seed of the draws [default: from the clock; it is told with the timings].
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    seed: Option<u32>,

    /// Positions of the context [default: what prompt and answer need].
    #[arg(short, long, value_name = "N", help_heading = "Speed and memory")]
    ctx_size: Option<usize>,
    /// Threads [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512), help_heading = "Speed and memory")]
    threads: Option<u16>,
    /// Element type of the KV cache.
    #[arg(
        long,
        value_enum,
        default_value = "f16",
        help_heading = "Speed and memory"
    )]
    kv_type: KvTypeArg,
    /// Whether llama.cpp rearranges weights for its kernels, at the cost of a second copy
    /// [default: off on x86-64, where it slows the prefill, on elsewhere].
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        help_heading = "Speed and memory"
    )]
    repack: Option<Switch>,
    /// In what the vision tower computes: `stored` multiplies Q8_0 matrices in int8 and the others
    /// in f32, `f32` everything in f32.
    #[arg(
        long,
        value_enum,
        default_value = "stored",
        value_name = "PRECISION",
        help_heading = "Speed and memory"
    )]
    tower: Tower,
    /// Read the weights into memory instead of mapping the file.
    #[arg(long, help_heading = "Speed and memory")]
    no_mmap: bool,
    /// Keep the weights from being swapped out.
    #[arg(long, help_heading = "Speed and memory")]
    mlock: bool,
    /// Start even if the memory seems too small.
    #[arg(long, help_heading = "Speed and memory")]
    no_memory_check: bool,
    /// Which tokens see Partial-LoRA. Anything but `images` is wrong on purpose, to see its effect.
    #[arg(
        long,
        value_enum,
        default_value = "images",
        help_heading = "Speed and memory"
    )]
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KvTypeArg {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// In what the tower computes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Tower {
    Stored,
    F32,
}

impl From<Tower> for Precision {
    fn from(tower: Tower) -> Self {
        match tower {
            Tower::Stored => Self::Stored,
            Tower::F32 => Self::F32,
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
    let options = args.engine_options();
    super::use_threads(options.n_threads)?;
    let engine = Engine::load(&args.model, options)?;
    let request = args.request(&engine);
    let mut screen = Screen {
        stream: !args.json,
        quiet: args.quiet,
        ..Screen::default()
    };
    let answer = engine.answer(&request, &mut screen)?;
    screen.progress.clear();
    if let Some(error) = screen.error {
        return Err(error.into());
    }
    if args.json {
        writeln!(std::io::stdout(), "{}", report(&answer, &request))?;
    } else {
        writeln!(std::io::stdout())?;
    }
    if !args.quiet {
        let _ = writeln!(std::io::stderr(), "{}", footer(&answer, &request));
        if let Some(why) = cut(answer.stop, args.json) {
            let _ = writeln!(std::io::stderr(), "{why}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl RunArgs {
    fn engine_options(&self) -> EngineOptions {
        let defaults = LoadOptions::default();
        EngineOptions {
            n_ctx: self.ctx_size,
            n_threads: self.threads.map_or_else(default_threads, usize::from),
            kv_type: match self.kv_type {
                KvTypeArg::F32 => KvType::F32,
                KvTypeArg::F16 => KvType::F16,
                KvTypeArg::Q8_0 => KvType::Q8_0,
            },
            load: LoadOptions {
                mmap: !self.no_mmap,
                mlock: self.mlock,
                repack: self.repack.map_or(defaults.repack, |s| s == Switch::On),
                ..defaults
            },
            orientation: if self.no_exif_orientation {
                Orientation::Ignore
            } else {
                Orientation::Apply
            },
            tower: self.tower.into(),
            check_memory: !self.no_memory_check,
            ..EngineOptions::default()
        }
    }

    fn request(&self, engine: &Engine) -> Request {
        let own = || engine.container().info().prompt.system.clone();
        Request {
            images: self.images.iter().map(Into::into).collect(),
            chat: Chat {
                system: self.system.clone().unwrap_or_else(own),
                query: self.prompt.clone().unwrap_or_default(),
                ..Chat::default()
            },
            layout: match self.layout {
                Layout::Chat => PromptLayout::Chat,
                Layout::Evaluation => PromptLayout::Evaluation,
            },
            bos_rule: None,
            plora: self.plora.into(),
            sampling: SamplerOptions {
                temperature: self.temp,
                top_k: self.top_k,
                top_p: self.top_p,
                repeat_penalty: self.repeat_penalty,
                seed: self.seed.unwrap_or_else(seed_from_clock),
            },
            n_predict: self.n_predict,
        }
    }
}

/// Shows a request on the terminal.
#[derive(Default)]
struct Screen {
    stream: bool,
    quiet: bool,
    progress: Progress,
    error: Option<std::io::Error>,
}

impl Observer for Screen {
    fn progress(&mut self, stage: &'static str, done: usize, total: usize) {
        if !self.quiet {
            self.progress.update(stage, done, total);
        }
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        if !self.stream {
            return ControlFlow::Continue(());
        }
        let mut stdout = std::io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

fn report(answer: &Answer, request: &Request) -> serde_json::Value {
    json!({
        "text": answer.text,
        "stop": answer.stop,
        "n_prompt": answer.n_prompt,
        "n_image": answer.n_image,
        "n_generated": answer.ids.len(),
        "seed": request.sampling.seed,
        "timings": answer.timings,
        "peak_memory_bytes": memory::peak(),
    })
}

/// Why an answer is not whole, for a person.
fn cut(stop: StopReason, json: bool) -> Option<&'static str> {
    match stop {
        _ if json => None, // it is in there
        StopReason::Length => Some("the answer was cut: `--n-predict` allows more tokens"),
        StopReason::Context => Some("the answer was cut: the context is full, see `--ctx-size`"),
        StopReason::Stop | StopReason::Interrupted => None,
    }
}

fn footer(answer: &Answer, request: &Request) -> String {
    let mut line = answer.timings.to_string();
    if request.sampling.temperature > 0.0 {
        line += &format!(", seed {}", request.sampling.seed);
    }
    if let Some(peak) = memory::peak() {
        line += &format!(", peak memory {}", memory::human(peak));
    }
    line
}

fn seed_from_clock() -> u32 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.subsec_nanos() ^ t.as_secs() as u32)
}

fn temperature(text: &str) -> Result<f32, String> {
    // Less than this would divide logits beyond what a float holds.
    number(text, "0, or 0.001 or more", |v| v == 0.0 || v >= 1e-3)
}

fn positive(text: &str) -> Result<f32, String> {
    number(text, "more than 0", |v| v > 0.0)
}

fn probability(text: &str) -> Result<f32, String> {
    number(text, "more than 0 and at most 1", |v| v > 0.0 && v <= 1.0)
}

fn number(text: &str, expected: &str, ok: impl Fn(f32) -> bool) -> Result<f32, String> {
    let value = text.parse().ok().filter(|v: &f32| v.is_finite() && ok(*v));
    value.ok_or_else(|| format!("expected a number, {expected}"))
}
