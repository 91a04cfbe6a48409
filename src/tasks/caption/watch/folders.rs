//! Folders watched by the system.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
};

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::names::{FolderId, folder_id, n_links};

/// The watched folders. Each is watched separately, so that skipped and unreadable folders need no watch, and
/// links are treated as folders. The system has one watch per folder, whatever its names, and reports events under
/// one name: the first that was added.
pub struct Folders {
    watcher: RecommendedWatcher,
    /// All names of folders.
    known: HashMap<PathBuf, FolderId>,
    /// The name under which each folder is watched.
    watched: HashMap<FolderId, PathBuf>,
}

/// Why a folder could not be watched.
#[derive(Debug)]
pub enum WatchFailure {
    /// A limit of the system was reached.
    Limit(Limit),
    /// Another error.
    Other(notify::Error),
}

/// A limit of inotify per user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Number of watched folders.
    Watches,
    /// Number of inotify instances.
    Instances,
}

impl Limit {
    /// The name of the kernel setting.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Watches => "fs.inotify.max_user_watches",
            Self::Instances => "fs.inotify.max_user_instances",
        }
    }

    /// The current value, if known.
    pub fn value(self) -> Option<u64> {
        let file = format!("/proc/sys/{}", self.setting().replace('.', "/"));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// A sufficient value for most uses.
    pub fn enough(self) -> u64 {
        let usual = match self {
            Self::Watches => 524_288,
            Self::Instances => 1024,
        };
        usual.max(self.value().unwrap_or(0).saturating_mul(2))
    }
}

impl From<notify::Error> for WatchFailure {
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

impl WatchFailure {
    /// Whether the folder was removed before it could be watched.
    pub fn is_not_found(&self) -> bool {
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
    /// Without folders. Events are sent to `events`.
    pub fn new(events: Sender<notify::Result<Event>>) -> Result<Self, WatchFailure> {
        Ok(Self {
            watcher: RecommendedWatcher::new(events, notify::Config::default())?,
            known: HashMap::new(),
            watched: HashMap::new(),
        })
    }

    /// Watches a folder, unless it is watched under another name. `false` if the name is known.
    pub fn add(&mut self, folder: &Path) -> Result<bool, WatchFailure> {
        if self.known.contains_key(folder) {
            return Ok(false);
        }
        // Before watching: if the folder is replaced in between, the next check detects it.
        let id = folder_id(folder).map_err(notify::Error::io)?;
        let other = self.watched.get(&id);
        // The other name may have been moved away.
        let is_other = other.is_some_and(|other| folder_id(other).is_ok_and(|now| now == id));
        if !is_other {
            self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
            self.watched.insert(id, folder.to_owned());
        }
        self.known.insert(folder.to_owned(), id);
        Ok(true)
    }

    /// Whether the name of a folder is known.
    pub fn has(&self, folder: &Path) -> bool {
        self.known.contains_key(folder)
    }

    /// Whether a folder is watched under another name.
    pub fn has_under_other_name(&self, folder: &Path) -> bool {
        let watched = self.known.get(folder).and_then(|id| self.watched.get(id));
        watched.is_some_and(|name| name != folder)
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Stops watching `folder` and its subfolders. Those that have other names below `root` are watched under one
    /// of these, which is returned.
    pub fn forget(&mut self, folder: &Path, root: &Path) -> Vec<PathBuf> {
        self.known.retain(|path, _| !path.starts_with(folder));
        let removed = self
            .watched
            .extract_if(|_, path| path.starts_with(folder))
            .collect::<Vec<_>>();
        let mut renamed = Vec::new();
        for (id, path) in removed {
            let _ = self.watcher.unwatch(&path); // fails if the folder and its watch are gone
            let others = self.known.iter().filter(|(_, known)| **known == id);
            let other = others
                .map(|(path, _)| path)
                .min_by_key(|path| (n_links(root, path), path.as_os_str()));
            if let Some(other) = other.cloned() {
                // If the folder is gone, the next check detects it.
                let _ = self.watcher.watch(&other, RecursiveMode::NonRecursive);
                self.watched.insert(id, other.clone());
                renamed.push(other);
            }
        }
        renamed.sort();
        renamed
    }

    /// The folders that were removed or replaced.
    pub fn replaced(&self) -> Vec<PathBuf> {
        let is_same = |path: &Path, known: FolderId| folder_id(path).is_ok_and(|now| now == known);
        let replaced = self
            .known
            .iter()
            .filter(|(path, known)| !is_same(path, **known));
        let mut replaced: Vec<_> = replaced.map(|(path, _)| path.clone()).collect();
        replaced.sort();
        replaced
    }
}
