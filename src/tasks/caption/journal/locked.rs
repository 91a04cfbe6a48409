//! Opens and locks the record file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use super::JournalError;

/// Opens the file with an exclusive lock.
pub fn open_locked(path: &Path) -> Result<File, JournalError> {
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
            // Some network file systems have no locks; there the user is responsible.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Its last owner may have replaced the file before releasing the lock.
        let (here, there) = (file.metadata().map_err(fail)?, path.metadata());
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
            return Ok(file);
        }
    }
}

/// Reads a file from an offset, independently of its cursor.
pub struct OffsetReader<'a>(pub &'a File, pub u64);

impl io::Read for OffsetReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read_at(bytes, self.1)?;
        self.1 += n as u64;
        Ok(n)
    }
}
