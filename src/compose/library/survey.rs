//! What of a directory is in the index.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::{OptionalExtension, params};

use super::{Library, LibraryError, delete};
use crate::caption::pictures_below;

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
}

impl Library {
    /// Holds the directory and all below it against the index: forgets pictures that are gone,
    /// finds those that were moved or copied, and lists those that need a caption: all, if `again`.
    /// Hidden files and directories are left out.
    ///
    /// # Errors
    /// If the directory cannot be listed or the index not be written.
    pub fn survey(&mut self, again: bool) -> Result<Survey, LibraryError> {
        let files: Result<Vec<_>, _> = pictures_below(self.dir(), None).collect();
        let mut survey = Survey::default();
        let mut gone = self.paths()?;
        for file in files? {
            let relative = file.strip_prefix(self.dir()).unwrap_or(&file);
            let Some(path) = relative.to_str().map(str::to_owned) else {
                let why = "its name is no UTF-8".to_owned();
                survey.unreadable.push((file, why));
                continue;
            };
            gone.retain(|known| *known != path);
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
