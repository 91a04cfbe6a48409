//! The record file, which is also the only state of a run.
//!
//! Each record is appended as a whole line by one write, so a killed run leaves at most one torn line at the end.
//! The next run moves it to a file beside this one. A picture that is captioned again gets another line, and only
//! then the earlier one is dropped by rewriting the file, so that a picture always has a line. The last line of a
//! path counts. The file is locked: only one process may write.
//!
//! Users may correct captions in the file. Whatever other programs wrote is read as far as possible ([`Layout`],
//! `fingerprint.rs`), and kept. An invalid line ends the run. The only lines ever removed are provably torn writes
//! and superseded captions, and both are first saved beside the file.

mod entry;
mod error;
mod file_state;
mod locked;
mod reading;
mod set_aside;
mod settings_check;

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

use entry::{Entry, caption_of, present};
pub use error::JournalError;
use file_state::{FileState, wait_for_writer};
use locked::{OffsetReader, open_locked};
pub use set_aside::SetAside;
use settings_check::SettingsCheck;

/// The state of a picture according to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has no record.
    New,
    /// It has changed since it was recorded.
    Changed,
    /// It has a caption.
    Captioned,
    /// Captioning failed.
    Failed,
}

/// The record file.
#[derive(Debug)]
pub struct Journal {
    /// The path as given, for messages.
    path: PathBuf,
    /// The path with links resolved.
    real: PathBuf,
    format: Format,
    settings: Settings,
    file: File,
    layout: Layout,
    /// Length of the complete lines in bytes.
    len: u64,
    /// The state in which this process left the file.
    state: FileState,
    known: HashMap<String, Entry>,
    settings_check: SettingsCheck,
    /// Number of superseded lines.
    n_superseded: usize,
    set_aside: SetAside,
    /// Whether this process created the file.
    is_new: bool,
}

/// Removes a file created by this process if it got no records.
impl Drop for Journal {
    fn drop(&mut self) {
        let is_empty = self.known.is_empty() && FileState::of(&self.real).ok() == Some(self.state);
        if self.is_new && is_empty {
            let _ = fs::remove_file(&self.real); // it is locked, so no other process writes to it
        }
    }
}

