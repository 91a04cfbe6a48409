//! Which pictures are meant: what was typed, turned into a list of files.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, BufRead},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use crate::text::{self, TextError};

/// Endings of the files that are taken from folders. A file named directly may have any.
pub const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// A picture to be captioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called below the folder that was given; the file name if it was given itself.
    pub name: PathBuf,
}

/// What was typed leads to no picture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SourceError {
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{pattern}`: no file has such a name")]
    NoMatch { pattern: String },
    #[error("`{pattern}`: expected a file name, in which `*`, `?` and `[a-z]` stand for others")]
    Pattern {
        pattern: String,
        source: glob::PatternError,
    },
    #[error("the list of pictures cannot be read")]
    List(#[source] TextError),
}

/// The pictures of a run, each once, in the order in which they were given; those of a folder by
/// name.
#[derive(Debug, Default)]
pub struct Inventory {
    found: Vec<Found>,
    seen: HashSet<PathBuf>,
    /// Where copies go: what lies there is none of the pictures.
    except: Option<PathBuf>,
}

impl Inventory {
    /// An empty one, which will take nothing that lies below `except`.
    pub fn new(except: Option<&Path>) -> Self {
        Self {
            except: except.and_then(|dir| dir.canonicalize().ok()),
            ..Self::default()
        }
    }

    /// Adds a file, a folder with all below it, or what a pattern stands for.
    ///
    /// # Errors
    /// If there is no such thing.
    pub fn add(&mut self, typed: &Path) -> Result<(), SourceError> {
        let pattern = typed.to_string_lossy();
        if typed.exists() || !pattern.contains(['*', '?', '[']) {
            return self.add_path(typed);
        }
        let matches = glob::glob(&pattern).map_err(|source| SourceError::Pattern {
            pattern: pattern.to_string(),
            source,
        })?;
        let mut any = false;
        for path in matches {
            let path = path.map_err(|e| SourceError::Io {
                path: e.path().to_owned(),
                source: e.into(),
            })?;
            any = true;
            self.add_path(&path)?;
        }
        match any {
            true => Ok(()),
            false => Err(SourceError::NoMatch {
                pattern: pattern.into_owned(),
            }),
        }
    }

    /// Adds the files and folders of a list, one a line. A file that is missing is found out when
    /// its turn comes: a list may be older than what it lists.
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
        let below: Result<Vec<_>, _> = pictures_below(path, self.except.as_deref()).collect();
        for picture in below? {
            self.push(picture, Some(path));
        }
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

/// The pictures below a folder, by name, links followed; hidden files and folders are left out, and
/// so is the folder `except`.
pub fn pictures_below<'a>(
    dir: &'a Path,
    except: Option<&'a Path>,
) -> impl Iterator<Item = Result<PathBuf, SourceError>> + 'a {
    let is_except = move |path: &Path| {
        except.is_some_and(|except| path.canonicalize().is_ok_and(|path| path == except))
    };
    let entries = WalkDir::new(dir)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(move |entry| {
            entry.depth() == 0
                || !(is_hidden(entry.path())
                    || entry.file_type().is_dir() && is_except(entry.path()))
        });
    entries.filter_map(move |entry| match entry {
        Ok(entry) if entry.file_type().is_file() && is_picture_name(entry.path()) => {
            Some(Ok(entry.into_path()))
        }
        Ok(_) => None,
        // A link that leads to a folder above it, or to nothing, leads to no picture.
        Err(error) if error.loop_ancestor().is_some() => None,
        Err(error) if error.path().is_some_and(Path::is_symlink) => None,
        Err(error) => Some(Err(SourceError::Io {
            path: error.path().unwrap_or(dir).to_owned(),
            source: error.into(),
        })),
    })
}

/// Whether a file of this name is taken from a folder.
pub fn is_picture_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    !is_hidden(path)
        && extension.is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
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
    fn a_folder_gives_the_pictures_below_it_by_name() {
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
    fn patterns_stand_for_files_and_folders() {
        let dir = tree(&["2023/a.png", "2024/b.png", "2024/c.jpg", "x[1].png"]);
        for (pattern, expected) in [
            ("20*/*.png", vec!["a.png", "b.png"]),
            ("202[4-9]", vec!["b.png", "c.jpg"]),
            ("**/c.*", vec!["c.jpg"]),
            ("x[1].png", vec!["x[1].png"]), // a file of that very name
        ] {
            let mut inventory = Inventory::default();
            inventory.add(&dir.path().join(pattern)).unwrap();
            assert_eq!(names(inventory), expected, "{pattern}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        let dir = tree(&[]);
        for (typed, naming) in [
            ("gone.png", "gone.png"),
            ("*.png", "no file has"),
            ("a[", "expected a file name"),
        ] {
            let error = Inventory::default()
                .add(&dir.path().join(typed))
                .unwrap_err();
            assert!(error.to_string().contains(naming), "{error}");
        }
    }

    #[test]
    fn a_list_may_name_what_is_missing() {
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
    fn copies_are_not_captioned_again() {
        let dir = tree(&["a.png", "out/a.png"]);
        let mut inventory = Inventory::new(Some(&dir.path().join("out")));
        inventory.add(dir.path()).unwrap();
        assert_eq!(names(inventory), ["a.png"]);
    }
}
