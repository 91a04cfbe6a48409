//! `xc2-edge search`.

use std::{
    fmt, fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use xc2_edge::{
    tasks::compose::library::{Hit, Library},
    vision::image::{self, Reading},
};

use super::number::whole;

/// Find pictures of an indexed directory by words.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge search photos 'a dog on the beach'
  xc2-edge search photos 红色的圆形 -n 3
  xc2-edge search photos cat --json | jq -r '.[].file'

A picture is found if its caption has any of the words, in English or Chinese; rarer words count
more. Each line has the score (BM25, more is better, comparable within one search only), the file
and its caption. A picture that is gone, or in a folder that cannot be read, is left out with a note.
Exit status 1 if nothing is found.")]
pub struct SearchArgs {
    /// A directory that `xc2-edge index` has captioned.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The index, if `xc2-edge index` was told to keep it elsewhere.
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// What to look for.
    #[arg(value_name = "WORDS", allow_hyphen_values = true)]
    words: String,
    /// The most pictures.
    #[arg(short, long = "limit", value_name = "N", default_value_t = 10, value_parser = whole::<u32>(1..))]
    n: u32,
    /// Show the pictures: in terminals that can (Kitty, iTerm, others in coarse blocks).
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
    for file in &search.vanished {
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
        if search.hits.is_empty() && search.vanished.is_empty() {
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

/// Why a picture of the index cannot be shown.
#[derive(Debug, PartialEq)]
enum Absence {
    /// There is no file of this name.
    Gone,
    /// There may be one, but the system does not say: a folder without permission, a disk or a server that
    /// does not answer.
    Unreadable(String),
}

impl Absence {
    fn of(file: &Path) -> Self {
        match fs::metadata(file) {
            Ok(_) => Self::Gone, // something else than a file
            Err(error) if is_gone(error.kind()) => Self::Gone,
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("gone; `xc2-edge index` forgets it"),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}; its caption is kept"),
        }
    }
}

/// Whether an error of this kind says that there is no such file. Any other leaves that open.
fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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
    let shown = image::open(file, Reading::default())
        .map_err(anyhow::Error::new)
        .and_then(|picture| viuer::print(&picture.into(), &config).map_err(anyhow::Error::new));
    if let Err(error) = shown {
        let _ = writeln!(std::io::stderr(), "note: {error:#}");
    }
}

/// Whether the terminal says of itself that it has Kitty's protocol. Only then it is asked for details:
/// `viuer` would wait for ever for the answer of one that has none.
fn is_kitty() -> bool {
    let var = |name: &str| std::env::var(name).unwrap_or_default().to_lowercase();
    let (term, program) = (var("TERM"), var("TERM_PROGRAM"));
    std::io::stdin().is_terminal()
        && (std::env::var_os("KITTY_WINDOW_ID").is_some()
            || ["kitty", "ghostty"].iter().any(|name| term.contains(name))
            || ["ghostty", "wezterm"].contains(&program.as_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_not_found_is_gone() {
        use io::ErrorKind::*;
        for kind in [NotFound, NotADirectory] {
            assert!(is_gone(kind), "{kind}");
        }
        for kind in [
            PermissionDenied,
            StaleNetworkFileHandle,
            HostUnreachable,
            TimedOut,
            NetworkDown,
            NotConnected,
            InvalidFilename,
            Interrupted,
            Other,
        ] {
            assert!(!is_gone(kind), "{kind}");
        }
    }

    #[test]
    fn the_system_says_why_a_picture_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| Absence::of(&dir.path().join(name));
        assert_eq!(of("a.png"), Absence::Gone);
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(of("file/a.png"), Absence::Gone);
        symlink("loop", dir.path().join("loop")).unwrap(); // closed to everybody
        let told = of("loop/a.png").to_string();
        assert!(told.starts_with("cannot be read: ") && told.ends_with("its caption is kept"));
    }
}
