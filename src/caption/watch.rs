//! A folder in which pictures arrive.
//!
//! A picture is taken when it is whole. On Linux the kernel says when a file was closed after
//! writing, or moved to its place; that is waited for, however long the writer takes. A file that
//! appears with neither (a hard link), and any file on systems that do not tell, is taken when it
//! has been left alone for a while.

use std::{
    collections::HashMap,
    io,
    path::{self, Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};

use super::{Found, SourceError, is_picture_name, pictures_below};

/// How long a file is left alone after it was closed or moved: some programs open it once more.
const AFTER_CLOSE: Duration = Duration::from_millis(200);
/// How long a file is left alone where nothing says that it is complete.
const UNTOUCHED: Duration = Duration::from_secs(2);

/// The folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WatchError {
    #[error("{}: cannot be watched", dir.display())]
    Watch { dir: PathBuf, source: notify::Error },
    #[error("{}: is gone", dir.display())]
    Gone { dir: PathBuf },
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Calls `take` with every picture that is or comes to be whole below `dir`, those that are there
/// first, until it says `false`. A picture may be given again without having changed. What lies
/// below `except` is left out.
///
/// # Errors
/// If the folder cannot be watched, or is removed.
pub fn watch(
    dir: &Path,
    except: Option<&Path>,
    mut take: impl FnMut(Found) -> bool,
) -> Result<(), WatchError> {
    let fail = |source| WatchError::Watch {
        dir: dir.to_owned(),
        source,
    };
    let except = except.and_then(|dir| dir.canonicalize().ok());
    let (send, events) = mpsc::channel();
    // Watched before it is looked through, so that nothing arrives in between.
    let mut watcher = RecommendedWatcher::new(send, notify::Config::default()).map_err(fail)?;
    // Events have absolute paths; said before, the prefix is known by which they are made such.
    let absolute = path::absolute(dir).map_err(|e| fail(notify::Error::io(e)))?;
    watcher
        .watch(&absolute, RecursiveMode::Recursive)
        .map_err(fail)?;
    let mut waiting = Waiting {
        root: dir,
        absolute: &absolute,
        except: except.as_deref(),
        due: HashMap::new(),
    };
    waiting.scan(dir, Duration::ZERO)?;
    loop {
        for path in waiting.take_due(Instant::now()) {
            let name = path.strip_prefix(dir).unwrap_or(&path).to_owned();
            if !take(Found { path, name }) {
                return Ok(());
            }
        }
        match events.recv_timeout(waiting.pause()) {
            Ok(event) => waiting.see(&event.map_err(fail)?)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(fail(notify::Error::generic("the watcher ended")));
            }
        }
        if !dir.is_dir() {
            return Err(WatchError::Gone {
                dir: dir.to_owned(),
            });
        }
    }
}

/// Files that are not yet known to be whole.
struct Waiting<'a> {
    root: &'a Path,
    absolute: &'a Path,
    except: Option<&'a Path>,
    due: HashMap<PathBuf, Instant>,
}

