//! Turns command-line arguments and lists into a list of picture files.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, BufRead},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::{
    selection::{Selection, SkippedFiles, is_junk},
    walk::{Step, walk},
};
use crate::system::text::{self, TextError};

/// A picture to caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The path of the file.
    pub path: PathBuf,
    /// The path relative to the given folder; the file name if the file itself was given.
    pub name: PathBuf,
}

/// Why an argument gives no picture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SourceError {
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{pattern}`: no file matches")]
    NoMatch { pattern: String },
    #[error("`{pattern}`: expected a file name or a pattern with `*`, `?` and `[a-z]`")]
    Pattern {
        pattern: String,
        source: glob::PatternError,
    },
    #[error("the list of pictures cannot be read")]
    List(#[source] TextError),
}

/// The pictures of a run, without duplicates, in the given order; those of a folder sorted by name.
#[derive(Debug, Default)]
pub struct Inventory {
    found: Vec<Found>,
    seen: HashSet<PathBuf>,
    selection: Selection,
    skipped: SkippedFiles,
    unreadable: Vec<SourceError>,
}

impl Inventory {
    /// Empty; `selection` filters the files of folders.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            ..Self::default()
        }
    }

    /// Adds a file, a folder with its subfolders, or the matches of a pattern. An existing file or folder takes
    /// precedence over a pattern of the same text.
    ///
    /// # Errors
    /// If nothing exists or matches. Folders that cannot be read are listed in [`Self::unreadable`].
    pub fn add(&mut self, typed: &Path) -> Result<(), SourceError> {
        let pattern = typed.to_string_lossy();
        if typed.exists() || !pattern.contains(['*', '?', '[']) {
            return self.add_path(typed);
        }
        // A name with brackets may follow a wildcard.
        let brackets = pattern.replace('[', "[[]");
        for glob in [with_existing_names(&pattern), brackets] {
            if self.add_pattern(&glob, &pattern)? {
                return Ok(());
            }
        }
        Err(SourceError::NoMatch {
            pattern: pattern.into_owned(),
        })
    }

    /// Adds the matches of `glob` and returns whether there are any. `typed` is the pattern as typed.
    fn add_pattern(&mut self, glob: &str, typed: &str) -> Result<bool, SourceError> {
        const AS_SHELLS_DO: MatchOptions = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let matches =
            glob::glob_with(glob, AS_SHELLS_DO).map_err(|source| SourceError::Pattern {
                pattern: typed.to_owned(),
                source,
            })?;
        let begin = typed.split(['*', '?', '[']).next().unwrap_or_default();
        let root = begin.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut any = false;
        for path in matches {
            any = true;
            match path {
                Ok(path) if self.is_skipped(&path, typed, Path::new(root)) => {}
                Ok(path) if !path.exists() => self.skipped.add(SkippedFiles::BROKEN_LINK),
                Ok(path) => self.add_path(&path)?,
                Err(error) => self.unreadable.push(SourceError::Io {
                    path: error.path().to_owned(),
                    source: error.into(),
                }),
            }
        }
        Ok(any)
    }

    /// Whether a match is skipped. A name that the pattern contains literally is not junk.
    fn is_skipped(&self, path: &Path, typed: &str, root: &Path) -> bool {
        let is_junk = |name: &std::ffi::OsStr| {
            is_junk(Path::new(name)) && !typed.split('/').any(|typed| name == typed)
        };
        let below = self.selection.for_folder(root);
        path.iter().any(is_junk) || below.is_excluded(path)
    }

    /// Adds the files and folders of a list, one per line. Missing files are reported later, when they are read:
    /// a list may be older than the files.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub fn add_list(&mut self, list: impl BufRead) -> Result<(), SourceError> {
        for line in text::Lines::new(list) {
            let line = line.map_err(SourceError::List)?;
            if line.is_empty() {
                continue;
            }
            let path = PathBuf::from(OsString::from_vec(line));
            if path.is_dir() {
                self.add_path(&path)?;
            } else {
                self.push(path, None);
            }
        }
        Ok(())
    }

    /// The pictures.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// The pictures, for removing some.
    pub fn found_mut(&mut self) -> &mut Vec<Found> {
        &mut self.found
    }

    /// Files in folders that were skipped.
    pub fn skipped(&self) -> &SkippedFiles {
        &self.skipped
    }

    /// Folders that cannot be read.
    pub fn unreadable(&self) -> &[SourceError] {
        &self.unreadable
    }

    /// The pictures.
    pub fn into_found(self) -> Vec<Found> {
        self.found
    }

    fn add_path(&mut self, path: &Path) -> Result<(), SourceError> {
        let fail = |source| SourceError::Io {
            path: path.to_owned(),
            source,
        };
        if !path.metadata().map_err(fail)?.is_dir() {
            self.push(path.to_owned(), None);
            return Ok(());
        }
        let selection = std::mem::take(&mut self.selection);
        for step in walk(&selection.for_folder(path), path) {
            match step {
                Step::Folder(_) => {}
                Step::Picture(picture) => self.push(picture, Some(path)),
                Step::Skipped(_, why) => self.skipped.add(why),
                Step::Unreadable(error) => self.unreadable.push(error),
            }
        }
        self.selection = selection;
        Ok(())
    }

    fn push(&mut self, path: PathBuf, root: Option<&Path>) {
        if self.seen.insert(path.clone()) {
            let name = match root.and_then(|root| path.strip_prefix(root).ok()) {
                Some(below) => below.to_owned(),
                None => path.file_name().map_or_else(PathBuf::new, PathBuf::from),
            };
            self.found.push(Found { path, name });
        }
    }
}

/// Escapes the leading path components of a pattern that exist literally.
fn with_existing_names(pattern: &str) -> String {
    let mut path = PathBuf::from(if pattern.starts_with('/') { "/" } else { "" });
    let mut names = pattern.split('/');
    let mut escaped = Vec::new();
    for name in names.by_ref() {
        path.push(name);
        if !name.is_empty() && path.symlink_metadata().is_err() {
            escaped.push(name.to_owned());
            break;
        }
        escaped.push(Pattern::escape(name));
    }
    escaped.extend(names.map(str::to_owned));
    escaped.join("/")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn names(inventory: Inventory) -> Vec<String> {
        let name = |found: Found| found.name.to_str().unwrap().to_owned();
        inventory.into_found().into_iter().map(name).collect()
    }

    #[test]
    fn a_folder_gives_its_pictures_sorted_by_name() {
        let dir = tree(&[
            "b.JPG",
            "a/c.png",
            "a/notes.txt",
            ".hidden.png",
            ".cache/d.png",
            "e.jpeg.part",
        ]);
        symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        symlink("gone.png", dir.path().join("lost.png")).unwrap();
        let mut inventory = Inventory::default();
        inventory.add(dir.path()).unwrap();
        assert_eq!(
            inventory.skipped().summary().unwrap(),
            "1 file left out: broken link"
        );
        assert_eq!(names(inventory), ["a/c.png", "b.JPG"]);
    }

    #[test]
    fn a_picture_given_twice_is_taken_once() {
        let dir = tree(&["a.png", "b.png"]);
        let mut inventory = Inventory::default();
        inventory.add(&dir.path().join("b.png")).unwrap();
        inventory.add(dir.path()).unwrap();
        assert_eq!(names(inventory), ["b.png", "a.png"]);
    }

    #[test]
    fn patterns_match_files_and_folders() {
        let dir = tree(&[
            "2023/a.png",
            "2024/b.png",
            "2024/c.jpg",
            "x[1].png",
            "trip [1]/d.png",
            "trip 1/day [2]/e.png",
        ]);
        for (pattern, expected) in [
            ("20*/*.png", vec!["a.png", "b.png"]),
            ("202[4-9]", vec!["b.png", "c.jpg"]),
            ("**/c.*", vec!["c.jpg"]),
            ("x[1].png", vec!["x[1].png"]), // a file of that very name
            ("trip [1]", vec!["d.png"]),
            ("trip [1]/*.png", vec!["d.png"]),
            ("*/day [2]/*.png", vec!["e.png"]),
            ("trip [1]/", vec!["d.png"]),
            ("trip*", vec!["d.png", "e.png"]), // both folders
        ] {
            let mut inventory = Inventory::default();
            inventory.add(&dir.path().join(pattern)).unwrap();
            let mut found = names(inventory);
            found.sort();
            let expected: Vec<_> = expected.iter().map(Path::new).collect();
            let found: Vec<_> = found
                .iter()
                .map(|name| name.rsplit('/').next().unwrap())
                .collect();
            assert_eq!(
                found.iter().map(Path::new).collect::<Vec<_>>(),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn arguments_without_match_are_errors() {
        let dir = tree(&[]);
        for (typed, naming) in [
            ("gone.png", "gone.png"),
            ("*.png", "no file matches"),
            ("a[", "expected a file name"),
        ] {
            let error = Inventory::default()
                .add(&dir.path().join(typed))
                .unwrap_err();
            assert!(error.to_string().contains(naming), "{error}");
        }
    }

    #[test]
    fn a_list_may_name_missing_files() {
        let dir = tree(&["in/a.png"]);
        let list = format!(
            "{0}/in\r\n\n{0}/gone.png\n{0}/odd.name",
            dir.path().display()
        );
        let mut inventory = Inventory::default();
        inventory.add_list(list.as_bytes()).unwrap();
        assert_eq!(names(inventory), ["a.png", "gone.png", "odd.name"]);
    }

    #[test]
    fn wildcards_skip_junk_and_excluded_files() {
        let dir = tree(&[
            "a/b.jpg",
            "a/@eaDir/b.jpg/SYNOPHOTO_THUMB_XL.jpg",
            "a/.hidden/c.jpg",
            "a/._b.jpg",
            "#recycle/d.jpg",
            "raw/e.jpg",
        ]);
        let found = |typed: &str, excludes: &[&str]| {
            let excludes: Vec<_> = excludes.iter().map(|e| e.parse().unwrap()).collect();
            let mut inventory = Inventory::new(Selection::new(&excludes, None));
            inventory.add(&dir.path().join(typed)).unwrap();
            names(inventory)
        };
        assert_eq!(found("**/*.jpg", &["raw"]), ["b.jpg"]);
        assert_eq!(found("**/*.jpg", &["/raw/"]), ["b.jpg"]);
        assert_eq!(found("*", &["raw"]), ["b.jpg"]);
        assert_eq!(found("raw/*.jpg", &["raw"]), ["e.jpg"]); // named itself
        assert_eq!(found("#recycle/*.jpg", &[]), ["d.jpg"]);
        assert_eq!(found("#recycle", &[]), ["d.jpg"]);
        assert_eq!(found("a/@eaDir", &[]), ["b.jpg/SYNOPHOTO_THUMB_XL.jpg"]);
        assert_eq!(found("a/.hidden", &[]), ["c.jpg"]);
        assert_eq!(found("", &["*.jpg"]), Vec::<String>::new());
    }

    #[test]
    fn the_folder_of_copies_is_skipped() {
        let dir = tree(&["a.png", "out/a.png"]);
        let selection = Selection::new(&[], Some(&dir.path().join("out")));
        let mut inventory = Inventory::new(selection);
        inventory.add(dir.path()).unwrap();
        assert_eq!(names(inventory), ["a.png"]);
    }
}