impl Journal {
    /// Opens or creates the file at `path` and reads its records. A torn write is moved to a file beside it. A
    /// created file without records is removed on drop.
    ///
    /// # Errors
    /// If the file cannot be written, is in use, or has anything except records made with these settings. It is
    /// unchanged then.
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
            state: FileState::default(),
            known: HashMap::new(),
            settings_check: SettingsCheck::default(),
            n_superseded: 0,
            set_aside: SetAside::default(),
            is_new,
        };
        journal.read()?;
        Leftovers::default().clear(&journal.real);
        journal.tidy_if_possible()?;
        Ok(journal)
    }

    /// The number of pictures with a record.
    pub fn n_known(&self) -> usize {
        self.known.len()
    }

    /// The lines removed from the file since the last call.
    pub fn take_set_aside(&mut self) -> SetAside {
        std::mem::take(&mut self.set_aside)
    }

    /// The status of the picture at `path`, whose identity is now `identity`. `path` is written as in records
    /// ([`path_text`](crate::tasks::caption::path_text())).
    pub fn status(&self, path: &str, identity: Identity) -> Status {
        match self.known.get(path) {
            None => Status::New,
            Some(entry) if !entry.fingerprint.matches(identity) => Status::Changed,
            Some(entry) if entry.failed => Status::Failed,
            Some(_) => Status::Captioned,
        }
    }

    /// The caption of the picture at `path`, if it has one.
    ///
    /// # Errors
    /// If the file cannot be read, or another program changed it.
    pub fn caption(&self, path: &str) -> Result<Option<String>, JournalError> {
        let fields = self.fields(path)?;
        Ok(fields.and_then(|fields| caption_of(&fields)))
    }

    /// The recorded BLAKE3 of the copy of the picture at `path`, if any.
    ///
    /// # Errors
    /// As [`Self::caption`].
    pub fn copy_hash(&self, path: &str) -> Result<Option<String>, JournalError> {
        let fields = self.fields(path)?;
        Ok(fields.and_then(|fields| present(&fields, COPY)))
    }

    /// The fields of the last record of `path`.
    fn fields(&self, path: &str) -> Result<Option<Fields>, JournalError> {
        let Some(entry) = self.known.get(path) else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let mut input = BufReader::new(OffsetReader(&self.file, entry.at));
        let read = self.layout.read_line(&mut input, &mut line);
        read.map_err(|e| self.io(e))?;
        self.layout
            .parse(&line)
            .map_err(|source| self.invalid_record(0, source))
    }

    /// Appends a record. Fields that a user added to the picture's earlier record are copied.
    ///
    /// # Errors
    /// If writing fails; a partial record is removed if possible. If another program changed the file meanwhile,
    /// as [`Self::open`].
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.read_if_changed()?;
        self.complete(record.copy_blake3.is_some())?;
        let earlier = self.fields(&record.path)?.unwrap_or_default();
        let copy = earlier.text(COPY).filter(|_| record.copy_blake3.is_none());
        let mut added = Layout::added(earlier);
        if let Some(hash) = copy {
            added.set(COPY, hash); // the copy is unchanged
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

    /// Sets or removes the error in the record of a captioned picture.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn set_error(&mut self, path: &str, error: Option<&str>) -> Result<(), JournalError> {
        self.set(path, "error", error)
    }

    /// Stores in the record of a captioned picture the BLAKE3 of the copy about to be written.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn set_copy_hash(&mut self, path: &str, hash: &str) -> Result<(), JournalError> {
        self.set(path, COPY, Some(hash))
    }

    /// Sets or removes a field of the record of `path` by appending a line, if the value differs.
    fn set(&mut self, path: &str, name: &str, value: Option<&str>) -> Result<(), JournalError> {
        self.read_if_changed()?;
        self.complete(name == COPY)?;
        let Some(mut fields) = self.fields(path)? else {
            return Ok(());
        };
        if present(&fields, name).as_deref() == value {
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

    /// Adds missing columns: those that a user removed, or the one for the first copy.
    fn complete(&mut self, has_copy: bool) -> Result<(), JournalError> {
        match self.layout.with_missing_columns(has_copy) {
            Some(layout) => self.renew(layout),
            None => Ok(()),
        }
    }

    /// Drops superseded lines. Their captions are saved to a file beside this one, since a user may have written
    /// them. A file with several hard links is left unchanged, because only one of them would get the new file.
    ///
    /// # Errors
    /// If the file cannot be rewritten; it is unchanged then.
    pub fn tidy(&mut self) -> Result<(), JournalError> {
        self.read_if_changed()?;
        let has_one_name = self.file.metadata().is_ok_and(|file| file.nlink() < 2);
        if self.n_superseded > 0 && has_one_name {
            self.renew(self.layout.clone())?;
        }
        Ok(())
    }

    /// Rewrites the file in `layout`, without superseded lines.
    fn renew(&mut self, layout: Layout) -> Result<(), JournalError> {
        if self.n_superseded > 0 {
            self.set_replaced_aside()?;
        }
        self.rewrite(layout).map_err(|e| self.io(e))?;
        self.n_superseded = 0;
        Ok(())
    }

    /// As [`Self::tidy`], but tolerates write errors: superseded lines do no harm.
    ///
    /// # Errors
    /// If another program changed the file meanwhile, as [`Self::open`].
    pub fn tidy_if_possible(&mut self) -> Result<(), JournalError> {
        match self.tidy() {
            Err(JournalError::Io { path, source }) => {
                tracing::warn!(
                    "{}: superseded records cannot be removed: {source}",
                    path.display()
                );
                Ok(())
            }
            result => result,
        }
    }

    /// Calls `each` for every line with its offset, its bytes, and the path of which it is the last line, if any.
    fn for_each_line(
        &self,
        mut each: impl FnMut(u64, &[u8], Option<&str>) -> io::Result<()>,
    ) -> io::Result<()> {
        let last: HashMap<u64, &str> = self.known.iter().map(|(path, e)| (e.at, &**path)).collect();
        let mut at = self.layout.head().len() as u64;
        let mut input = BufReader::new(OffsetReader(&self.file, at));
        let mut line = Vec::new();
        while self.layout.read_line(&mut input, &mut line)? == End::Complete {
            each(at, &line, last.get(&at).copied())?;
            at += line.len() as u64;
            line.clear();
        }
        Ok(())
    }

    /// Replaces the file by a new one in `layout` with the last line of every path.
    fn rewrite(&mut self, layout: Layout) -> io::Result<()> {
        let mut file = AtomicFile::create(&self.real)?;
        file.file().lock()?; // before other processes can see it
        let mut moved = Vec::new();
        let mut len = layout.head().len() as u64;
        let mut output = BufWriter::new(&mut file);
        output.write_all(layout.head())?;
        self.for_each_line(|_, line, path| {
            if let Some(path) = path {
                let line = layout.padded(line);
                output.write_all(&line)?;
                moved.push((path.to_owned(), len));
                len += line.len() as u64;
            }
            Ok(())
        })?;
        output.flush()?;
        drop(output);
        let before = self.file.metadata()?;
        // If this fails, the file belongs to the user of this process.
        let _ = unix::fs::fchown(file.file(), Some(before.uid()), Some(before.gid()));
        file.file().set_permissions(before.permissions())?;
        file.file().sync_all()?;
        self.file = file.commit()?;
        (self.len, self.layout) = (len, layout);
        self.state = self.file.metadata()?.into();
        for (path, at) in moved {
            if let Some(entry) = self.known.get_mut(&path) {
                entry.at = at;
            }
        }
        Ok(())
    }

    /// Reads the file again if another program has written to it or replaced it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_if_changed(&mut self) -> Result<(), JournalError> {
        if FileState::of(&self.real).ok() == Some(self.state) {
            return Ok(());
        }
        wait_for_writer(&self.real);
        let _ = self.file.unlock(); // it may be the same file
        self.file = open_locked(&self.real)?;
        self.read()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if let Err(error) = self.file.write_all_at(bytes, self.len) {
            let _ = self.file.set_len(self.len); // if this fails, the next run repairs the file
            return Err(self.io(error));
        }
        self.len += bytes.len() as u64;
        self.state = self.file.metadata().map_err(|e| self.io(e))?.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
