//! `xc2-edge search`.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use xc2_edge::{
    tasks::compose::library::{Absence, Hit, Library},
    vision::image::{self, ReadOptions},
};

use super::number::whole;

/// Search the pictures of an indexed directory by words.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge search photos 'a dog on the beach'
  xc2-edge search photos 红色的圆形 -n 3
  xc2-edge search photos cat --json | jq -r '.[].file'

A picture matches if its caption contains any of the words, in English or Chinese; rare words
count more. Each line shows the score (BM25; higher is better; comparable only within one search),
the file and its caption. Pictures that are deleted or cannot be read are skipped with a note.

Exit status: 0 success, 1 nothing found or failure, 2 wrong usage.")]
pub struct SearchArgs {
    /// Directory indexed by `xc2-edge index`.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Index file, if it was made with `xc2-edge index --index FILE`.
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Words to search for.
    #[arg(value_name = "WORDS", allow_hyphen_values = true)]
    words: String,
    /// Maximum number of pictures to list.
    #[arg(short, long = "limit", value_name = "N", default_value_t = 10, value_parser = whole::<u32>(1..))]
    n: u32,
    /// When to show the pictures in the terminal (Kitty, iTerm; coarse blocks in others).
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    thumbnails: When,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum When {
    /// If the output is a terminal.
    Auto,
    Always,
    Never,
}

/// Runs the command.
pub fn run(args: &SearchArgs) -> anyhow::Result<ExitCode> {
    let library = match &args.index {
        Some(index) => Library::open_at(&args.dir, index)?,
        None => Library::open(&args.dir)?,
    };
    let search = library.search(&args.words, args.n as usize, &[])?;
    let mut stdout = std::io::stdout();
    for file in &search.missing {
        let _ = writeln!(
            std::io::stderr(),
            "note: {}: {}",
            file.display(),
            Absence::of(file)
        );
    }
    if args.json {
        let hit = |hit: &Hit| json!({"file": hit.file, "score": hit.score, "caption": hit.caption});
        let hits: Vec<_> = search.hits.iter().map(hit).collect();
        writeln!(stdout, "{:#}", json!(hits))?;
    } else {
        for hit in &search.hits {
            let caption = hit.caption.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(
                stdout,
                "{:6.2}  {}  {caption}",
                hit.score,
                hit.file.display()
            )?;
            if args.shows_pictures() {
                show(&hit.file);
            }
        }
        if search.hits.is_empty() && search.missing.is_empty() {
            let n = library.len()?;
            let _ = writeln!(
                std::io::stderr(),
                "no caption of {n} pictures has any of these words"
            );
        }
    }
    Ok(match search.hits.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

impl SearchArgs {
    fn shows_pictures(&self) -> bool {
        match self.thumbnails {
            When::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
            }
            When::Always => true,
            When::Never => false,
        }
    }
}

/// Shows a picture in the terminal, or a line that says why not.
fn show(file: &Path) {
    const WIDTH: u32 = 32; // columns
    let config = viuer::Config {
        absolute_offset: false,
        width: Some(WIDTH),
        use_kitty: is_kitty(),
        ..viuer::Config::default()
    };
    let shown = image::open(file, ReadOptions::default())
        .map_err(anyhow::Error::new)
        .and_then(|picture| viuer::print(&picture.into(), &config).map_err(anyhow::Error::new));
    if let Err(error) = shown {
        let _ = writeln!(std::io::stderr(), "note: {error:#}");
    }
}

/// Whether the terminal advertises Kitty's protocol. Only then is it queried: a terminal without the protocol does not
/// answer, and `viuer` would wait forever.
fn is_kitty() -> bool {
    let var = |name: &str| std::env::var(name).unwrap_or_default().to_lowercase();
    let (term, program) = (var("TERM"), var("TERM_PROGRAM"));
    std::io::stdin().is_terminal()
        && (std::env::var_os("KITTY_WINDOW_ID").is_some()
            || ["kitty", "ghostty"].iter().any(|name| term.contains(name))
            || ["ghostty", "wezterm"].contains(&program.as_str()))
}
