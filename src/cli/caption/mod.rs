//! `xc2-edge caption`.

mod files;
mod pipe;
mod work;

use std::{
    ffi::OsStr,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::{ArgGroup, Args, ValueEnum};
use xc2_edge::{
    engine::{Engine, Request},
    language::prompt::Chat,
    tasks::caption::{
        Captioner, Exclude, ExifRule, Format, Journal, Policy, Records, Selection, SetAside,
        Settings, Shard, Sidecars, Template,
    },
};

use super::{
    engine_args::{EngineArgs, ParallelArgs},
    number::{real, whole},
    sampling_args::SamplingArgs,
    say,
    tiles_args::TilesArgs,
};

pub use work::why;

/// Exit status of a run that finished, but could not process all pictures.
pub const SOME_FAILED: u8 = 3;

const OUTPUT: &str = "Output";
const SELECTION: &str = "Which pictures";

/// Caption pictures: files, folders, a watched folder, a camera stream.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("source").required(true).multiple(false),
    after_help = "Examples:
  xc2-edge caption -m model.gguf photos -o captions.jsonl         # resumes after an interruption
  xc2-edge caption -m model.gguf 'photos/**/*.jpg' -o captions.csv
  xc2-edge caption -m model.gguf dataset --txt --template 'sks style, {caption}'
  xc2-edge caption -m model.gguf photos -o captions.jsonl --embed described
  find photos -newer last | xc2-edge caption -m model.gguf - -o captions.jsonl
  xc2-edge caption -m model.gguf --watch incoming -o captions.jsonl
  ffmpeg -i rtsp://camera/stream -vf fps=1 -f mjpeg - \\
      | xc2-edge caption -m model.gguf --mjpeg - --live --min-change 4 -o camera.jsonl
  xc2-edge caption -m model.gguf --jsonl-in - < records.jsonl > captioned.jsonl

A run with -o can be killed at any time; the same command resumes it. A picture counts as the same
if its path, size and modification time are the same. Each record has path, caption (or error),
size, modified, width, height, model, prompt, time, seconds, tokens and stop; with --embed also
copy_blake3. See docs/captions.md for details.

Exit status: 0 success, 1 failure, 2 wrong usage, 3 finished, but some pictures failed (see their
records) or some folders could not be read. With --jsonl-in, failed pictures get a record with an
error, and the status is 0."
)]
pub struct CaptionArgs {
    /// Pictures: files, folders (including subfolders), patterns such as 'a/*.jpg', or `-` for a list on
    /// stdin, one path per line.
    #[arg(value_name = "PATH", group = "source", help_heading = SELECTION)]
    paths: Vec<PathBuf>,
    /// Caption the pictures in this folder, then new ones as they arrive, until stopped.
    #[arg(long, value_name = "DIR", group = "source", help_heading = SELECTION)]
    watch: Option<PathBuf>,
    /// Caption the frames of a motion JPEG stream: a file, or `-` for stdin.
    #[arg(long, value_name = "FILE", group = "source", help_heading = SELECTION)]
    mjpeg: Option<PathBuf>,
    /// Read records from FILE, or `-` for stdin: JSON objects with `path` and optionally `prompt`, one per
    /// line. Writes them to stdout in the same order with their captions; other fields are kept.
    #[arg(long, value_name = "FILE", group = "source", conflicts_with_all = ["output", "format", "txt", "embed"], help_heading = SELECTION)]
    jsonl_in: Option<PathBuf>,
    /// Skip files and folders with this name or path; `*` and `?` are wildcards; repeatable. Hidden
    /// files, recycle bins and thumbnail folders such as @eaDir are always skipped.
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, conflicts_with_all = ["mjpeg", "jsonl_in"], help_heading = SELECTION)]
    exclude: Vec<Exclude>,
    /// Caption only shard I of N. The hash of a file's path below the given folder selects its shard.
    #[arg(long, value_name = "I/N", allow_hyphen_values = true, conflicts_with = "mjpeg", help_heading = SELECTION)]
    shard: Option<Shard>,
    /// Retry pictures that failed in an earlier run.
    #[arg(long, requires = "output", help_heading = SELECTION)]
    retry_failed: bool,
    /// With --watch or --mjpeg: skip pictures that differ from the last captioned one by less than this:
    /// mean absolute difference of 32×32 grey pixels, in percent of the range from black to white.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with_all = ["paths", "jsonl_in"], help_heading = SELECTION)]
    min_change: Option<f32>,
    /// With --mjpeg: drop frames that arrive while another frame is being captioned.
    #[arg(long, requires = "mjpeg", help_heading = SELECTION)]
    live: bool,

    /// Question to ask about each picture.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "Describe this image briefly.",
        allow_hyphen_values = true,
        help_heading = "Prompt"
    )]
    prompt: String,
    /// System prompt; empty for none [default: the model's].
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Prompt"
    )]
    system: Option<String>,
    /// Maximum number of tokens in a caption.
    #[arg(
        short,
        long,
        value_name = "N",
        value_parser = whole::<usize>(1..),
        default_value_t = 256,
        help_heading = "Sampling"
    )]
    n_predict: usize,
    #[command(flatten)]
    tiles: TilesArgs,

    /// File for the records; a later run with the same file resumes [default: stdout].
    #[arg(short, long, value_name = "FILE", help_heading = OUTPUT)]
    output: Option<PathBuf>,
    /// Format of the records [default: by the extension of the output file, else jsonl].
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = OUTPUT)]
    format: Option<FormatArg>,
    /// Write each caption to a text file next to its picture: photo.txt for photo.jpg. Without -o, no
    /// records are written, and pictures that already have a text file are skipped.
    #[arg(long, conflicts_with = "mjpeg", help_heading = OUTPUT)]
    txt: bool,
    /// Write copies of the pictures (JPEG, PNG, WebP) to DIR, with the caption as XMP description; image
    /// data is copied byte for byte. Without -o, no records are written, and pictures that already have a
    /// copy are skipped.
    #[arg(long, value_name = "DIR", conflicts_with = "mjpeg", help_heading = OUTPUT)]
    embed: Option<PathBuf>,
    /// With --embed: when to write the caption to EXIF as well, which many programs prefer over XMP.
    #[arg(long, value_enum, value_name = "WHEN", requires = "embed", default_value_t, help_heading = OUTPUT)]
    embed_exif: EmbedExifArg,
    /// Replace existing text files and copies even if they were not made from these records or were
    /// edited since.
    #[arg(long, help_heading = OUTPUT)]
    overwrite: bool,
    /// Template for each caption, for example 'a photo of sks, {caption}'.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = OUTPUT)]
    template: Option<Template>,
    /// Print no progress and no summary.
    #[arg(short, long, help_heading = OUTPUT)]
    quiet: bool,

    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    parallel: ParallelArgs,
}

