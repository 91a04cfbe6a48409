//! Files, and directories of files, that are written whole or not at all.
//!
//! The bytes go to a hidden file beside the target, which is moved there when they are complete: a
//! reader sees the old file or the new one, and so does whoever comes after a crash. The hidden file is
//! locked as long as its process lives, so that [`Leftovers`] of a crash can be told from work in progress.
//! A directory is made in a hidden one in the same way.

mod directory;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

pub use directory::WholeDir;
use tempfile::NamedTempFile;

/// How a hidden name ends, after [`RANDOM`] letters and digits.
const ENDING: &str = ".part";
const RANDOM: usize = 6;

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
        let prefix = prefix(target);
        loop {
            let temp = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(RANDOM)
                .suffix(ENDING)
                .permissions(Permissions::from_mode(0o666)) // less the umask, as for any new file
                .tempfile_in(dir_of(target))
                .map_err(|e| io::Error::from(e.kind()))?; // its message names the temporary file
            // Where files cannot be locked, leftovers cannot be told from others, and stay.
            let _ = temp.as_file().lock();
            // Another process may have taken it for one before it was locked.
            if temp.as_file().metadata()?.nlink() > 0 {
                let target = target.to_owned();
                return Ok(Self { temp, target });
            }
        }
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

/// How the names of the target's hidden files begin.
fn prefix(target: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix
}

fn dir_of(target: &Path) -> &Path {
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Hidden files and directories of processes that were killed before they were done.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// What looks like one, by directory and by the name of its target.
    seen: HashMap<PathBuf, HashMap<OsString, Vec<PathBuf>>>,
}

impl Leftovers {
    /// Removes those of `target`, but none that a living process works on. Each directory is read once.
    pub fn clear(&mut self, target: &Path) {
        let dir = dir_of(target);
        if !self.seen.contains_key(dir) {
            self.seen.insert(dir.to_owned(), hidden_files(dir));
        }
        let hidden = self.seen.get_mut(dir);
        let name = target.file_name().unwrap_or_default();
        for path in hidden.and_then(|h| h.remove(name)).unwrap_or_default() {
            if let Err(error) = remove_if_left(&path, target) {
                tracing::debug!("{}: stays: {error}", path.display());
            }
        }
    }
}

/// The files in `dir` that are called like hidden ones, by their targets' names.
fn hidden_files(dir: &Path) -> HashMap<OsString, Vec<PathBuf>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Some(target) = target_name(&entry.file_name()) {
            found.entry(target).or_default().push(entry.path());
        }
    }
    found
}

/// The name of the target of a hidden file that is called so.
fn target_name(hidden: &OsStr) -> Option<OsString> {
    let name = hidden.as_bytes().strip_prefix(b".")?;
    let name = name.strip_suffix(ENDING.as_bytes())?;
    let (target, random) = name.split_at_checked(name.len().checked_sub(RANDOM)?)?;
    let is_ours = !target.is_empty() && random.iter().all(u8::is_ascii_alphanumeric);
    is_ours.then(|| OsString::from_vec(target.to_vec()))
}

fn remove_if_left(path: &Path, target: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        return directory::remove_if_left(path, target);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?; // held until it is gone
    fs::remove_file(path)
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
    fn leftovers_go_and_work_in_progress_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.jpg");
        let names = [
            ".a.jpgAb12xY.part", // left by a process that was killed
            ".b.jpgAb12xY.part", // of another target
            ".a.jpgAb12x.part",  // not called as ours are
            ".a.jpg.part",
            "a.jpgAb12xY.part",
        ];
        for name in names {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let mut running = WholeFile::create(&target).unwrap();
        running.write_all(b"half").unwrap();
        Leftovers::default().clear(&target);
        let left = |name: &&str| dir.path().join(name).exists();
        assert_eq!(names.iter().filter(|n| left(n)).count(), 4);
        assert!(!left(&names[0]));
        running.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"half");
        // Nothing of it is there, nor is the directory.
        Leftovers::default().clear(&dir.path().join("none/c.jpg"));
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
