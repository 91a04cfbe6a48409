//! Atomic replacement of files and directories.
//!
//! The bytes go to a hidden file beside the target. When they are complete, the file is renamed to the target:
//! readers, also after a crash, see either the old file or the new one. The hidden file stays locked while its process
//! lives, which distinguishes [`Leftovers`] of a crash from work in progress. A directory is built inside a hidden
//! directory in the same way.
//!
//! A hidden name is `.xc2-HASH-RANDOM_LEN.part`: 33 bytes of ASCII for every target, because the target's own name may
//! already be as long as the file system allows. HASH is the BLAKE3 hash of the target's name and serves to find
//! leftovers. Earlier versions used `.NAMERANDOM.part`; those are found as well.

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

/// Start of a hidden name. The hash of the target's name in hexadecimal digits and `-` follow.
const NAME_PREFIX: &str = ".xc2-";
/// End of a hidden name, after [`RANDOM_LEN`] letters and digits.
const NAME_SUFFIX: &str = ".part";
const RANDOM_LEN: usize = 6;
const HASH_DIGITS: usize = 16;

/// An unfinished file. Dropping it before [`Self::commit`] deletes it.
#[derive(Debug)]
pub struct AtomicFile {
    temp: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will replace `target`.
    ///
    /// # Errors
    /// If no file can be created in the target's directory.
    pub fn create(target: &Path) -> io::Result<Self> {
        let prefix = prefix(target);
        loop {
            let temp = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(RANDOM_LEN)
                .suffix(NAME_SUFFIX)
                .permissions(Permissions::from_mode(0o666)) // less the umask, as for any new file
                .tempfile_in(dir_of(target))
                .map_err(|e| io::Error::from(e.kind()))?; // the original message names the temporary file
            // Where files cannot be locked, leftovers are not recognised and stay.
            let _ = temp.as_file().lock();
            // Before it was locked, another process may have removed it as a leftover.
            if temp.as_file().metadata()?.nlink() > 0 {
                let target = target.to_owned();
                return Ok(Self { temp, target });
            }
        }
    }

    /// The unfinished file.
    pub fn file(&self) -> &File {
        self.temp.as_file()
    }

    /// Renames the file to its target, replacing what is there. Returns the open file.
    ///
    /// # Errors
    /// If the rename fails.
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
/// If writing fails; `target` is unchanged then.
pub fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.commit().map(drop)
}

/// Prefix of the names of the target's hidden files.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let hash = &hash[..HASH_DIGITS];
    format!("{NAME_PREFIX}{hash}-")
}

/// The prefix in earlier versions.
fn legacy_prefix(target: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix
}

fn dir_of(target: &Path) -> &Path {
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Hidden files and directories that killed processes left behind.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Candidates by directory and name prefix.
    candidates: HashMap<PathBuf, HashMap<OsString, Vec<PathBuf>>>,
}

impl Leftovers {
    /// Removes the leftovers of `target`, except those that a running process has locked. Each directory is read once.
    pub fn clear(&mut self, target: &Path) {
        let dir = dir_of(target);
        if !self.candidates.contains_key(dir) {
            self.candidates.insert(dir.to_owned(), hidden_files(dir));
        }
        let Some(hidden) = self.candidates.get_mut(dir) else {
            return;
        };
        let prefixes = [prefix(target).into(), legacy_prefix(target)];
        for path in prefixes.iter().filter_map(|p| hidden.remove(p)).flatten() {
            if let Err(error) = remove_if_stale(&path, target) {
                tracing::debug!("{}: leftover not removed: {error}", path.display());
            }
        }
    }
}

/// Files in `dir` with hidden names, by prefix.
fn hidden_files(dir: &Path) -> HashMap<OsString, Vec<PathBuf>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Some(prefix) = prefix_of(&entry.file_name()) {
            found.entry(prefix).or_default().push(entry.path());
        }
    }
    found
}

/// The [`prefix`] in a hidden name; `None` for other names.
fn prefix_of(hidden: &OsStr) -> Option<OsString> {
    let name = hidden.as_bytes().strip_suffix(NAME_SUFFIX.as_bytes())?;
    let (prefix, random) = name.split_at_checked(name.len().checked_sub(RANDOM_LEN)?)?;
    let is_ours = prefix.starts_with(b".") && random.iter().all(u8::is_ascii_alphanumeric);
    is_ours.then(|| OsString::from_vec(prefix.to_vec()))
}

fn remove_if_stale(path: &Path, target: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        return directory::remove_if_stale(path, target);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?; // the lock lasts until the file is removed
    fs::remove_file(path)
}

/// Checks that [`write()`] could write `target`, before there is anything to write.
///
/// # Errors
/// The error that [`write()`] would return.
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
    fn writing_replaces_the_target_and_leaves_no_other_file() {
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

    /// Name of a leftover of `target`.
    fn leftover(target: impl AsRef<Path>) -> String {
        format!("{}Ab12xY{NAME_SUFFIX}", prefix(target.as_ref()))
    }

    #[test]
    fn leftovers_are_removed_and_locked_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.jpg");
        let names = [
            leftover("a.jpg"),
            ".a.jpgAb12xY.part".to_owned(), // from an earlier version
            leftover("b.jpg"),              // of another target
            ".b.jpgAb12xY.part".to_owned(),
            leftover("a.jpg").replace("Ab12xY", "A"), // not a hidden name
            leftover("a.jpg").replace(NAME_PREFIX, "."),
            ".a.jpg.part".to_owned(),
            "a.jpgAb12xY.part".to_owned(),
        ];
        for name in &names {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let mut running = AtomicFile::create(&target).unwrap();
        running.write_all(b"half").unwrap();
        Leftovers::default().clear(&target);
        let exists = |name: &&String| dir.path().join(name).exists();
        assert_eq!(names.iter().filter(exists).count(), names.len() - 2);
        assert!(!exists(&&names[0]) && !exists(&&names[1]));
        running.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"half");
        // Neither leftovers nor the directory exist.
        Leftovers::default().clear(&dir.path().join("none/c.jpg"));
    }

    #[test]
    fn any_name_that_the_file_system_allows_works() {
        let dir = tempfile::tempdir().unwrap();
        let chinese = "图".repeat(85); // three bytes each
        let names: [&[u8]; 4] = [&[b'a'; 255], chinese.as_bytes(), b"caf\xe9 \n\"\t-", b"-- "];
        for name in names {
            let target = dir.path().join(std::ffi::OsStr::from_bytes(name));
            let hidden = dir.path().join(leftover(&target));
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
    fn errors_come_from_the_system_and_do_not_name_the_hidden_file() {
        let error = write(Path::new("/nowhere/at/all"), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let foreseen = check(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(foreseen.to_string(), error.to_string());
        assert!(!error.to_string().contains(".part"), "{error}");
    }
}