/// Format of the records.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Jsonl,
    Csv,
}

/// When to write the caption to EXIF.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum EmbedExifArg {
    /// If the EXIF description is blank, a camera's default text, or equal to the XMP description.
    #[default]
    Filler,
    /// Always, even over a description that a person wrote.
    Always,
    /// Never.
    Never,
}

impl From<EmbedExifArg> for ExifRule {
    fn from(arg: EmbedExifArg) -> Self {
        match arg {
            EmbedExifArg::Filler => Self::Filler,
            EmbedExifArg::Always => Self::Always,
            EmbedExifArg::Never => Self::Never,
        }
    }
}

/// Runs the command.
pub fn run(args: &CaptionArgs) -> anyhow::Result<ExitCode> {
    args.check_name()?;
    if let Some(records) = &args.jsonl_in {
        return pipe::run(args, records);
    }
    let n_failed = if let Some(dir) = &args.watch {
        files::watch(args, dir)?
    } else if let Some(stream) = &args.mjpeg {
        files::frames(args, stream)?
    } else {
        files::caption(args)?
    };
    Ok(match n_failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

impl CaptionArgs {
    /// Settings that all captions share.
    fn settings(&self) -> Settings {
        let model = self.engine.model.file_name().unwrap_or_default();
        Settings {
            model: model.to_string_lossy().into_owned(),
            prompt: self.prompt.clone(),
            template: self.template.as_ref().map(|t| t.as_str().to_owned()),
        }
    }

    fn sidecars(&self) -> Sidecars {
        Sidecars {
            txt: self.txt,
            copies: self.embed.clone(),
            exif: self.embed_exif.into(),
        }
    }

    /// Whether a later run can resume this one.
    fn resumes(&self) -> bool {
        self.output.is_some() || !self.sidecars().is_empty()
    }

    /// What to skip in folders.
    fn selection(&self) -> Selection {
        Selection::new(&self.exclude, self.embed.as_deref())
    }

    fn policy(&self) -> Policy {
        Policy {
            retry_failed: self.retry_failed,
            overwrite: self.overwrite,
        }
    }

    fn format(&self) -> Format {
        let ending = self
            .output
            .as_deref()
            .and_then(Path::extension)
            .and_then(OsStr::to_str);
        match (self.format, ending) {
            (Some(FormatArg::Csv), _) => Format::Csv,
            (None, Some(ending)) if ending.eq_ignore_ascii_case("csv") => Format::Csv,
            _ => Format::Jsonl,
        }
    }

    /// Refuses an output named `.json` (records are JSON lines, not one document), and reports the format if
    /// the extension is unknown.
    fn check_name(&self) -> anyhow::Result<()> {
        let ending = self.output.as_deref().and_then(Path::extension);
        let is_json = ending.is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        ensure!(
            !is_json || self.format.is_some(),
            "--output {}: expected a name that ends in .jsonl or .csv: records are JSON objects, one per \
             line; `--format jsonl` writes them to a file of this name anyway",
            self.output.as_deref().unwrap_or(Path::new("")).display()
        );
        const KNOWN: [&str; 3] = ["jsonl", "ndjson", "csv"];
        let is_known =
            |ending: &OsStr| KNOWN.iter().any(|known| ending.eq_ignore_ascii_case(known));
        if ending.is_some_and(|ending| !is_known(ending)) && self.format.is_none() && !self.quiet {
            say(&format!(
                "{}: writing JSON objects, one per line; `--format csv` writes a table instead, `--txt` \
                 writes each caption to a text file next to its picture",
                self.output.as_deref().unwrap_or(Path::new("")).display()
            ));
        }
        Ok(())
    }

    /// Opens the destination of the records.
    fn records(&self) -> anyhow::Result<Records> {
        let format = self.format();
        match &self.output {
            Some(path) => {
                let journal = Journal::open(path, format, &self.settings())?;
                let mut records = Records::Journal(Box::new(journal));
                self.report_kept(&mut records);
                Ok(records)
            }
            None if !self.sidecars().is_empty() => Ok(Records::stream(None, format)?),
            None => Ok(Records::stream(Some(Box::new(std::io::stdout())), format)?),
        }
    }

    /// Reports text that was moved out of the record file, even with `--quiet`: the user may look for it.
    fn report_kept(&self, records: &mut Records) {
        let output = self.output.as_deref().unwrap_or(Path::new("")).display();
        let SetAside { torn, replaced } = records.take_set_aside();
        if let Some((n_bytes, path)) = torn {
            say(&format!(
                "{output}: an earlier run was stopped while writing; the unfinished record ({n_bytes} \
                 bytes) was moved to {}",
                path.display()
            ));
        }
        if let Some((n, path)) = replaced {
            say(&format!(
                "{output}: {n} caption{} replaced; the old text is in {}",
                if n == 1 { " was" } else { "s were" },
                path.display()
            ));
        }
    }

    /// The request for each picture.
    fn request(&self, engine: &Engine) -> anyhow::Result<Request> {
        ensure!(
            !self.prompt.is_empty(),
            "--prompt: expected a question, found nothing"
        );
        let own = || engine.container().info().prompt.system.clone();
        Ok(Request {
            chat: Chat {
                system: self.system.clone().unwrap_or_else(own),
                query: self.prompt.clone(),
                ..Chat::default()
            },
            sampling: self.sampling.options(),
            n_predict: self.n_predict,
            tiles: self.tiles.options(),
            ..Request::default()
        })
    }

    fn captioner<'a>(&self, engine: &'a Engine) -> anyhow::Result<Captioner<'a>> {
        let request = self.request(engine)?;
        self.tiles.warn_if_reduced(engine);
        Ok(Captioner::new(engine, request, self.parallel.count())?)
    }
}

/// Opens a file, or stdin for `-`.
fn open_input(path: &Path) -> anyhow::Result<Box<dyn std::io::Read + Send>> {
    if path == Path::new("-") {
        ensure!(
            !std::io::stdin().is_terminal(),
            "expected input on stdin, found a terminal"
        );
        return Ok(Box::new(std::io::stdin()));
    }
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(file))
}

fn percent(text: &str) -> Result<f32, String> {
    real(text, "0 to 100", |v| (0.0..=100.0).contains(&v))
}