impl Waiting<'_> {
    /// Takes in what happened.
    fn see(&mut self, event: &Event) -> Result<(), WatchError> {
        if event.need_rescan() {
            return self.scan(self.root, AFTER_CLOSE); // events were lost
        }
        let Some(what) = What::of(event.kind) else {
            return Ok(());
        };
        for path in &event.paths {
            // As it would have been found: one picture, one path.
            let path = &match path.strip_prefix(self.absolute) {
                Ok(below) if below.as_os_str().is_empty() => continue,
                Ok(below) => self.root.join(below),
                Err(_) => path.clone(),
            };
            if path.is_dir() {
                // What was in there before it was watched has no events of its own.
                if matches!(what, What::Appeared | What::Complete) {
                    self.scan(path, UNTOUCHED)?;
                }
            } else if self.is_meant(path) {
                match what {
                    What::Complete => self.wait(path.clone(), AFTER_CLOSE),
                    What::Appeared | What::Touched => self.wait(path.clone(), UNTOUCHED),
                    What::BeingWritten | What::Gone => drop(self.due.remove(path)),
                }
            }
        }
        Ok(())
    }

    /// Whether a file is a picture, and neither hidden nor a copy.
    fn is_meant(&self, path: &Path) -> bool {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        let hidden = below
            .iter()
            .any(|part| part.as_encoded_bytes().starts_with(b"."));
        let is_copy = self.except.is_some_and(|except| {
            path.parent()
                .and_then(|dir| dir.canonicalize().ok())
                .is_some_and(|dir| dir.starts_with(except))
        });
        is_picture_name(path) && !hidden && !is_copy
    }

    fn scan(&mut self, dir: &Path, patience: Duration) -> Result<(), WatchError> {
        for picture in pictures_below(dir, self.except) {
            match picture {
                Ok(path) => self.wait(path, patience),
                // It was there a moment ago.
                Err(SourceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn wait(&mut self, path: PathBuf, patience: Duration) {
        self.due.insert(path, Instant::now() + patience);
    }

    /// The files that are due, by name.
    fn take_due(&mut self, now: Instant) -> Vec<PathBuf> {
        let due = self.due.extract_if(|_, due| *due <= now);
        let mut due: Vec<_> = due
            .map(|(path, _)| path)
            .filter(|path| path.exists())
            .collect();
        due.sort();
        due
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        let next = self.due.values().min();
        next.map_or(Duration::from_secs(3600), |due| {
            due.saturating_duration_since(Instant::now())
        })
    }
}

/// What happened to a file, as far as its being whole goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// It was closed after writing, or moved to where it is.
    Complete,
    /// It is there, and may or may not be written to.
    Appeared,
    /// It was written to, and its closing will be told.
    BeingWritten,
    /// It was changed in some way, and nothing else will be told.
    Touched,
    /// It is gone from where it was.
    Gone,
}

impl What {
    fn of(kind: EventKind) -> Option<Self> {
        const TELLS_CLOSING: bool = cfg!(any(target_os = "linux", target_os = "android"));
        Some(match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Self::Complete,
            EventKind::Create(CreateKind::File | CreateKind::Folder | CreateKind::Any) => {
                Self::Appeared
            }
            EventKind::Modify(ModifyKind::Data(_)) if TELLS_CLOSING => Self::BeingWritten,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
                Self::Gone
            }
            EventKind::Modify(
                ModifyKind::Data(_) | ModifyKind::Any | ModifyKind::Name(RenameMode::Any),
            ) if !TELLS_CLOSING => Self::Touched,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
        thread,
    };

    use super::*;

    /// What is taken while `act` happens, up to the file `last.png`.
    fn taken(dir: &Path, act: impl FnOnce(&Path) + Send) -> Vec<String> {
        let mut names = Vec::new();
        thread::scope(|scope| {
            let (ready, is_ready) = mpsc::channel();
            scope.spawn(move || {
                is_ready.recv().unwrap();
                act(dir);
                fs::rename(dir.join("last.tmp"), dir.join("last.png")).unwrap();
            });
            fs::write(dir.join("last.tmp"), "").unwrap();
            fs::write(dir.join("first.png"), "").unwrap(); // there before; says that the watch is on
            watch(dir, Some(&dir.join("out")), |found| {
                let name = found.name.to_str().unwrap().to_owned();
                let size = fs::read(&found.path).unwrap().len();
                if name == "first.png" {
                    ready.send(()).unwrap();
                } else if !names.contains(&format!("{name} {size}")) {
                    names.push(format!("{name} {size}"));
                }
                name != "last.png"
            })
            .unwrap();
        });
        names.pop();
        names
    }

    #[test]
    fn a_file_is_taken_when_it_is_closed_however_slowly_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let names = taken(dir.path(), |dir| {
            let mut file = File::create(dir.join("slow.jpg")).unwrap();
            for _ in 0..3 {
                file.write_all(b"12345").unwrap();
                thread::sleep(UNTOUCHED / 2);
            }
            drop(file);
            thread::sleep(2 * AFTER_CLOSE);
        });
        assert_eq!(names, ["slow.jpg 15"]);
    }

    #[test]
    fn files_moved_into_place_and_folders_with_what_is_in_them_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        let names = taken(dir.path(), |dir| {
            fs::write(dir.join(".b.png.part"), "123").unwrap();
            fs::rename(dir.join(".b.png.part"), dir.join("b.png")).unwrap();
            fs::write(dir.join("out/copy.png"), "1").unwrap();
            fs::write(dir.join("notes.txt"), "1").unwrap();
            let elsewhere = tempfile::tempdir().unwrap();
            fs::create_dir(elsewhere.path().join("new")).unwrap();
            fs::write(elsewhere.path().join("new/c.webp"), "1234").unwrap();
            fs::rename(elsewhere.path().join("new"), dir.join("new")).unwrap();
            thread::sleep(UNTOUCHED + 2 * AFTER_CLOSE);
            fs::write(dir.join("new/d.png"), "12345").unwrap();
            thread::sleep(2 * AFTER_CLOSE);
        });
        assert_eq!(names, ["b.png 3", "new/c.webp 4", "new/d.png 5"]);
    }

    #[test]
    fn a_folder_that_is_removed_ends_the_watch() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a.png"), "").unwrap();
        let removed = watch(&dir, None, |_| {
            fs::remove_dir_all(&dir).unwrap();
            true
        });
        assert!(matches!(removed, Err(WatchError::Gone { .. })));
    }
}
