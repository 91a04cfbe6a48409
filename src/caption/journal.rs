//! The file of records, which is also the memory of what is done.
//!
//! A record is appended by one write of a whole line, and nothing else is kept anywhere: a run that
//! is killed leaves at most one torn line at the end, which the next one removes. A picture that is
//! captioned again gets a further line, and only then is the earlier one dropped (by writing the
//! file anew), so that no moment exists in which a picture has no line. The last line of a path
//! counts. One process at a time may write; the file is locked.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Format, Identity, Record, Settings, format::NoRecord};
use crate::whole_file::{Leftovers, WholeFile};

/// More than any record has.
const MAX_TORN_BYTES: usize = 1 << 20;

/// The file cannot serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JournalError {
    #[error("{}: cannot be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: expected a file or nothing, found {found}", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    #[error("{}: another process is writing to it", path.display())]
    Busy { path: PathBuf },
    #[error("{}: record {number}", path.display())]
    NoRecord {
        path: PathBuf,
        number: usize,
        source: NoRecord,
    },
    #[error(
        "{}: holds captions with another {what}: expected `{expected}`, found `{found}`",
        path.display()
    )]
    OtherSettings {
        path: PathBuf,
        what: &'static str,
        expected: String,
        found: String,
    },
}

/// How a picture stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no record of it.
    New,
    /// It has changed since it was recorded.
    Changed,
    /// It has a caption.
    Captioned,
    /// It was tried and failed.
    Failed,
}

/// The file of records.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    format: Format,
    file: File,
    /// Bytes of the complete lines.
    len: u64,
    known: HashMap<String, Entry>,
    /// Lines to which a later one belongs.
    n_superseded: usize,
    torn_bytes: u64,
    /// Whether there was no file before.
    is_new: bool,
}

/// A file that was made for records that never came is no trace worth leaving.
impl Drop for Journal {
    fn drop(&mut self) {
        if self.is_new && self.known.is_empty() {
            let _ = fs::remove_file(&self.path); // it is locked, so nobody else has begun to write
        }
    }
}

/// The last record of a path.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its line begins.
    at: u64,
    identity: Identity,
    failed: bool,
}

impl Entry {
    fn new(at: u64, record: &Record) -> Self {
        Self {
            at,
            identity: record.identity(),
            failed: record.error.is_some(),
        }
    }
}

impl Journal {
    /// Opens the file at `path`, or makes it, and reads what is done. A torn last line is removed. A
    /// file that was made is gone again when this is dropped without a record.
    ///
    /// # Errors
    /// If the file cannot be written, is in use, holds something else than records, or captions
    /// that were made with other settings.
    pub fn open(path: &Path, format: Format, settings: &Settings) -> Result<Self, JournalError> {
        let is_new = !path.exists();
        let file = open_locked(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            format,
            file,
            len: 0,
            known: HashMap::new(),
            n_superseded: 0,
            torn_bytes: 0,
            is_new,
        };
        journal.read(settings)?;
        Leftovers::default().clear(path);
        journal.tidy()?;
        Ok(journal)
    }

    /// How many pictures have a record.
    pub fn n_known(&self) -> usize {
        self.known.len()
    }

    /// Bytes of the torn line that was removed when the file was opened.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// How the picture at `path` stands, which is `identity` now.
    pub fn standing(&self, path: &str, identity: Identity) -> Standing {
        match self.known.get(path) {
            None => Standing::New,
            Some(entry) if entry.identity != identity => Standing::Changed,
            Some(entry) if entry.failed => Standing::Failed,
            Some(_) => Standing::Captioned,
        }
    }

    /// The last record of the picture at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, or was changed by someone.
    pub fn record(&self, path: &str) -> Result<Option<Record>, JournalError> {
        let Some(entry) = self.known.get(path) else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let mut input = BufReader::new(&self.file);
        let read = input.seek(SeekFrom::Start(entry.at));
        let read = read.and_then(|_| self.format.read_line(&mut input, &mut line));
        read.map_err(|e| self.io(e))?;
        let record = self.format.parse(&line).map_err(|e| self.no_record(0, e))?;
        Ok(Some(record))
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If the system refuses; the file has no part of the record then, if that can be helped.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = self.format.line(record);
        self.write(line.as_bytes())?;
        let entry = Entry::new(self.len - line.len() as u64, record);
        if self.known.insert(record.path.clone(), entry).is_some() {
            self.n_superseded += 1;
        }
        Ok(())
    }

    /// Drops the lines to which a later one belongs.
    ///
    /// # Errors
    /// If the file cannot be written anew; it is as it was then.
    pub fn tidy(&mut self) -> Result<(), JournalError> {
        if self.n_superseded == 0 {
            return Ok(());
        }
        let moved = self.rewrite().map_err(|e| self.io(e))?;
        for (path, at) in moved {
            if let Some(entry) = self.known.get_mut(&path) {
                entry.at = at;
            }
        }
        self.n_superseded = 0;
        Ok(())
    }

