//! Compares a directory with the index.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::{OptionalExtension, params};

use super::{Library, LibraryError, delete};
use crate::tasks::caption::{Selection, SkippedFiles, SourceError, Step, walk};

/// A picture that needs a caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncaptioned {
    /// The picture.
    pub file: PathBuf,
    pub(super) path: String,
    pub(super) size: i64,
    pub(super) modified: i64,
    pub(super) hash: String,
}

/// The result of comparing a directory with the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Pictures that need a caption, sorted by name.
    pub uncaptioned: Vec<Uncaptioned>,
    /// Number of pictures with a caption.
    pub known: usize,
    /// How many of `known` are moved pictures, or copies of captioned ones.
    pub moved: usize,
    /// Number of captions removed from the index because their pictures do not exist any more.
    pub removed: usize,
    /// Files that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Folders that cannot be read, and why. The captions of pictures in them are kept.
    pub unreadable_folders: Vec<(PathBuf, String)>,
    /// Files that were skipped.
    pub skipped: SkippedFiles,
}

/// The files of a directory.
#[derive(Default)]
struct Listing {
    pictures: Vec<PathBuf>,
    unreadable_folders: Vec<(PathBuf, String)>,
    skipped: SkippedFiles,
}

impl Listing {
    fn of(dir: &Path, selection: &Selection) -> Result<Self, SourceError> {
        let mut listing = Self::default();
        for step in walk(&selection.for_folder(dir), dir) {
            match step {
                Step::Folder(_) => {}
                Step::Picture(picture) => listing.pictures.push(picture),
                Step::Skipped(_, why) => listing.skipped.add(why),
                Step::Unreadable(SourceError::Io { path, source }) if path != dir => {
                    listing.unreadable_folders.push((path, source.to_string()));
                }
                Step::Unreadable(error) => return Err(error),
            }
        }
        Ok(listing)
    }
}

impl Library {
    /// Compares the directory, including subfolders, with the index: removes deleted pictures, recognizes moved
    /// and copied ones, and lists those that need a caption; with `again`, all.
    ///
    /// # Errors
    /// If the directory cannot be listed or the index cannot be written. [`LibraryError::OtherFiles`] if none of
    /// the pictures of the index exist; then nothing is removed.
    pub fn survey(&mut self, again: bool) -> Result<Survey, LibraryError> {
        self.survey_of(&Selection::default(), again)
    }

    /// As [`Self::survey`], without the files that `selection` excludes.
    ///
    /// # Errors
    /// As there.
    pub fn survey_of(
        &mut self,
        selection: &Selection,
        again: bool,
    ) -> Result<Survey, LibraryError> {
        let listing = Listing::of(self.dir(), selection)?;
        let mut survey = Survey {
            unreadable_folders: listing.unreadable_folders,
            skipped: listing.skipped,
            ..Survey::default()
        };
        let has_pictures = !listing.pictures.is_empty();
        let known = self.paths()?;
        let mut removed: BTreeSet<_> = known.iter().cloned().collect();
        for file in listing.pictures {
            let relative = file.strip_prefix(self.dir()).unwrap_or(&file);
            let Some(path) = relative.to_str().map(str::to_owned) else {
                let why = "its name is not UTF-8".to_owned();
                survey.unreadable.push((file, why));
                continue;
            };
            removed.remove(&path);
            match self.look_up(file.clone(), path, again) {
                Ok(Lookup::Known) => survey.known += 1,
                Ok(Lookup::Moved) => {
                    survey.known += 1;
                    survey.moved += 1;
                }
                Ok(Lookup::Uncaptioned(uncaptioned)) => survey.uncaptioned.push(uncaptioned),
                Err(LibraryError::Io { source, .. }) => {
                    survey.unreadable.push((file, source.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        removed.retain(|path| !is_below_any(&self.dir().join(path), &survey.unreadable_folders));
        let none_found = removed.len() == known.len() && survey.moved == 0;
        if none_found && !known.is_empty() && (self.is_elsewhere() || !has_pictures) {
            return Err(LibraryError::OtherFiles {
                dir: self.dir().to_owned(),
                index: self.path.clone(),
                n_known: known.len(),
            });
        }
        survey.removed = removed.len();
        for path in removed {
            delete(&self.index, &path).map_err(|e| self.error(e))?;
        }
        Ok(survey)
    }

    /// Looks one picture up in the index: by path, size and time, then by content.
    fn look_up(
        &mut self,
        file: PathBuf,
        path: String,
        again: bool,
    ) -> Result<Lookup, LibraryError> {
        let failed = |source| LibraryError::Io {
            path: file.clone(),
            source,
        };
        let meta = fs::metadata(&file).map_err(failed)?;
        let modified = meta
            .modified()
            .ok()
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let (size, modified) = (
            meta.len() as i64,
            modified.map_or(0, |t| t.as_nanos() as i64),
        );
        let is_known = "SELECT 1 FROM picture WHERE path = ?1 AND size = ?2 AND modified = ?3";
        let known = self
            .index
            .query_row(is_known, params![path, size, modified], |_| Ok(()));
        if !again && known.optional().map_err(|e| self.error(e))?.is_some() {
            return Ok(Lookup::Known);
        }
        let hash = hash(&file).map_err(failed)?;
        let uncaptioned = Uncaptioned {
            file,
            path,
            size,
            modified,
            hash,
        };
        if again {
            return Ok(Lookup::Uncaptioned(uncaptioned));
        }
        let same = "SELECT caption, model FROM picture WHERE hash = ?1 ORDER BY path";
        let same = self.index.query_row(same, [&uncaptioned.hash], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        match same.optional().map_err(|e| self.error(e))? {
            Some((caption, model)) => {
                let (caption, model): (String, String) = (caption, model);
                self.put(&uncaptioned, &caption, &model)?;
                Ok(Lookup::Moved)
            }
            None => Ok(Lookup::Uncaptioned(uncaptioned)),
        }
    }

    fn paths(&self) -> Result<Vec<String>, LibraryError> {
        let paths = || {
            let mut statement = self
                .index
                .prepare("SELECT path FROM picture ORDER BY path")?;
            let paths = statement.query_map([], |row| row.get(0))?;
            paths.collect::<rusqlite::Result<Vec<_>>>()
        };
        paths().map_err(|e| self.error(e))
    }
}

fn is_below_any(path: &Path, unreadable_folders: &[(PathBuf, String)]) -> bool {
    unreadable_folders
        .iter()
        .any(|(folder, _)| path.starts_with(folder))
}

enum Lookup {
    Known,
    Moved,
    Uncaptioned(Uncaptioned),
}

fn hash(file: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(file)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}
