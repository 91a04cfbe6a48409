//! Files, and directories of files, that are written whole or not at all.
//!
//! The bytes go to a hidden file beside the target, which is moved there when they are complete: a
//! reader sees the old file or the new one, and so does whoever comes after a crash. The hidden file is
//! locked as long as its process lives, so that [`Leftovers`] of a crash can be told from work in progress.
//! A directory is made in a hidden one in the same way.
//!
//! A hidden name is `.xc2-HASH-RANDOM.part`, 33 bytes of ASCII whatever the target is called, because a
//! target's own name may be as long as the file system allows. The hash (BLAKE3) is that of the target's
//! name: leftovers are found by it. Earlier versions wrote `.NAMERANDOM.part`; such are found as well.

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

pub use directory::AtomicDir;
use tempfile::NamedTempFile;

/// How a hidden name begins; behind it stand a hash of the target's name in hexadecimal digits and `-`.
const BEGINNING: &str = ".xc2-";
/// How a hidden name ends, after [`RANDOM`] letters and digits.
const ENDING: &str = ".part";
const RANDOM: usize = 6;
const HASH_DIGITS: usize = 16;

/// A file in the making. Dropped before [`Self::commit`], it is gone.
#[derive(Debug)]
pub struct AtomicFile {
    temp: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
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

impl Write for AtomicFile {
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
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.commit().map(drop)
}

/// How the names of the target's hidden files begin.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let hash = &hash[..HASH_DIGITS];
    format!("{BEGINNING}{hash}-")
}

/// How they began in earlier versions.
fn earlier_prefix(target: &Path) -> OsString {
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
    /// What looks like one, by directory and by the beginning of its name.
    seen: HashMap<PathBuf, HashMap<OsString, Vec<PathBuf>>>,
}

impl Leftovers {
    /// Removes those of `target`, but none that a living process works on. Each directory is read once.
    pub fn clear(&mut self, target: &Path) {
        let dir = dir_of(target);
        if !self.seen.contains_key(dir) {
            self.seen.insert(dir.to_owned(), hidden_files(dir));
        }
        let Some(hidden) = self.seen.get_mut(dir) else {
            return;
        };
        let prefixes = [prefix(target).into(), earlier_prefix(target)];
        for path in prefixes.iter().filter_map(|p| hidden.remove(p)).flatten() {
            if let Err(error) = remove_if_left(&path, target) {
                tracing::debug!("{}: stays: {error}", path.display());
            }
        }
    }
}

/// The files in `dir` that are called like hidden ones, by the beginnings of their names.
fn hidden_files(dir: &Path) -> HashMap<OsString, Vec<PathBuf>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Some(prefix) = prefix_of(&entry.file_name()) {
            found.entry(prefix).or_default().push(entry.path());
        }
    }
    found
}

/// How the name of a hidden file that is called so begins: with its target's [`prefix`].
fn prefix_of(hidden: &OsStr) -> Option<OsString> {
    let name = hidden.as_bytes().strip_suffix(ENDING.as_bytes())?;
    let (prefix, random) = name.split_at_checked(name.len().checked_sub(RANDOM)?)?;
    let is_ours = prefix.starts_with(b".") && random.iter().all(u8::is_ascii_alphanumeric);
    is_ours.then(|| OsString::from_vec(prefix.to_vec()))
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
    AtomicFile::create(target).map(drop)
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

        let mut unfinished = AtomicFile::create(&target).unwrap();
        unfinished.write_all(b"three").unwrap();
        drop(unfinished);
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        check(&target).unwrap();
        check(&dir.path().join("b.txt")).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(check(dir.path()).is_err());
    }

    /// What a killed process leaves of `target`.
    fn left_of(target: impl AsRef<Path>) -> String {
        format!("{}Ab12xY{ENDING}", prefix(target.as_ref()))
    }

    #[test]
    fn leftovers_go_and_work_in_progress_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.jpg");
        let names = [
            left_of("a.jpg"),
            ".a.jpgAb12xY.part".to_owned(), // by an earlier version
            left_of("b.jpg"),               // of another target
            ".b.jpgAb12xY.part".to_owned(),
            left_of("a.jpg").replace("Ab12xY", "A"), // not called as ours are
            left_of("a.jpg").replace(BEGINNING, "."),
            ".a.jpg.part".to_owned(),
            "a.jpgAb12xY.part".to_owned(),
        ];
        for name in &names {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let mut running = AtomicFile::create(&target).unwrap();
        running.write_all(b"half").unwrap();
        Leftovers::default().clear(&target);
        let left = |name: &&String| dir.path().join(name).exists();
        assert_eq!(names.iter().filter(left).count(), names.len() - 2);
        assert!(!left(&&names[0]) && !left(&&names[1]));
        running.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"half");
        // Nothing of it is there, nor is the directory.
        Leftovers::default().clear(&dir.path().join("none/c.jpg"));
    }

    #[test]
    fn a_name_may_be_as_long_and_as_odd_as_the_file_system_allows() {
        let dir = tempfile::tempdir().unwrap();
        let chinese = "图".repeat(85); // three bytes each
        let names: [&[u8]; 4] = [&[b'a'; 255], chinese.as_bytes(), b"caf\xe9 \n\"\t-", b"-- "];
        for name in names {
            let target = dir.path().join(std::ffi::OsStr::from_bytes(name));
            let hidden = dir.path().join(left_of(&target));
            fs::write(&hidden, "half").unwrap();
            Leftovers::default().clear(&target);
            assert!(!hidden.exists());
            check(&target).unwrap();
            write(&target, b"whole").unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"whole");
            drop(AtomicDir::create(&target).unwrap());
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len());
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
