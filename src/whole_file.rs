//! Files that are written whole or not at all.
//!
//! The bytes go to a hidden file beside the target, which is moved there when they are complete: a
//! reader sees the old file or the new one, and so does whoever comes after a crash.

use std::{
    ffi::OsString,
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A file in the making. Dropped before [`Self::commit`], it is gone.
#[derive(Debug)]
pub struct WholeFile {
    temp: NamedTempFile,
    target: PathBuf,
}

impl WholeFile {
    /// Begins a file that will stand at `target`.
    ///
    /// # Errors
    /// If no file can be made in the target's directory.
    pub fn create(target: &Path) -> io::Result<Self> {
        let mut prefix = OsString::from(".");
        prefix.push(target.file_name().unwrap_or_default());
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
        let temp = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666)) // less the umask, as for any new file
            .tempfile_in(dir.unwrap_or(Path::new(".")))
            .map_err(|e| io::Error::from(e.kind()))?; // its message names the temporary file
        Ok(Self {
            temp,
            target: target.to_owned(),
        })
    }

    /// The file as it is so far.
    pub fn file(&self) -> &File {
        self.temp.as_file()
    }

    /// Moves the file to its target, replacing what is there, and gives it back still open.
    ///
    /// # Errors
    /// If the system refuses the move.
    pub fn commit(self) -> io::Result<File> {
        self.temp.persist(&self.target).map_err(|e| e.error)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp.flush()
    }
}

/// Writes `bytes` to `target`.
///
/// # Errors
/// If the system refuses; `target` is as it was then.
pub fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = WholeFile::create(target)?;
    file.write_all(bytes)?;
    file.commit().map(drop)
}

/// Finds out whether [`write()`] could write `target`, before there is anything to write.
///
/// # Errors
/// As it would be then.
pub fn check(target: &Path) -> io::Result<()> {
    if target.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    WholeFile::create(target).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_target_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.txt");
        write(&target, b"one").unwrap();
        write(&target, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");

        let mut unfinished = WholeFile::create(&target).unwrap();
        unfinished.write_all(b"three").unwrap();
        drop(unfinished);
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        check(&target).unwrap();
        check(&dir.path().join("b.txt")).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(check(dir.path()).is_err());
    }

    #[test]
    fn the_error_is_the_systems_own() {
        let error = write(Path::new("/nowhere/at/all"), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let foreseen = check(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(foreseen.to_string(), error.to_string());
        assert!(!error.to_string().contains(".part"), "{error}");
    }
}