    /// Writes the last line of every path to a new file in place of this one, and tells where the
    /// lines are now.
    fn rewrite(&mut self) -> io::Result<Vec<(String, u64)>> {
        let last: HashMap<u64, &String> = self.known.iter().map(|(path, e)| (e.at, path)).collect();
        let mut file = WholeFile::create(&self.path)?;
        file.file().lock()?; // before anyone can see it
        let mut moved = Vec::new();
        let (mut at, mut len) = (0, 0);
        let mut input = BufReader::new(&self.file);
        input.rewind()?;
        let mut output = BufWriter::new(&mut file);
        let header = self.format.header();
        output.write_all(header.as_bytes())?;
        len += header.len() as u64;
        let mut line = Vec::new();
        while self.format.read_line(&mut input, &mut line)? {
            if let Some(path) = last.get(&at) {
                output.write_all(&line)?;
                moved.push(((*path).clone(), len));
                len += line.len() as u64;
            }
            at += line.len() as u64;
            line.clear();
        }
        output.flush()?;
        drop(output);
        file.file()
            .set_permissions(self.file.metadata()?.permissions())?;
        self.file = file.commit()?;
        self.len = len;
        Ok(moved)
    }

    fn read(&mut self, settings: &Settings) -> Result<(), JournalError> {
        let file = self.file.try_clone().map_err(|e| self.io(e))?;
        let mut input = BufReader::new(file);
        let mut line = Vec::new();
        let mut number = 0;
        while self
            .format
            .read_line(&mut input, &mut line)
            .map_err(|e| self.io(e))?
        {
            let at = self.len;
            self.len += line.len() as u64;
            let is_header = at == 0 && line == self.format.header().as_bytes();
            if !is_header && !line.trim_ascii().is_empty() {
                number += 1;
                let record = self
                    .format
                    .parse(&line)
                    .map_err(|e| self.no_record(number, e))?;
                self.check(settings, &record.settings())?;
                let entry = Entry::new(at, &record);
                if self.known.insert(record.path, entry).is_some() {
                    self.n_superseded += 1;
                }
            }
            line.clear();
        }
        if !self.may_remove(&line) {
            return Err(self.no_record(number + 1, NoRecord::unfinished(&line)));
        }
        self.torn_bytes = line.len() as u64;
        self.file.set_len(self.len).map_err(|e| self.io(e))?;
        if self.len == 0 {
            self.write(self.format.header().as_bytes())?;
        }
        Ok(())
    }

    /// Whether the unfinished line at the end is what is left of a record, rather than of a file
    /// that was given by mistake.
    fn may_remove(&self, torn: &[u8]) -> bool {
        let beginning = self.format.beginning();
        let n = torn.len().min(beginning.len());
        let is_ours = self.len > 0 || torn[..n] == beginning.as_bytes()[..n];
        is_ours && torn.len() <= MAX_TORN_BYTES
    }

    fn check(&self, expected: &Settings, found: &Settings) -> Result<(), JournalError> {
        let text = |template: &Option<String>| template.clone().unwrap_or_default();
        let pairs = [
            ("model", expected.model.clone(), found.model.clone()),
            ("prompt", expected.prompt.clone(), found.prompt.clone()),
            ("template", text(&expected.template), text(&found.template)),
        ];
        match pairs
            .into_iter()
            .find(|(_, expected, found)| expected != found)
        {
            None => Ok(()),
            Some((what, expected, found)) => Err(JournalError::OtherSettings {
                path: self.path.clone(),
                what,
                expected,
                found,
            }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if let Err(error) = (&self.file).write_all(bytes) {
            let _ = self.file.set_len(self.len); // else the next run does it
            return Err(self.io(error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn no_record(&self, number: usize, source: NoRecord) -> JournalError {
        JournalError::NoRecord {
            path: self.path.clone(),
            number,
            source,
        }
    }
}

/// Opens the file for this process alone.
fn open_locked(path: &Path) -> Result<File, JournalError> {
    let fail = |source| JournalError::Io {
        path: path.to_owned(),
        source,
    };
    loop {
        if path.exists() && !path.is_file() {
            let is_dir = path.is_dir();
            return Err(JournalError::NotAFile {
                path: path.to_owned(),
                found: if is_dir {
                    "a directory"
                } else {
                    "a device or a pipe"
                },
            });
        }
        let options = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .to_owned();
        let file = options.open(path).map_err(fail)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::Busy {
                    path: path.to_owned(),
                });
            }
            // Some network file systems know no locks; there the user has to take care.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Its last holder may have put another file in its place before it let go.
        let (here, there) = (file.metadata().map_err(fail)?, path.metadata());
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests;
