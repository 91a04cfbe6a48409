//! A library of pictures: a directory, and an index file with a caption for each picture. The index is a SQLite
//! database with a full-text table, [`INDEX`] in the directory or any other file. Its paths are relative to the
//! directory, which may be moved or mounted elsewhere.
//!
//! Every caption is stored in its own transaction, so an interrupted run loses nothing.

mod absence;
mod survey;
mod terms;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use absence::Absence;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
pub use survey::{Survey, Uncaptioned};

use super::composition::Candidate;
use crate::{system::atomic_file, tasks::caption::SourceError};

/// Name of the index in the library's directory.
pub const INDEX: &str = ".xc2-library.sqlite";
/// Version of the index format.
const VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE picture (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,    -- from the library's directory
        size INTEGER NOT NULL,        -- bytes
        modified INTEGER NOT NULL,    -- nanoseconds since 1970
        hash TEXT NOT NULL,           -- blake3 of the file
        caption TEXT NOT NULL,
        model TEXT NOT NULL           -- model that wrote the caption
    );
    CREATE INDEX picture_hash ON picture (hash);
    CREATE VIRTUAL TABLE words USING fts5 (
        terms, content='', contentless_delete=1, tokenize='porter unicode61'
    );
    PRAGMA user_version = 1;
";

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LibraryError {
    /// A file system error.
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The directory cannot be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Not a directory.
    #[error("{}: expected a directory of pictures", path.display())]
    NoDirectory { path: PathBuf },
    /// The directory has no index.
    #[error("{}: found no index `{}`", dir.display(), index.strip_prefix(dir).unwrap_or(index).display())]
    NoIndex { dir: PathBuf, index: PathBuf },
    /// The index cannot be created or changed there.
    #[error("{}: is read-only for this user, the index cannot be written", path.display())]
    ReadOnly {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is not an index.
    #[error("{}: expected an index that `xc2-edge index` created, or nothing, found another file", path.display())]
    NotAnIndex { path: PathBuf },
    /// The directory has none of the pictures of the index.
    #[error(
        "{}: expected the pictures of the index {}, found none of its {n_known}",
        dir.display(),
        index.display()
    )]
    OtherFiles {
        dir: PathBuf,
        index: PathBuf,
        n_known: usize,
    },
    /// Another program is writing to it.
    #[error("{}: another program is writing to it", path.display())]
    Busy { path: PathBuf },
    /// Its version is not supported.
    #[error("{}: expected an index of version {VERSION}, found {found}", path.display())]
    Version { path: PathBuf, found: i64 },
    /// A SQLite error.
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
    /// Path of the index.
    path: PathBuf,
    index: Connection,
    /// Whether this run created the index.
    is_new: bool,
}

