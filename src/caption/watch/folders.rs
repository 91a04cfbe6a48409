//! Folders whose events the system delivers.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
};

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};

/// What tells one folder from another of the same name: device and inode.
type Identity = (u64, u64);

/// The folders that are watched, each for itself: what is left out or cannot be read costs nothing and
/// harms nobody, and a link is a folder like others.
pub struct Folders {
    watcher: RecommendedWatcher,
    watched: HashMap<PathBuf, Identity>,
}

/// Why a folder is not watched.
#[derive(Debug)]
pub enum Refusal {
    /// The system watches no more folders, or has no more room for those who watch.
    Limit(Limit),
    /// Something else.
    Other(notify::Error),
}

/// A limit of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of folders that a user's programs watch.
    Watches,
    /// Of programs of a user that watch folders.
    Instances,
}

impl Limit {
    /// The name of the setting.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Watches => "fs.inotify.max_user_watches",
            Self::Instances => "fs.inotify.max_user_instances",
        }
    }

    /// What it is set to, where the system says so.
    pub fn value(self) -> Option<u64> {
        let file = format!("/proc/sys/{}", self.setting().replace('.', "/"));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// A value that is enough for most.
    pub fn enough(self) -> u64 {
        let usual = match self {
            Self::Watches => 524_288,
            Self::Instances => 1024,
        };
        usual.max(self.value().unwrap_or(0).saturating_mul(2))
    }
}

impl From<notify::Error> for Refusal {
    fn from(error: notify::Error) -> Self {
        match &error.kind {
            ErrorKind::MaxFilesWatch => Self::Limit(Limit::Watches),
            ErrorKind::Io(io) => match io.raw_os_error() {
                Some(libc::ENOSPC) => Self::Limit(Limit::Watches),
                Some(libc::EMFILE | libc::ENFILE) => Self::Limit(Limit::Instances),
                _ => Self::Other(error),
            },
            _ => Self::Other(error),
        }
    }
}

impl Refusal {
    /// Whether the folder was gone before it could be watched.
    pub fn is_absence(&self) -> bool {
        let Self::Other(error) = self else {
            return false;
        };
        match &error.kind {
            ErrorKind::PathNotFound => true,
            ErrorKind::Io(io) => io.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl Folders {
    /// None so far. Events go to `events`.
    pub fn new(events: Sender<notify::Result<Event>>) -> Result<Self, Refusal> {
        Ok(Self {
            watcher: RecommendedWatcher::new(events, notify::Config::default())?,
            watched: HashMap::new(),
        })
    }

    /// Watches a folder. `false` if it is watched already.
    pub fn add(&mut self, folder: &Path) -> Result<bool, Refusal> {
        if self.watched.contains_key(folder) {
            return Ok(false);
        }
        // Before it is watched: should it be replaced in between, that is seen later.
        let identity = identity(folder).map_err(notify::Error::io)?;
        self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
        self.watched.insert(folder.to_owned(), identity);
        Ok(true)
    }

    /// Whether a folder is watched.
    pub fn has(&self, folder: &Path) -> bool {
        self.watched.contains_key(folder)
    }

    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Watches `folder` and those below it no longer.
    pub fn forget(&mut self, folder: &Path) {
        let below = self.watched.extract_if(|path, _| path.starts_with(folder));
        let below: HashMap<_, _> = below.collect();
        for path in below.keys() {
            let _ = self.watcher.unwatch(path); // if it is gone, so is its watch
        }
        // A folder that is there under two names has one watch in the system, which went with the other name.
        let gone: HashSet<_> = below.values().collect();
        for (path, identity) in &self.watched {
            if gone.contains(identity) {
                let _ = self.watcher.watch(path, RecursiveMode::NonRecursive); // if it is gone, it is seen later
            }
        }
    }

    /// The folders that are gone or another than they were.
    pub fn replaced(&self) -> Vec<PathBuf> {
        let is_same = |path: &Path, known: Identity| identity(path).is_ok_and(|now| now == known);
        let replaced = self
            .watched
            .iter()
            .filter(|(path, known)| !is_same(path, **known));
        let mut replaced: Vec<_> = replaced.map(|(path, _)| path.clone()).collect();
        replaced.sort();
        replaced
    }
}

fn identity(folder: &Path) -> io::Result<Identity> {
    let meta = folder.metadata()?;
    Ok((meta.dev(), meta.ino()))
}
