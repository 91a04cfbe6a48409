//! Atomic replacement of directories.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{NAME_SUFFIX, RANDOM_LEN, dir_of, prefix};

/// Names inside the hidden directory: the new directory, and the old one during the replacement.
const NEW: &str = "new";
const OLD: &str = "old";

/// An unfinished directory, inside a hidden one beside its target. Dropping it before [`Self::commit`] deletes it.
#[derive(Debug)]
pub struct AtomicDir {
    hidden: TempDir,
    /// Marks the hidden directory as in use.
    _lock: File,
    target: PathBuf,
}

impl AtomicDir {
    /// Starts a directory that will replace `target`.
    ///
    /// # Errors
    /// If no directory can be created in the target's directory.
    pub fn create(target: &Path) -> io::Result<Self> {
        let prefix = prefix(target);
        loop {
            let hidden = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(RANDOM_LEN)
                .suffix(NAME_SUFFIX)
                .tempdir_in(dir_of(target))
                .map_err(|e| io::Error::from(e.kind()))?; // the original message names the hidden directory
            // Before it is locked, another process may remove it as a leftover.
            let lock = match File::open(hidden.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            // Where directories cannot be locked, leftovers are not recognised and stay.
            let _ = lock.lock();
            match fs::create_dir(hidden.path().join(NEW)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                made => made?,
            }
            let target = target.to_owned();
            return Ok(Self {
                hidden,
                _lock: lock,
                target,
            });
        }
    }

    /// Where to put the files.
    pub fn path(&self) -> PathBuf {
        self.hidden.path().join(NEW)
    }

    /// Renames the directory to its target, replacing what is there, and then runs `rest`. If the directory is empty,
    /// the target does not exist afterwards.
    ///
    /// # Errors
    /// If a rename or `rest` fails; the old directory is restored then.
    pub fn commit(self, rest: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (new, old) = (self.path(), self.hidden.path().join(OLD));
        let is_empty = fs::remove_dir(&new).is_ok();
        let had_old = self.target.is_dir();
        if had_old {
            fs::rename(&self.target, &old)?;
        }
        let moved = if is_empty {
            Ok(())
        } else {
            fs::rename(&new, &self.target)
        };
        let is_in = moved.is_ok() && !is_empty;
        let done = moved.and_then(|()| rest());
        if done.is_err() {
            if is_in {
                let _ = fs::remove_dir_all(&self.target);
            }
            if had_old && let Err(error) = fs::rename(&old, &self.target) {
                let _ = self.hidden.keep(); // it holds the only copy
                return Err(error);
            }
        }
        done
    }
}

/// Removes a hidden directory that no process has locked. If its process was killed between its two renames, the old
/// directory is restored to `target`.
pub fn remove_if_stale(hidden: &Path, target: &Path) -> io::Result<()> {
    let dir = File::open(hidden)?;
    dir.try_lock()?; // the lock lasts until the directory is removed
    let old = hidden.join(OLD);
    if old.is_dir() && !target.exists() {
        fs::rename(&old, target)?;
    }
    fs::remove_dir_all(hidden)
}

#[cfg(test)]
mod tests {
    use super::{super::Leftovers, *};

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn with_file(target: &Path, name: &str) -> AtomicDir {
        let dir = AtomicDir::create(target).unwrap();
        fs::write(dir.path().join(name), "text").unwrap();
        dir
    }

    #[test]
    fn a_directory_is_replaced_or_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let refused = || Err(io::ErrorKind::StorageFull.into());
        assert!(with_file(&target, "zero").commit(refused).is_err());
        assert!(names(dir.path()).is_empty());
        with_file(&target, "one").commit(|| Ok(())).unwrap();
        assert_eq!(names(&target), ["one"]);
        assert!(with_file(&target, "two").commit(refused).is_err());
        assert_eq!(names(&target), ["one"]);
        with_file(&target, "three").commit(|| Ok(())).unwrap();
        drop(with_file(&target, "four"));
        assert_eq!(names(&target), ["three"]);
        let empty = AtomicDir::create(&target).unwrap();
        empty.commit(|| Ok(())).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn the_old_directory_of_a_killed_process_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let killed = dir
            .path()
            .join(format!("{}Ab12xY{NAME_SUFFIX}", prefix(&target)));
        for name in [NEW, OLD] {
            fs::create_dir_all(killed.join(name)).unwrap();
            fs::write(killed.join(name).join(name), "text").unwrap();
        }
        let running = with_file(&target, "text");
        Leftovers::default().clear(&target);
        assert_eq!(names(&target), [OLD]);
        assert_eq!(names(dir.path()).len(), 2);
        assert!(running.path().join("text").exists());
        // An existing target is newer than the killed process's copy and stays.
        fs::create_dir_all(killed.join(OLD).join("older")).unwrap();
        Leftovers::default().clear(&target);
        drop(running);
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(names(&target), [OLD]);
    }
}
