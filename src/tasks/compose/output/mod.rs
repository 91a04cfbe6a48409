//! Output files of an article: Markdown with picture files, one HTML file with embedded pictures, or the JSON
//! that `--edit` reads. Files are written atomically.

mod html;
mod markdown;
mod picture;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use html::html;
pub use markdown::{Page, markdown};

use super::Composition;
use crate::{
    system::atomic_file::{self, AtomicDir, Leftovers},
    tasks::caption::path_text,
    vision::image::ImageError,
};

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `article.md`, and `article_files/` with the pictures.
    Markdown,
    /// `article.html` with embedded pictures.
    Html,
    /// `article.json`: the whole [`Composition`].
    Json,
}

impl Format {
    /// The format for the extension of `path`.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "md" | "markdown" => Some(Self::Markdown),
            "html" | "htm" => Some(Self::Html),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why an output file was not written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OutputError {
    /// A picture of the article cannot be read.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// A file system error.
    #[error("{}: cannot be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The directory for the pictures contains other files.
    #[error(
        "{}: expected nothing, or the pictures of an earlier article; found `{found}`",
        path.display()
    )]
    Occupied { path: PathBuf, found: String },
}

/// Writes `composition` in `format` to `path`. Unfinished files of a killed run are removed.
///
/// # Errors
/// If a picture cannot be read or the file cannot be written; then nothing has changed.
pub fn write(composition: &Composition, format: Format, path: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError::Io {
        path: path.to_owned(),
        source,
    };
    let mut leftovers = Leftovers::default();
    leftovers.clear(path);
    match format {
        Format::Json => atomic_file::write(path, composition.to_json().as_bytes()).map_err(failed),
        Format::Html => atomic_file::write(path, html(composition)?.as_bytes()).map_err(failed),
        Format::Markdown => {
            let dir = files_dir(path);
            let page = markdown(composition, &dir)?;
            let picture_dir = path.with_file_name(&dir);
            leftovers.clear(&picture_dir);
            check_picture_dir(&picture_dir)?;
            with_pictures(path, &picture_dir, &page).map_err(failed)
        }
    }
}

/// `article_files` for `article.md`. A name longer than file systems allow is cut and gets a hash.
fn files_dir(path: &Path) -> String {
    const LONGEST: usize = 255;
    const ENDING: &str = "_files";
    let stem = path_text(Path::new(path.file_stem().unwrap_or_default()));
    if stem.len() + ENDING.len() <= LONGEST {
        return stem + ENDING;
    }
    let hash = &blake3::hash(stem.as_bytes()).to_hex()[..16];
    let most = LONGEST - ENDING.len() - hash.len() - 1;
    let end = (0..=most).rev().find(|at| stem.is_char_boundary(*at));
    let end = end.unwrap_or(0);
    format!("{}-{hash}{ENDING}", &stem[..end])
}

/// Rejects a directory that contains anything except numbered pictures.
fn check_picture_dir(dir: &Path) -> Result<(), OutputError> {
    let occupied = |found| OutputError::Occupied {
        path: dir.to_owned(),
        found,
    };
    if !dir.is_dir() {
        let is_there = dir.symlink_metadata().is_ok();
        return if is_there {
            Err(occupied("a file".into()))
        } else {
            Ok(())
        };
    }
    let entries = fs::read_dir(dir).map_err(|source| OutputError::Io {
        path: dir.to_owned(),
        source,
    })?;
    for name in entries.flatten().map(|entry| entry.file_name()) {
        let name = name.to_string_lossy().into_owned();
        let is_numbered = name
            .split_once('-')
            .is_some_and(|(n, _)| n.len() == 2 && n.parse::<u8>().is_ok());
        if !is_numbered {
            return Err(occupied(name));
        }
    }
    Ok(())
}

/// Writes the pictures, moves them into place, and writes the page.
fn with_pictures(path: &Path, dir: &Path, page: &Page) -> io::Result<()> {
    let pending = AtomicDir::create(dir)?;
    for (name, bytes) in &page.pictures {
        fs::write(pending.path().join(name), bytes)?;
    }
    pending.commit(|| atomic_file::write(path, page.text.as_bytes()))
}

/// The headline, if the article begins with one: a short first line that is not a sentence.
fn headline(sections: &[String]) -> Option<&str> {
    const LONGEST: usize = 80;
    let first = sections.first().filter(|_| sections.len() > 1)?;
    let text = first.trim_start_matches('#').trim();
    let is_sentence = text.ends_with(['.', '!', '?', '。', '！', '？', ';', '；', ':', '：']);
    let is_marked = first.starts_with('#');
    (!text.is_empty() && (is_marked || !is_sentence) && text.chars().count() <= LONGEST)
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headline_is_short_and_not_a_sentence() {
        let sections = |first: &str| vec![first.to_owned(), "text".to_owned()];
        assert_eq!(headline(&sections("The lost star")), Some("The lost star"));
        assert_eq!(headline(&sections("# Why?")), Some("Why?"));
        assert_eq!(headline(&sections("It was late.")), None);
        assert_eq!(headline(&sections(&"x".repeat(81))), None);
        assert_eq!(headline(&["alone".to_owned()]), None);
    }
}
