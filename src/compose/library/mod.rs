//! A library of pictures: a directory, and beside the pictures one index file with a caption for
//! each, [`INDEX`], a SQLite database with a full-text table.
//!
//! Every caption is stored in a transaction of its own, so an interrupted run loses nothing.

mod survey;
mod terms;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
pub use survey::{Fresh, Survey};

use super::composition::Candidate;
use crate::caption::SourceError;

/// Name of the index in the library's directory.
pub const INDEX: &str = ".xc2-library.sqlite";
/// The form of the index.
const VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE picture (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,    -- from the library's directory
        size INTEGER NOT NULL,        -- bytes
        modified INTEGER NOT NULL,    -- nanoseconds since 1970
        hash TEXT NOT NULL,           -- blake3 of the file
        caption TEXT NOT NULL,
        model TEXT NOT NULL           -- who wrote the caption
    );
    CREATE INDEX picture_hash ON picture (hash);
    CREATE VIRTUAL TABLE words USING fts5 (
        terms, content='', contentless_delete=1, tokenize='porter unicode61'
    );
    PRAGMA user_version = 1;
";

/// What is wrong with a library.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LibraryError {
    /// The file system.
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The directory cannot be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No directory.
    #[error("{}: expected a directory of pictures", path.display())]
    NoDirectory { path: PathBuf },
    /// It was never indexed.
    #[error("{}: found no index `{INDEX}`", path.display())]
    NoIndex { path: PathBuf },
    /// Another program has it open for writing.
    #[error("{}: another program is writing to it", path.display())]
    Busy { path: PathBuf },
    /// It is of another version.
    #[error("{}: expected an index of version {VERSION}, found {found}", path.display())]
    Version { path: PathBuf, found: i64 },
    /// SQLite.
    #[error("{}: the index cannot be used", path.display())]
    Index {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// A directory of pictures with its index.
#[derive(Debug)]
pub struct Library {
    dir: PathBuf,
    index: Connection,
    /// Whether there was no index before.
    is_new: bool,
}

/// A picture that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The picture.
    pub file: PathBuf,
    /// What it shows.
    pub caption: String,
    /// How well that fits the words (BM25); more is better, and only the order means anything.
    pub score: f64,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    /// The best first; equal ones by name.
    pub hits: Vec<Hit>,
    /// Pictures that fit but are gone.
    pub vanished: Vec<PathBuf>,
}

impl From<Hit> for Candidate {
    fn from(hit: Hit) -> Self {
        Self {
            file: hit.file,
            caption: Some(hit.caption),
            score: Some(hit.score),
        }
    }
}

