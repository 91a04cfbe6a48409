//! Files beside the record file that save the lines removed from it.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use super::{
    Journal, JournalError,
    entry::{Line, caption_of},
};
use crate::tasks::caption::{Fields, layout::Layout, sidecar::MAX_NAME_BYTES};

/// Lines removed from the record file, and the files that save them.
#[derive(Clone, Debug, Default)]
pub struct SetAside {
    /// Number of bytes of a torn write, and its file.
    pub torn: Option<(u64, PathBuf)>,
    /// Number of replaced captions, and their file.
    pub replaced: Option<(usize, PathBuf)>,
}

impl Journal {
    /// Appends superseded lines to a file beside this one, if their caption or fields of a user are not in the
    /// later line.
    pub(super) fn set_replaced_aside(&mut self) -> Result<(), JournalError> {
        let (mut lines, mut n) = (self.layout.head().to_vec(), 0);
        let collected = self.for_each_line(|_, line, path| {
            let fields = self.layout.parse(line).ok().flatten();
            if let (None, Some(fields)) = (path, fields)
                && let Ok(line_entry) = Line::new(&fields, line, 0)
            {
                let last = self
                    .fields(&line_entry.path)
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                let caption = line_entry.caption.filter(|caption| !caption.is_empty());
                let is_other = caption.is_some() && caption != caption_of(&last);
                if is_other || lacks_user_fields(&last, fields) {
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
            self.set_aside.replaced = Some((n, path));
        }
        Ok(())
    }

    /// Moves a torn write at the end of the file to a new file beside it.
    pub(super) fn set_torn_aside(&mut self, torn: &[u8]) -> Result<(), JournalError> {
        let (path, mut file) = self.new_beside("torn")?;
        let written = file.write_all(torn).and_then(|()| file.sync_all());
        written.map_err(|source| JournalError::Io {
            path: path.clone(),
            source,
        })?;
        self.file.set_len(self.len).map_err(|e| self.io(e))?;
        self.set_aside.torn = Some((torn.len() as u64, path));
        Ok(())
    }

    /// A path beside the file with `.SUFFIX` appended.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.real.file_name().unwrap_or_default().to_owned();
        if name.len() + 1 + suffix.len() > MAX_NAME_BYTES {
            name = OsString::from("records");
        }
        name.push(".");
        name.push(suffix);
        self.real.with_file_name(name)
    }

    /// Creates a file beside this one with `.SUFFIX-NUMBER` appended.
    fn new_beside(&self, suffix: &str) -> Result<(PathBuf, File), JournalError> {
        let mut number = 1;
        loop {
            let path = self.beside(&format!("{suffix}-{number}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(JournalError::Io { path, source }),
                Ok(file) => return Ok((path, file)),
            }
        }
    }
}

/// Whether the `earlier` fields have one added by a user that the `last` fields lack.
fn lacks_user_fields(last: &Fields, earlier: Fields) -> bool {
    let added = Layout::added(earlier);
    let is_missing = |name| !added.is_blank(name) && last.json(name) != added.json(name);
    added.names().any(is_missing)
}
