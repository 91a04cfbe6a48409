//! What of a directory is in the index.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::{OptionalExtension, params};

use super::{Library, LibraryError, delete};
use crate::tasks::caption::{LeftOut, Selection, SourceError, Step, walk};

/// A picture that has no caption yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// The picture.
    pub file: PathBuf,
    pub(super) path: String,
    pub(super) size: i64,
    pub(super) modified: i64,
    pub(super) hash: String,
}

/// What of a directory is in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Pictures that need a caption, by name.
    pub fresh: Vec<Fresh>,
    /// Pictures that have one.
    pub known: usize,
    /// Of those, copies of pictures that have one, or moved ones.
    pub moved: usize,
    /// Captions of pictures that are gone; they are out of the index now.
    pub gone: usize,
    /// Files that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Folders that cannot be read, and why. Captions of pictures in them are kept.
    pub closed: Vec<(PathBuf, String)>,
    /// Pictures that are not looked at.
    pub left_out: LeftOut,
}

/// The files of a directory.
#[derive(Default)]
struct Listing {
    pictures: Vec<PathBuf>,
    closed: Vec<(PathBuf, String)>,
    left_out: LeftOut,
}

impl Listing {
    fn of(dir: &Path, selection: &Selection) -> Result<Self, SourceError> {
        let mut listing = Self::default();
        for step in walk(&selection.below(dir), dir) {
            match step {
                Step::Folder(_) => {}
                Step::Picture(picture) => listing.pictures.push(picture),
                Step::LeftOut(_, why) => listing.left_out.add(why),
                Step::Unreadable(SourceError::Io { path, source }) if path != dir => {
                    listing.closed.push((path, source.to_string()));
                }
                Step::Unreadable(error) => return Err(error),
            }
        }
        Ok(listing)
    }
}

impl Library {
    /// Compares the directory and all below it with the index: forgets pictures that are gone, finds
    /// those that were moved or copied, and lists those that need a caption: all, if `again`.
    ///
    /// # Errors
    /// If the directory cannot be listed or the index not be written, or [`LibraryError::OtherFiles`]
    /// if nothing of what the index has is there; nothing is forgotten then.
    pub fn survey(&mut self, again: bool) -> Result<Survey, LibraryError> {
        self.survey_of(&Selection::default(), again)
    }

    /// As [`Self::survey`], without what `selection` leaves out.
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
            closed: listing.closed,
            left_out: listing.left_out,
            ..Survey::default()
        };
        let has_pictures = !listing.pictures.is_empty();
        let known = self.paths()?;
        let mut gone: BTreeSet<_> = known.iter().cloned().collect();
        for file in listing.pictures {
            let relative = file.strip_prefix(self.dir()).unwrap_or(&file);
            let Some(path) = relative.to_str().map(str::to_owned) else {
                let why = "its name is no UTF-8".to_owned();
                survey.unreadable.push((file, why));
                continue;
            };
            gone.remove(&path);
            match self.look(file.clone(), path, again) {
                Ok(Look::Known) => survey.known += 1,
                Ok(Look::Moved) => {
                    survey.known += 1;
                    survey.moved += 1;
                }
                Ok(Look::Fresh(fresh)) => survey.fresh.push(fresh),
                Err(LibraryError::Io { source, .. }) => {
                    survey.unreadable.push((file, source.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        gone.retain(|path| !is_below_any(&self.dir().join(path), &survey.closed));
        let nothing_is_known = gone.len() == known.len() && survey.moved == 0;
        if nothing_is_known && !known.is_empty() && (self.is_elsewhere() || !has_pictures) {
            return Err(LibraryError::OtherFiles {
                dir: self.dir().to_owned(),
                index: self.path.clone(),
                n_known: known.len(),
            });
        }
        survey.gone = gone.len();
        for path in gone {
            delete(&self.index, &path).map_err(|e| self.told(e))?;
        }
        Ok(survey)
    }

    /// What is known of one picture.
    fn look(&mut self, file: PathBuf, path: String, again: bool) -> Result<Look, LibraryError> {
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
        if !again && known.optional().map_err(|e| self.told(e))?.is_some() {
            return Ok(Look::Known);
        }
        let hash = hash(&file).map_err(failed)?;
        let fresh = Fresh {
            file,
            path,
            size,
            modified,
            hash,
        };
        if again {
            return Ok(Look::Fresh(fresh));
        }
        let same = "SELECT caption, model FROM picture WHERE hash = ?1 ORDER BY path";
        let same = self
            .index
            .query_row(same, [&fresh.hash], |row| Ok((row.get(0)?, row.get(1)?)));
        match same.optional().map_err(|e| self.told(e))? {
            Some((caption, model)) => {
                let (caption, model): (String, String) = (caption, model);
                self.put(&fresh, &caption, &model)?;
                Ok(Look::Moved)
            }
            None => Ok(Look::Fresh(fresh)),
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
        paths().map_err(|e| self.told(e))
    }
}

fn is_below_any(path: &Path, closed: &[(PathBuf, String)]) -> bool {
    closed.iter().any(|(folder, _)| path.starts_with(folder))
}

enum Look {
    Known,
    Moved,
    Fresh(Fresh),
}

fn hash(file: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(file)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}