impl Library {
    /// Opens the library of `dir` for searching. What a program that was killed left half stored is
    /// removed; else nothing is written.
    ///
    /// # Errors
    /// If there is none, or the index is damaged.
    pub fn open(dir: &Path) -> Result<Self, LibraryError> {
        let path = index_path(dir)?;
        if !path.exists() {
            return Err(LibraryError::NoIndex {
                path: dir.to_owned(),
            });
        }
        // To write, if that is allowed: a transaction in which an `index` was killed is taken back.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let library = Connection::open_with_flags(&path, flags).map(|index| Self {
            dir: dir.to_owned(),
            index,
            is_new: false,
        });
        library.map_err(|e| told(&path, e))?.checked()
    }

    /// Opens the library of `dir` for writing, and makes its index if there is none.
    ///
    /// # Errors
    /// If the directory is missing or cannot be written to, or the index is damaged.
    pub fn create(dir: &Path) -> Result<Self, LibraryError> {
        let path = index_path(dir)?;
        let index = Connection::open(&path).map_err(|e| told(&path, e))?;
        let count = "SELECT count(*) FROM sqlite_schema";
        let is_new = index.query_row(count, [], |row| Ok(row.get::<_, i64>(0)? == 0));
        let is_new = is_new.map_err(|e| told(&path, e))?;
        if is_new {
            let script = format!("BEGIN; {SCHEMA} COMMIT;");
            index.execute_batch(&script).map_err(|e| told(&path, e))?;
        }
        let dir = dir.to_owned();
        Self { dir, index, is_new }.checked()
    }

    fn checked(self) -> Result<Self, LibraryError> {
        let version = self
            .index
            .query_row("PRAGMA user_version", [], |row| row.get(0));
        match version.map_err(|e| self.told(e))? {
            VERSION => Ok(self),
            found => Err(LibraryError::Version {
                path: self.dir.join(INDEX),
                found,
            }),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many pictures have a caption.
    ///
    /// # Errors
    /// If the index is damaged.
    pub fn len(&self) -> Result<usize, LibraryError> {
        let count = self
            .index
            .query_row("SELECT count(*) FROM picture", [], |row| {
                row.get::<_, i64>(0)
            });
        count.map(|n| n as usize).map_err(|e| self.told(e))
    }

    /// Whether no picture has a caption.
    ///
    /// # Errors
    /// As [`Self::len`].
    pub fn is_empty(&self) -> Result<bool, LibraryError> {
        Ok(self.len()? == 0)
    }

    /// Takes away an index that [`Self::create`] made, if no picture has come into it: a trace of a run
    /// that failed.
    pub fn discard_if_new(self) {
        if self.is_new && self.is_empty().unwrap_or(false) {
            let _ = std::fs::remove_file(self.dir.join(INDEX));
        }
    }

    /// The `most` best pictures for `words`, English or Chinese, that are there and not
    /// `excluded`. A picture is found if its caption has any of the words; the rarer ones count
    /// more.
    ///
    /// # Errors
    /// If the index is damaged.
    pub fn search(
        &self,
        words: &str,
        most: usize,
        excluded: &[PathBuf],
    ) -> Result<Search, LibraryError> {
        self.find(words, most, excluded).map_err(|e| self.told(e))
    }

    fn find(&self, words: &str, most: usize, excluded: &[PathBuf]) -> rusqlite::Result<Search> {
        let mut search = Search::default();
        let Some(query) = terms::query(words) else {
            return Ok(search);
        };
        let mut statement = self.index.prepare(
            "SELECT path, caption, -bm25(words) AS score
             FROM words JOIN picture ON picture.id = words.rowid
             WHERE words MATCH ?1 ORDER BY score DESC, path",
        )?;
        let mut rows = statement.query([query])?;
        while search.hits.len() < most {
            let Some(row) = rows.next()? else {
                break;
            };
            let hit = Hit {
                file: self.dir.join(row.get::<_, String>(0)?),
                caption: row.get(1)?,
                score: row.get(2)?,
            };
            if excluded.contains(&hit.file) {
                continue;
            }
            match hit.file.is_file() {
                true => search.hits.push(hit),
                false => search.vanished.push(hit.file),
            }
        }
        Ok(search)
    }

    /// Stores the caption of a picture that [`Self::survey`] listed; `model` is who wrote it.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn put(&mut self, picture: &Fresh, caption: &str, model: &str) -> Result<(), LibraryError> {
        let path = self.dir.join(INDEX);
        let mut put = || {
            let transaction = self.index.transaction()?;
            delete(&transaction, &picture.path)?;
            transaction.execute(
                "INSERT INTO picture (path, size, modified, hash, caption, model)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    picture.path,
                    picture.size,
                    picture.modified,
                    picture.hash,
                    caption,
                    model
                ],
            )?;
            transaction.execute(
                "INSERT INTO words (rowid, terms) VALUES (?1, ?2)",
                params![transaction.last_insert_rowid(), terms::of(caption)],
            )?;
            transaction.commit()
        };
        put().map_err(|e| told(&path, e))
    }

    fn told(&self, error: rusqlite::Error) -> LibraryError {
        told(&self.dir.join(INDEX), error)
    }
}

/// Forgets the picture at `path`.
fn delete(index: &Connection, path: &str) -> rusqlite::Result<()> {
    index.execute(
        "DELETE FROM words WHERE rowid IN (SELECT id FROM picture WHERE path = ?1)",
        [path],
    )?;
    index.execute("DELETE FROM picture WHERE path = ?1", [path])?;
    Ok(())
}

fn index_path(dir: &Path) -> Result<PathBuf, LibraryError> {
    match dir.is_dir() {
        true => Ok(dir.join(INDEX)),
        false => Err(LibraryError::NoDirectory {
            path: dir.to_owned(),
        }),
    }
}

fn told(path: &Path, source: rusqlite::Error) -> LibraryError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LibraryError::Busy { path },
        _ => LibraryError::Index { path, source },
    }
}
