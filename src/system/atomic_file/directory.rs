//! Directories that are replaced whole or not at all.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{ENDING, RANDOM, dir_of, prefix};

/// Where the new directory is made, and where the old one waits, in the hidden one.
const NEW: &str = "new";
const OLD: &str = "old";

/// A directory in the making, in a hidden one beside its target. Dropped before [`Self::commit`], it is
/// gone.
#[derive(Debug)]
pub struct AtomicDir {
    hidden: TempDir,
    /// Tells others that somebody works here.
    _lock: File,
    target: PathBuf,
}

impl AtomicDir {
    /// Begins a directory that will stand at `target`.
    ///
    /// # Errors
    /// If none can be made in the target's directory.
    pub fn create(target: &Path) -> io::Result<Self> {
        let prefix = prefix(target);
        loop {
            let hidden = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(RANDOM)
                .suffix(ENDING)
                .tempdir_in(dir_of(target))
                .map_err(|e| io::Error::from(e.kind()))?; // its message names the hidden directory
            // Another process may take it for one before it is locked.
            let lock = match File::open(hidden.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            // Where directories cannot be locked, leftovers cannot be told from others, and stay.
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

    /// Where its files are put.
    pub fn path(&self) -> PathBuf {
        self.hidden.path().join(NEW)
    }

    /// Moves the directory to its target, replacing what is there, and does `rest`. If it is empty,
    /// nothing stands there afterwards.
    ///
    /// # Errors
    /// If the system refuses or `rest` fails; what was there is there again then.
    pub fn commit(self, rest: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (new, old) = (self.path(), self.hidden.path().join(OLD));
        let is_empty = fs::remove_dir(&new).is_ok();
        let had_one = self.target.is_dir();
        if had_one {
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
            if had_one && let Err(error) = fs::rename(&old, &self.target) {
                let _ = self.hidden.keep(); // it is all there is
                return Err(error);
            }
        }
        done
    }
}

/// Removes a hidden directory that nobody works on. If its process was killed between its two moves,
/// what stood at `target` is put back.
pub fn remove_if_left(hidden: &Path, target: &Path) -> io::Result<()> {
    let dir = File::open(hidden)?;
    dir.try_lock()?; // held until it is gone
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
    fn a_directory_is_replaced_or_as_it_was() {
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
    fn what_a_killed_process_moved_away_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let killed = dir
            .path()
            .join(format!("{}Ab12xY{ENDING}", prefix(&target)));
        for name in [NEW, OLD] {
            fs::create_dir_all(killed.join(name)).unwrap();
            fs::write(killed.join(name).join(name), "text").unwrap();
        }
        let running = with_file(&target, "text");
        Leftovers::default().clear(&target);
        assert_eq!(names(&target), [OLD]);
        assert_eq!(names(dir.path()).len(), 2);
        assert!(running.path().join("text").exists());
        // What stands there is newer than what a killed process had.
        fs::create_dir_all(killed.join(OLD).join("older")).unwrap();
        Leftovers::default().clear(&target);
        drop(running);
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(names(&target), [OLD]);
    }
}
