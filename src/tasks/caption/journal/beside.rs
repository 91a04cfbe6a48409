//! Files beside the file of records, to which goes what is taken out of it.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use super::{
    Journal, JournalError,
    gist::{Gist, caption_of},
};
use crate::tasks::caption::{Fields, layout::Layout, sidecar::MAX_NAME_BYTES};

/// What was taken out of the file, and where it is now.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Bytes of a write that was cut short.
    pub torn: Option<(u64, PathBuf)>,
    /// Captions in place of which there are new ones.
    pub replaced: Option<(usize, PathBuf)>,
}

impl Journal {
    /// Appends the lines whose captions, or fields of a person, no later line has to a file beside this one.
    pub(super) fn keep_replaced(&mut self) -> Result<(), JournalError> {
        let (mut lines, mut n) = (self.layout.head().to_vec(), 0);
        let collected = self.for_each_line(|_, line, last_of| {
            let fields = self.layout.parse(line).ok().flatten();
            if let (None, Some(fields)) = (last_of, fields)
                && let Ok(gist) = Gist::new(&fields, line, 0)
            {
                let last = self.fields(&gist.path).ok().flatten().unwrap_or_default();
                let caption = gist.caption.filter(|caption| !caption.is_empty());
                let is_other = caption.is_some() && caption != caption_of(&last);
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

    /// Moves what is left of a write that was cut short, behind the complete lines, to a file of its own.
    pub(super) fn keep_torn(&mut self, torn: &[u8]) -> Result<(), JournalError> {
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
}

/// Whether `earlier` fields have one that a person added, and the `last` ones of the picture have not.
fn lacks_added(last: &Fields, earlier: Fields) -> bool {
    let added = Layout::added(earlier);
    let is_lacking = |name| !added.is_blank(name) && last.written(name) != added.written(name);
    added.names().any(is_lacking)
}
