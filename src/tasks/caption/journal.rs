//! The file of records, which is also the memory of what is done.
//!
//! A record is appended by one write of a whole line, and nothing else is kept anywhere: a run that
//! is killed leaves at most one torn line at the end. The next run moves it to a file beside this one. A
//! picture that is captioned again gets a further line, and only then is the earlier one dropped (by writing
//! the file anew), so that no moment exists in which a picture has no line. The last line of a path
//! counts. One process at a time may write; the file is locked.
//!
//! The file belongs to the person who corrects captions in it. What this program did not write is read as
//! well as it can be ([`Layout`], `fingerprint.rs`), and kept. A line that makes no sense ends the run: no line
//! is removed but a write that was provably cut short, and that, like a caption that another one replaces,
//! is kept beside the file first.

mod agreement;
mod beside;
mod error;
mod gist;
mod locked;
mod reading;
mod stamp;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    os::unix::{
        self,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::{
    Fields, Format, Identity, Record, Settings,
    format::COPY,
    layout::{End, Layout},
};
use crate::system::atomic_file::{AtomicFile, Leftovers};

use agreement::Agreement;
pub use beside::Kept;
pub use error::JournalError;
use gist::{Entry, caption_of, stated};
use locked::{Onward, open_locked};
use stamp::{Stamp, wait_for_writer};

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
    /// As it was given, for messages.
    path: PathBuf,
    /// Where it lies, behind links.
    real: PathBuf,
    format: Format,
    settings: Settings,
    file: File,
    layout: Layout,
    /// Bytes of the complete lines.
    len: u64,
    /// The file as this process left it.
    stamp: Stamp,
    known: HashMap<String, Entry>,
    agreement: Agreement,
    /// Lines to which a later one belongs.
    n_superseded: usize,
    kept: Kept,
    /// Whether there was no file before.
    is_new: bool,
}

/// A file that was made for records that never came is no trace worth leaving.
impl Drop for Journal {
    fn drop(&mut self) {
        let is_empty = self.known.is_empty() && Stamp::of(&self.real).ok() == Some(self.stamp);
        if self.is_new && is_empty {
            let _ = fs::remove_file(&self.real); // it is locked, so nobody else has begun to write
        }
    }
}

impl Journal {
    /// Opens the file at `path`, or makes it, and reads what is done. A write that was cut short is moved to
    /// a file beside it. A file that was made is gone again when this is dropped without a record.
    ///
    /// # Errors
    /// If the file cannot be written, is in use, holds something else than records, or captions
    /// that were made with other settings. It is as it was then.
    pub fn open(path: &Path, format: Format, settings: &Settings) -> Result<Self, JournalError> {
        let is_new = !path.exists();
        let file = open_locked(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            real: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            format,
            settings: settings.clone(),
            file,
            layout: Layout::ours(format),
            len: 0,
            stamp: Stamp::default(),
            known: HashMap::new(),
            agreement: Agreement::default(),
            n_superseded: 0,
            kept: Kept::default(),
            is_new,
        };
        journal.read()?;
        Leftovers::default().clear(&journal.real);
        journal.tidy_if_possible()?;
        Ok(journal)
    }

    /// How many pictures have a record.
    pub fn n_known(&self) -> usize {
        self.known.len()
    }

    /// What was taken out of the file since this was last asked.
    pub fn take_kept(&mut self) -> Kept {
        std::mem::take(&mut self.kept)
    }

    /// How the picture at `path` stands, which is `identity` now. The path is as in a record ([`path_text`](crate::tasks::caption::path_text())).
    pub fn standing(&self, path: &str, identity: Identity) -> Standing {
        match self.known.get(path) {
            None => Standing::New,
            Some(entry) if !entry.fingerprint.matches(identity) => Standing::Changed,
            Some(entry) if entry.failed => Standing::Failed,
            Some(_) => Standing::Captioned,
        }
    }

    /// The caption of the picture at `path`, if it has one.
    ///
    /// # Errors
    /// If the file cannot be read, or was changed by someone.
    pub fn caption(&self, path: &str) -> Result<Option<String>, JournalError> {
        let fields = self.fields(path)?;
        Ok(fields.and_then(|fields| caption_of(&fields)))
    }

    /// BLAKE3 of the copy that was made of the picture at `path`, if its record says so.
    ///
    /// # Errors
    /// As [`Self::caption`].
    pub fn copy_hash(&self, path: &str) -> Result<Option<String>, JournalError> {
        let fields = self.fields(path)?;
        Ok(fields.and_then(|fields| stated(&fields, COPY)))
    }

    /// The fields of the last record of `path`.
    fn fields(&self, path: &str) -> Result<Option<Fields>, JournalError> {
        let Some(entry) = self.known.get(path) else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let mut input = BufReader::new(Onward(&self.file, entry.at));
        let read = self.layout.read_line(&mut input, &mut line);
        read.map_err(|e| self.io(e))?;
        self.layout
            .parse(&line)
            .map_err(|source| self.no_record(0, source))
    }