/// A picture that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The picture.
    pub file: PathBuf,
    /// Its caption.
    pub caption: String,
    /// Relevance (BM25); more is better. Only the order within one search is meaningful.
    pub score: f64,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    /// Best first; ties sorted by name.
    pub hits: Vec<Hit>,
    /// Pictures that match but cannot be used; [`Absence::of`] says why.
    pub missing: Vec<PathBuf>,
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
    /// Opens the library of `dir` for searching. Writes nothing, except that an unfinished transaction of a
    /// killed program is rolled back.
    ///
    /// # Errors
    /// If there is none, or the index is damaged.
    pub fn open(dir: &Path) -> Result<Self, LibraryError> {
        Self::open_at(dir, &dir.join(INDEX))
    }

    /// As [`Self::open`], with the index in the file `index`.
    ///
    /// # Errors
    /// As there, and if the file is not an index.
    pub fn open_at(dir: &Path, index: &Path) -> Result<Self, LibraryError> {
        let path = index_path(dir, index)?;
        if !path.exists() {
            return Err(LibraryError::NoIndex {
                dir: dir.to_owned(),
                index: path,
            });
        }
        // For writing if permitted, to roll back the transaction of a killed `index`.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags);
        Self::new(dir, path, opened, false)?.checked()
    }

    /// Opens the library of `dir` for writing; creates its index if there is none.
    ///
    /// # Errors
    /// If the directory is missing or cannot be written to, or the index is damaged.
    pub fn create(dir: &Path) -> Result<Self, LibraryError> {
        Self::create_at(dir, &dir.join(INDEX))
    }

    /// As [`Self::create`], with the index in the file `index`.
    ///
    /// # Errors
    /// As there, and if the file is not an index.
    pub fn create_at(dir: &Path, index: &Path) -> Result<Self, LibraryError> {
        let path = index_path(dir, index)?;
        check_writable(&path)?;
        let library = Self::new(dir, path.clone(), Connection::open(&path), true)?;
        let count = "SELECT count(*) FROM sqlite_schema";
        let n_tables = library
            .index
            .query_row(count, [], |row| row.get::<_, i64>(0));
        if n_tables.map_err(|e| library.error(e))? > 0 {
            return Self {
                is_new: false,
                ..library
            }
            .checked();
        }
        let script = format!("BEGIN; {SCHEMA} COMMIT;");
        let created = library.index.execute_batch(&script);
        created.map_err(|e| library.error(e))?;
        Ok(library)
    }

    fn new(
        dir: &Path,
        path: PathBuf,
        opened: rusqlite::Result<Connection>,
        is_new: bool,
    ) -> Result<Self, LibraryError> {
        Ok(Self {
            dir: dir.to_owned(),
            index: opened.map_err(|e| index_error(dir, &path, e))?,
            path,
            is_new,
        })
    }

    /// Checks that the database is an index of this version. Any other database is left unchanged.
    fn checked(self) -> Result<Self, LibraryError> {
        let version = self
            .index
            .query_row("PRAGMA user_version", [], |row| row.get(0));
        let version = version.map_err(|e| self.error(e))?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('picture', 'words')";
        let tables = self.index.query_row(tables, [], |row| row.get::<_, i64>(0));
        let is_ours = tables.map_err(|e| self.error(e))? == 2;
        match version {
            VERSION if is_ours => Ok(self),
            _ if self.is_elsewhere() && !is_ours => {
                Err(LibraryError::NotAnIndex { path: self.path })
            }
            found => Err(LibraryError::Version {
                path: self.path,
                found,
            }),
        }
    }

    /// Whether the index is not [`INDEX`] in the directory.
    fn is_elsewhere(&self) -> bool {
        self.path != self.dir.join(INDEX)
    }

    /// The path of the index.
    pub fn index(&self) -> &Path {
        &self.path
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number of pictures with a caption.
    ///
    /// # Errors
    /// If the index is damaged.
    pub fn len(&self) -> Result<usize, LibraryError> {
        let count = self
            .index
            .query_row("SELECT count(*) FROM picture", [], |row| {
                row.get::<_, i64>(0)
            });
        count.map(|n| n as usize).map_err(|e| self.error(e))
    }

    /// Whether no picture has a caption.
    ///
    /// # Errors
    /// As [`Self::len`].
    pub fn is_empty(&self) -> Result<bool, LibraryError> {
        Ok(self.len()? == 0)
    }

    /// Deletes an empty index that [`Self::create`] created: the leftover of a failed run.
    pub fn discard_if_new(self) {
        if self.is_new && self.is_empty().unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The `most` best pictures for `words`, English or Chinese, that exist and are not `excluded`. A picture
    /// matches if its caption has any of the words; rarer words count more.
    ///
    /// # Errors
    /// If the index is damaged.
    pub fn search(
        &self,
        words: &str,
        most: usize,
        excluded: &[PathBuf],
    ) -> Result<Search, LibraryError> {
        self.find(words, most, excluded).map_err(|e| self.error(e))
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
                false => search.missing.push(hit.file),
            }
        }
        Ok(search)
    }

    /// Stores the caption of a picture that [`Self::survey`] listed; `model` wrote it.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn put(
        &mut self,
        picture: &Uncaptioned,
        caption: &str,
        model: &str,
    ) -> Result<(), LibraryError> {
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
        let result = put();
        result.map_err(|e| self.error(e))
    }

    fn error(&self, source: rusqlite::Error) -> LibraryError {
        index_error(&self.dir, &self.path, source)
    }
}

/// Deletes the picture at `path` from the index.
fn delete(index: &Connection, path: &str) -> rusqlite::Result<()> {
    index.execute(
        "DELETE FROM words WHERE rowid IN (SELECT id FROM picture WHERE path = ?1)",
        [path],
    )?;
    index.execute("DELETE FROM picture WHERE path = ?1", [path])?;
    Ok(())
}

fn index_path(dir: &Path, index: &Path) -> Result<PathBuf, LibraryError> {
    match dir.is_dir() {
        true => Ok(index.to_owned()),
        false => Err(LibraryError::NoDirectory {
            path: dir.to_owned(),
        }),
    }
}

/// SQLite needs a journal beside the file; its own error does not say which path is read-only.
fn check_writable(index: &Path) -> Result<(), LibraryError> {
    let error = |path: &Path, source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                LibraryError::ReadOnly { path, source }
            }
            _ => LibraryError::Io { path, source },
        }
    };
    let dir = index.parent().filter(|dir| !dir.as_os_str().is_empty());
    atomic_file::check(index).map_err(|source| match source.kind() {
        io::ErrorKind::IsADirectory => error(index, source),
        _ => error(dir.unwrap_or(Path::new(".")), source),
    })?;
    if index.exists() {
        let opened = fs::OpenOptions::new().append(true).open(index);
        opened.map_err(|source| error(index, source))?;
    }
    Ok(())
}

fn index_error(dir: &Path, path: &Path, source: rusqlite::Error) -> LibraryError {
    let is_ours = path == dir.join(INDEX);
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LibraryError::Busy { path },
        Some(ErrorCode::NotADatabase) if !is_ours => LibraryError::NotAnIndex { path },
        _ => LibraryError::Index { path, source },
    }
}
