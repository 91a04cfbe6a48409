//! Folders whose events the system delivers.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
};

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::names::{Identity, identity, n_links};

/// The folders that are watched, each for itself: what is left out or cannot be read costs nothing and
/// harms nobody, and a link is a folder like others. The system has one watch for a folder, whatever it is
/// called, and its events come under one name: the first that was added.
pub struct Folders {
    watcher: RecommendedWatcher,
    /// All names.
    known: HashMap<PathBuf, Identity>,
    /// The name under which each folder is watched.
    watched: HashMap<Identity, PathBuf>,
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
            known: HashMap::new(),
            watched: HashMap::new(),
        })
    }

    /// Watches a folder, if it is not watched under another name. `false` if it is known already.
    pub fn add(&mut self, folder: &Path) -> Result<bool, Refusal> {
        if self.known.contains_key(folder) {
            return Ok(false);
        }
        // Before it is watched: should it be replaced in between, that is seen later.
        let id = identity(folder).map_err(notify::Error::io)?;
        let other = self.watched.get(&id);
        // A name that was moved away leads there no longer.
        let is_other = other.is_some_and(|other| identity(other).is_ok_and(|now| now == id));
        if !is_other {
            self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
            self.watched.insert(id, folder.to_owned());
        }
        self.known.insert(folder.to_owned(), id);
        Ok(true)
    }

    /// Whether a folder is known, under whatever name it is watched.
    pub fn has(&self, folder: &Path) -> bool {
        self.known.contains_key(folder)
    }

    /// Whether a folder is watched under another name, where its pictures are found.
    pub fn has_under_other_name(&self, folder: &Path) -> bool {
        let watched = self.known.get(folder).and_then(|id| self.watched.get(id));
        watched.is_some_and(|name| name != folder)
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Watches `folder` and those below it no longer. Returns the folders that have other names, of which
    /// one is watched from now on, below `root`.
    pub fn forget(&mut self, folder: &Path, root: &Path) -> Vec<PathBuf> {
        self.known.retain(|path, _| !path.starts_with(folder));
        let gone = self
            .watched
            .extract_if(|_, path| path.starts_with(folder))
            .collect::<Vec<_>>();
        let mut renamed = Vec::new();
        for (id, path) in gone {
            let _ = self.watcher.unwatch(&path); // if it is gone, so is its watch
            let others = self.known.iter().filter(|(_, known)| **known == id);
            let other = others
                .map(|(path, _)| path)
                .min_by_key(|path| (n_links(root, path), path.as_os_str()));
            if let Some(other) = other.cloned() {
                let _ = self.watcher.watch(&other, RecursiveMode::NonRecursive); // if it is gone, it is seen later
                self.watched.insert(id, other.clone());
                renamed.push(other);
            }
        }
        renamed.sort();
        renamed
    }

    /// The folders that are gone or another than they were.
    pub fn replaced(&self) -> Vec<PathBuf> {
        let is_same = |path: &Path, known: Identity| identity(path).is_ok_and(|now| now == known);
        let replaced = self
            .known
            .iter()
            .filter(|(path, known)| !is_same(path, **known));
        let mut replaced: Vec<_> = replaced.map(|(path, _)| path.clone()).collect();
        replaced.sort();
        replaced
    }
}