    /// Adds a record. Fields that a person added to the picture's earlier one are taken over.
    ///
    /// # Errors
    /// If the system refuses; the file has no part of the record then, if that can be helped. If somebody
    /// else changed the file meanwhile, as [`Self::open`].
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.read_if_changed()?;
        self.complete(record.copy_blake3.is_some())?;
        let earlier = self.fields(&record.path)?.unwrap_or_default();
        let copy = earlier.text(COPY).filter(|_| record.copy_blake3.is_none());
        let mut added = Layout::added(earlier);
        if let Some(hash) = copy {
            added.set(COPY, hash); // the copy is still the one that was made then
        }
        let entry = Entry {
            at: self.len,
            fingerprint: record.identity().into(),
            failed: record.error.is_some(),
        };
        self.write(self.layout.line(record, added).as_bytes())?;
        if self.known.insert(record.path.clone(), entry).is_some() {
            self.n_superseded += 1;
        }
        Ok(())
    }

    /// Notes in the record of a captioned picture that something else failed, or nothing any more.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn set_error(&mut self, path: &str, error: Option<&str>) -> Result<(), JournalError> {
        self.set(path, "error", error)
    }

    /// Notes in the record of a captioned picture the BLAKE3 of the copy that is about to be made.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn set_copy_hash(&mut self, path: &str, hash: &str) -> Result<(), JournalError> {
        self.set(path, COPY, Some(hash))
    }

    /// Sets a field of the record of `path`, or takes it out, by a further line, if it is another one.
    fn set(&mut self, path: &str, name: &str, value: Option<&str>) -> Result<(), JournalError> {
        self.read_if_changed()?;
        self.complete(name == COPY)?;
        let Some(mut fields) = self.fields(path)? else {
            return Ok(());
        };
        if stated(&fields, name).as_deref() == value {
            return Ok(());
        }
        match value {
            Some(value) => fields.set(name, value),
            None => fields.remove(name),
        }
        let at = self.len;
        self.write(self.layout.line_of(&fields).as_bytes())?;
        if let Some(entry) = self.known.get_mut(path) {
            entry.at = at;
            self.n_superseded += 1;
        }
        Ok(())
    }

    /// Adds the columns that a record needs: one that a person removed, or the first for a copy.
    fn complete(&mut self, has_copy: bool) -> Result<(), JournalError> {
        match self.layout.completed(has_copy) {
            Some(completed) => self.renew(completed),
            None => Ok(()),
        }
    }

    /// Drops the lines to which a later one belongs. Captions in them go to a file beside this one: they may
    /// be a person's. A file with several names stays as it is, since only one of them would get the new one.
    ///
    /// # Errors
    /// If the file cannot be written anew; it is as it was then.
    pub fn tidy(&mut self) -> Result<(), JournalError> {
        self.read_if_changed()?;
        let has_one_name = self.file.metadata().is_ok_and(|file| file.nlink() < 2);
        if self.n_superseded > 0 && has_one_name {
            self.renew(self.layout.clone())?;
        }
        Ok(())
    }

    /// Writes the file anew as `layout` has it, without the lines to which a later one belongs.
    fn renew(&mut self, layout: Layout) -> Result<(), JournalError> {
        if self.n_superseded > 0 {
            self.keep_replaced()?;
        }
        self.rewrite(layout).map_err(|e| self.io(e))?;
        self.n_superseded = 0;
        Ok(())
    }

    /// The same where it can be done: nothing is wrong with a file that has more lines than it needs.
    ///
    /// # Errors
    /// If somebody else changed the file meanwhile, as [`Self::open`].
    pub fn tidy_if_possible(&mut self) -> Result<(), JournalError> {
        match self.tidy() {
            Err(JournalError::Io { path, source }) => {
                tracing::warn!("{}: earlier records stay in it: {source}", path.display());
                Ok(())
            }
            done => done,
        }
    }

    /// Every line with a record: where it begins, its bytes, and whether it is the last of its path.
    fn for_each_line(
        &self,
        mut each: impl FnMut(u64, &[u8], Option<&str>) -> io::Result<()>,
    ) -> io::Result<()> {
        let last: HashMap<u64, &str> = self.known.iter().map(|(path, e)| (e.at, &**path)).collect();
        let mut at = self.layout.head().len() as u64;
        let mut input = BufReader::new(Onward(&self.file, at));
        let mut line = Vec::new();
        while self.layout.read_line(&mut input, &mut line)? == End::Complete {
            each(at, &line, last.get(&at).copied())?;
            at += line.len() as u64;
            line.clear();
        }
        Ok(())
    }

    /// Writes the last line of every path, as `layout` has it, to a new file in place of this one.
    fn rewrite(&mut self, layout: Layout) -> io::Result<()> {
        let mut file = AtomicFile::create(&self.real)?;
        file.file().lock()?; // before anyone can see it
        let mut moved = Vec::new();
        let mut len = layout.head().len() as u64;
        let mut output = BufWriter::new(&mut file);
        output.write_all(layout.head())?;
        self.for_each_line(|_, line, last_of| {
            if let Some(path) = last_of {
                let line = layout.filled(line);
                output.write_all(&line)?;
                moved.push((path.to_owned(), len));
                len += line.len() as u64;
            }
            Ok(())
        })?;
        output.flush()?;
        drop(output);
        let before = self.file.metadata()?;
        // Where the system refuses, the file belongs to whoever runs this.
        let _ = unix::fs::fchown(file.file(), Some(before.uid()), Some(before.gid()));
        file.file().set_permissions(before.permissions())?;
        file.file().sync_all()?;
        self.file = file.commit()?;
        (self.len, self.layout) = (len, layout);
        self.stamp = self.file.metadata()?.into();
        for (path, at) in moved {
            if let Some(entry) = self.known.get_mut(&path) {
                entry.at = at;
            }
        }
        Ok(())
    }

    /// Reads the file again if somebody else has written to it, or put another one in its place.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_if_changed(&mut self) -> Result<(), JournalError> {
        if Stamp::of(&self.real).ok() == Some(self.stamp) {
            return Ok(());
        }
        wait_for_writer(&self.real);
        let _ = self.file.unlock(); // it may be the same file
        self.file = open_locked(&self.real)?;
        self.read()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if let Err(error) = self.file.write_all_at(bytes, self.len) {
            let _ = self.file.set_len(self.len); // else the next run does it
            return Err(self.io(error));
        }
        self.len += bytes.len() as u64;
        self.stamp = self.file.metadata().map_err(|e| self.io(e))?.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
