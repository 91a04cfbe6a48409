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

mod gist;
mod stamp;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::{
        self,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::{
    Format, Identity, Record, Settings,
    format::NoRecord,
    layout::{End, Fields, Layout, Tail},
    sidecar::MAX_NAME_BYTES,
};
use gist::{Entry, Gist, text_of};
use stamp::{Stamp, wait_for_writer};

use crate::{
    text::{self, TextError},
    whole_file::{Leftovers, WholeFile},
};

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
    /// The file, or a line of it, is no UTF-8 text.
    #[error("{}", path.display())]
    Text { path: PathBuf, source: TextError },
    #[error("{}: line {line}", path.display())]
    NoRecord {
        path: PathBuf,
        line: usize,
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
    /// Lines to which a later one belongs.
    n_superseded: usize,
    kept: Kept,
    /// Whether there was no file before.
    is_new: bool,
}

/// What was taken out of the file, and where it is now.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Bytes of a write that was cut short.
    pub torn: Option<(u64, PathBuf)>,
    /// Captions in place of which there are new ones.
    pub replaced: Option<(usize, PathBuf)>,
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

    /// How the picture at `path` stands, which is `identity` now. The path is as in a record ([`path_text`](crate::caption::path_text())).
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
        Ok(fields.and_then(|fields| text_of(&fields, "caption")))
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
        self.complete()?;
        let added = self
            .fields(&record.path)?
            .map(Layout::added)
            .unwrap_or_default();
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
        self.read_if_changed()?;
        self.complete()?;
        let Some(mut fields) = self.fields(path)? else {
            return Ok(());
        };
        let noted = text_of(&fields, "error").filter(|error| !error.is_empty());
        if noted.as_deref() == error {
            return Ok(());
        }
        match error {
            Some(error) => fields.insert("error".to_owned(), error.into()),
            None => fields.shift_remove("error"),
        };
        let at = self.len;
        self.write(self.layout.line_of(&fields).as_bytes())?;
        if let Some(entry) = self.known.get_mut(path) {
            entry.at = at;
            self.n_superseded += 1;
        }
        Ok(())
    }

    /// Adds the columns that a record needs and a person removed.
    fn complete(&mut self) -> Result<(), JournalError> {
        match self.layout.completed() {
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

    /// Appends the lines whose captions, or fields of a person, no later line has to a file beside this one.
    fn keep_replaced(&mut self) -> Result<(), JournalError> {
        let (mut lines, mut n) = (self.layout.head().to_vec(), 0);
        let collected = self.for_each_line(|_, line, last_of| {
            let fields = self.layout.parse(line).ok().flatten();
            if let (None, Some(fields)) = (last_of, fields)
                && let Ok(gist) = Gist::new(&fields, line, 0)
            {
                let last = self.fields(&gist.path).ok().flatten().unwrap_or_default();
                let caption = gist.caption.filter(|caption| !caption.is_empty());
                let is_other = caption.is_some() && caption != text_of(&last, "caption");
                if is_other || lacks_added(&last, fields) {
                    lines.extend(line);
                    n += 1;
                }
            }
            Ok(())
        });
        collected.map_err(|e| self.io(e))?;
        if n > 0 {
            let path = self.beside("replaced");
            let written = OpenOptions::new().create(true).append(true).open(&path);
            let written = written.and_then(|mut file| {
                file.write_all(&lines)?;
                file.sync_all()
            });
            written.map_err(|source| JournalError::Io {
                path: path.clone(),
                source,
            })?;
            self.kept.replaced = Some((n, path));
        }
        Ok(())
    }

    /// Writes the last line of every path, as `layout` has it, to a new file in place of this one.
    fn rewrite(&mut self, layout: Layout) -> io::Result<()> {
        let mut file = WholeFile::create(&self.real)?;
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

    fn read(&mut self) -> Result<(), JournalError> {
        (self.len, self.n_superseded) = (0, 0);
        self.known.clear();
        let file = self.file.try_clone().map_err(|e| self.io(e))?;
        let mut input = BufReader::new(Onward(&file, 0));
        let begun = input.fill_buf().map(text::refuse_wide);
        begun
            .map_err(|e| self.io(e))?
            .map_err(|e| self.no_text(e))?;
        let layout = Layout::read(self.format, &mut input).map_err(|e| self.io(e))?;
        match layout.map_err(|source| self.no_record(1, source))? {
            Some(layout) => self.layout = layout,
            None => return self.begin(),
        }
        self.len = self.layout.head().len() as u64;
        if let Some(end) = self.layout.end_head() {
            self.write(end.as_bytes())?;
        }
        let mut number = 1 + n_lines(self.layout.head());
        let mut line = Vec::new();
        let end = loop {
            match self
                .layout
                .read_line(&mut input, &mut line)
                .map_err(|e| self.io(e))?
            {
                End::Complete => self.take(&line, number)?,
                end => break end,
            }
            if number == 1 {
                self.layout.note_end_of_line(&line);
            }
            number += n_lines(&line);
            line.clear();
        };
        self.finish(&line, end, number)?;
        self.stamp = self.file.metadata().map_err(|e| self.io(e))?.into();
        Ok(())
    }

    /// Begins a file that is empty, or in which the header was cut short.
    fn begin(&mut self) -> Result<(), JournalError> {
        let len = self.file.metadata().map_err(|e| self.io(e))?.len();
        self.layout = Layout::ours(self.format);
        if len > 0 {
            let torn = fs::read(&self.real).map_err(|e| self.io(e))?;
            self.keep_torn(&torn)?;
        }
        self.write(self.format.header().as_bytes())
    }

    /// Takes a line into account.
    fn take(&mut self, line: &[u8], number: usize) -> Result<(), JournalError> {
        if std::str::from_utf8(line).is_err() {
            let offset = usize::try_from(self.len).unwrap_or(usize::MAX);
            return Err(self.no_text(text::not_utf8(line, number, offset)));
        }
        let parsed = self
            .layout
            .parse(line)
            .map_err(|source| self.no_record(number, source))?;
        if let Some(fields) = parsed {
            let gist = Gist::new(&fields, line, self.len);
            let gist = gist.map_err(|source| self.no_record(number, source))?;
            self.check(&fields)?;
            if self.known.insert(gist.path, gist.entry).is_some() {
                self.n_superseded += 1;
            }
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Sees to the last line, which has no line feed.
    fn finish(&mut self, line: &[u8], end: End, number: usize) -> Result<(), JournalError> {
        let n_whole = match self.layout.tail(line, end) {
            Tail::Whole => line.len(),
            Tail::Torn(at) => at,
            Tail::Unknown(_) if std::str::from_utf8(line).is_err() => line.len(), // see `take`
            Tail::Unknown(source) => {
                let n_before = match end {
                    End::InQuotes(at) => n_lines(&line[..at]),
                    _ => 0,
                };
                return Err(self.no_record(number + n_before, source));
            }
        };
        let (whole, torn) = line.split_at(n_whole);
        self.take(whole, number)?;
        if !torn.is_empty() {
            self.keep_torn(torn)?;
        }
        if !whole.is_empty() {
            self.write(self.layout.end_of_line().as_bytes())?;
        }
        Ok(())
    }

    /// Moves what is left of a write that was cut short, behind the complete lines, to a file of its own.
    fn keep_torn(&mut self, torn: &[u8]) -> Result<(), JournalError> {
        let (path, mut file) = self.new_beside("torn")?;
        let written = file.write_all(torn).and_then(|()| file.sync_all());
        written.map_err(|source| JournalError::Io {
            path: path.clone(),
            source,
        })?;
        self.file.set_len(self.len).map_err(|e| self.io(e))?;
        self.kept.torn = Some((torn.len() as u64, path));
        Ok(())
    }

    /// A path beside the file that ends in `.ENDING`.
    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.real.file_name().unwrap_or_default().to_owned();
        if name.len() + 1 + ending.len() > MAX_NAME_BYTES {
            name = OsString::from("records");
        }
        name.push(".");
        name.push(ending);
        self.real.with_file_name(name)
    }

    /// A new file beside this one that ends in `.ENDING-NUMBER`.
    fn new_beside(&self, ending: &str) -> Result<(PathBuf, File), JournalError> {
        let mut number = 1;
        loop {
            let path = self.beside(&format!("{ending}-{number}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(JournalError::Io { path, source }),
                Ok(file) => return Ok((path, file)),
            }
        }
    }

    /// Whether the record was made as further ones will be. What a record does not say, because a person
    /// left it out, is no contradiction.
    fn check(&self, fields: &Fields) -> Result<(), JournalError> {
        // An editor may have changed the line breaks in a prompt, too.
        let plain = |text: &str| text.replace("\r\n", "\n");
        let found = |name: &str| text_of(fields, name).map(|text| plain(&text));
        let said = |name: &str| found(name).filter(|text| !text.is_empty());
        let (model, prompt) = (said("model"), said("prompt"));
        // An empty template is one that is not there, unless the whole line is a person's.
        let says_template = match self.format {
            Format::Jsonl => model.is_some() || prompt.is_some(),
            Format::Csv => (model.is_some() || prompt.is_some()) && fields.contains_key("template"),
        };
        let template = says_template.then(|| found("template").unwrap_or_default());
        let own_template = self.settings.template.clone().unwrap_or_default();
        let pairs = [
            ("model", &self.settings.model, model),
            ("prompt", &self.settings.prompt, prompt),
            ("template", &own_template, template),
        ];
        for (what, expected, found) in pairs {
            if let Some(found) = found.filter(|found| *found != plain(expected)) {
                return Err(JournalError::OtherSettings {
                    path: self.path.clone(),
                    what,
                    expected: expected.clone(),
                    found,
                });
            }
        }
        Ok(())
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

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn no_text(&self, source: TextError) -> JournalError {
        JournalError::Text {
            path: self.path.clone(),
            source,
        }
    }

    fn no_record(&self, line: usize, source: NoRecord) -> JournalError {
        JournalError::NoRecord {
            path: self.path.clone(),
            line,
            source,
        }
    }
}

/// What is in a file from some byte on, whoever else reads it.
struct Onward<'a>(&'a File, u64);

impl io::Read for Onward<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read_at(bytes, self.1)?;
        self.1 += n as u64;
        Ok(n)
    }
}

/// Whether `earlier` fields have one that a person added, and the `last` ones of the picture have not.
fn lacks_added(last: &Fields, earlier: Fields) -> bool {
    Layout::added(earlier).iter().any(|(name, value)| {
        let is_empty = value.is_null() || value.as_str() == Some("");
        !is_empty && last.get(name) != Some(value)
    })
}

fn n_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
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
