//! Watches a folder in which pictures arrive.
//!
//! A picture is reported when it is complete. Linux reports when a file was closed after writing or moved into
//! place; the watcher waits for that event, however long the writer takes. A file that appears without it (a hard
//! link), and any file on other systems, is reported when it has not changed for a while.
//!
//! Every folder is watched separately and checked periodically: a folder that was replaced, mounted over or linked
//! elsewhere is watched anew. If the limit of the system is reached, the folder is scanned every [`POLL`] instead.
//!
//! A folder with several names is watched under one (`names.rs`).

mod file_event;
mod folders;
mod names;
mod polling;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{self, Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use file_event::FileEvent;
pub use folders::Limit;
use folders::{Folders, WatchFailure};
use notify::Event;
use polling::PolledFolder;

use super::{
    Found, Identity, SourceError,
    selection::{FolderFilter, Kind, Selection},
    walk::{Step, walk},
};

/// Delay after a file was closed or moved: some programs open it once more.
const AFTER_CLOSE: Duration = Duration::from_millis(200);
/// Delay after the last change of a file without an event that says it is complete.
const UNTOUCHED: Duration = Duration::from_secs(2);
/// Interval of the check for replaced folders; a millisecond per folder is added.
const CHECK: Duration = Duration::from_secs(1);
/// How long a folder may be missing, for example while it is replaced.
const ABSENCE: Duration = Duration::from_secs(2);
/// Interval between scans of a folder that cannot be watched.
pub const POLL: Duration = Duration::from_secs(10);

/// Why a folder cannot be watched.
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

/// A result of watching.
#[derive(Debug)]
pub enum Arrival {
    /// A complete picture.
    Picture(Found),
    /// A picture that is not supported, and why.
    Skipped(&'static str),
    /// A folder that cannot be read.
    Unreadable(SourceError),
    /// The folder is now scanned every [`POLL`], because a limit of the system was reached.
    Polling(Limit),
}

/// Calls `take` with every complete picture below `dir`, existing ones first, until it returns `false`. The same
/// picture may be reported again without a change. Files that `selection` excludes are skipped.
///
/// # Errors
/// If the folder cannot be watched, or is removed.
pub fn watch(
    dir: &Path,
    selection: &Selection,
    mut take: impl FnMut(Arrival) -> bool,
) -> Result<(), WatchError> {
    let filter = selection.for_folder(dir);
    match watch_events(&filter, &mut take) {
        Err(Stop::Limit(limit)) => match take(Arrival::Polling(limit)) {
            true => poll(&filter, &mut take),
            false => Ok(()),
        },
        Err(Stop::Watch(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// Why watching by events ended.
enum Stop {
    Limit(Limit),
    Watch(WatchError),
}

impl From<WatchError> for Stop {
    fn from(error: WatchError) -> Self {
        Self::Watch(error)
    }
}

fn watch_events(
    filter: &FolderFilter<'_>,
    take: &mut dyn FnMut(Arrival) -> bool,
) -> Result<(), Stop> {
    let (send, events) = mpsc::channel();
    let fail = |failure| match failure {
        WatchFailure::Limit(limit) => Stop::Limit(limit),
        WatchFailure::Other(source) => Stop::Watch(WatchError::Watch {
            dir: filter.root.to_owned(),
            source,
        }),
    };
    let mut watch = EventWatch {
        filter,
        absolute: path::absolute(filter.root).map_err(|e| fail(notify::Error::io(e).into()))?,
        folders: Folders::new(send).map_err(fail)?,
        due: HashMap::new(),
        reported: HashSet::new(),
        notices: Vec::new(),
    };
    watch.scan(filter.root, Duration::ZERO)?;
    let mut checked = Instant::now();
    loop {
        for arrival in watch.take_ready(Instant::now()) {
            if !take(arrival) {
                return Ok(());
            }
        }
        let check_in = watch.check_every().saturating_sub(checked.elapsed());
        watch.receive(&events, check_in)?;
        if checked.elapsed() >= watch.check_every() || watch.root_is_missing() {
            watch.check()?;
            checked = Instant::now();
        }
    }
}

/// State of watching by events.
struct EventWatch<'a> {
    filter: &'a FolderFilter<'a>,
    /// Absolute path of the folder. Events and watches have absolute paths.
    absolute: PathBuf,
    folders: Folders,
    /// Files that may be complete, and when they are reported.
    due: HashMap<PathBuf, Instant>,
    /// Paths that were reported as skipped or unreadable.
    reported: HashSet<PathBuf>,
    notices: Vec<Arrival>,
}

impl EventWatch<'_> {
    fn root(&self) -> &Path {
        self.filter.root
    }

    /// Waits for an event, at most `at_most` or until a file is due, and handles it.
    fn receive(
        &mut self,
        events: &Receiver<notify::Result<Event>>,
        at_most: Duration,
    ) -> Result<(), Stop> {
        let fail = |source| WatchError::Watch {
            dir: self.filter.root.to_owned(),
            source,
        };
        match events.recv_timeout(self.pause().min(at_most)) {
            Ok(Ok(event)) => self.handle(&event),
            Ok(Err(error)) => match WatchFailure::from(error) {
                WatchFailure::Limit(limit) => Err(Stop::Limit(limit)),
                WatchFailure::Other(error) => Err(fail(error).into()),
            },
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(fail(notify::Error::generic("the watcher ended")).into())
            }
        }
    }

    /// Handles an event.
    fn handle(&mut self, event: &Event) -> Result<(), Stop> {
        if event.need_rescan() {
            return self.scan(self.filter.root, AFTER_CLOSE); // events were lost
        }
        let Some(file_event) = FileEvent::of(event.kind) else {
            return Ok(());
        };
        for path in &event.paths {
            // The path as a scan finds it: a picture has only one path.
            let path = match path.strip_prefix(&self.absolute) {
                Ok(below) if below.as_os_str().is_empty() => continue,
                Ok(below) => self.root().join(below),
                Err(_) => path.clone(),
            };
            if path.is_dir() {
                self.handle_folder(&path, file_event)?;
            } else {
                self.handle_file(path, file_event)?;
            }
        }
        Ok(())
    }

    fn handle_folder(&mut self, path: &Path, event: FileEvent) -> Result<(), Stop> {
        let is_new = match event {
            FileEvent::Appeared | FileEvent::Complete => true,
            FileEvent::MetadataChanged => !self.folders.has(&self.watched(path)),
            FileEvent::BeingWritten | FileEvent::Touched | FileEvent::Removed => false,
        };
        if !is_new || self.filter.skips_path(path, true) {
            return Ok(());
        }
        // Files that were in the folder before it was watched have no events.
        self.forget(path)?;
        self.scan(path, UNTOUCHED)
    }

    fn handle_file(&mut self, path: PathBuf, event: FileEvent) -> Result<(), Stop> {
        if event == FileEvent::Removed {
            self.due.retain(|due, _| !due.starts_with(&path));
            return self.forget(&path); // it may have been a folder
        }
        if self.filter.skips_path(&path, false) {
            return Ok(());
        }
        match (Kind::of(&path), event) {
            (Kind::Picture, FileEvent::Complete) => self.schedule(path, AFTER_CLOSE),
            (Kind::Picture, FileEvent::Appeared | FileEvent::Touched) => {
                self.schedule(path, UNTOUCHED);
            }
            (Kind::Picture, FileEvent::BeingWritten) => drop(self.due.remove(&path)),
            (Kind::Unsupported(format), FileEvent::Complete) => self.skip(path, format),
            _ => {}
        }
        Ok(())
    }

    /// Stops watching a folder and its subfolders. Folders with another name are watched under that name.
    fn forget(&mut self, path: &Path) -> Result<(), Stop> {
        for other in self.folders.forget(&self.watched(path), &self.absolute) {
            self.scan(&self.named(&other), UNTOUCHED)?;
        }
        Ok(())
    }

    /// Watches `from` and its subfolders, and schedules the pictures in them.
    fn scan(&mut self, from: &Path, delay: Duration) -> Result<(), Stop> {
        // Folders are watched after they were listed; the next round finds files that arrived in between.
        let mut any_new = true;
        while any_new {
            any_new = false;
            let steps: Vec<Step> = walk(self.filter, from).collect();
            for folder in names::by_links(self.root(), &steps) {
                any_new |= self.add_folder(folder)?;
            }
            for step in steps {
                match step {
                    Step::Folder(_) => {}
                    Step::Picture(path) if self.has_other_name(&path) => {}
                    Step::Skipped(path, _) if self.has_other_name(&path) => {}
                    Step::Picture(path) => self.schedule(path, delay),
                    Step::Skipped(path, why) => self.skip(path, why),
                    Step::Unreadable(error) => self.unreadable(error)?,
                }
            }
        }
        Ok(())
    }

    /// Whether the folder of a file is watched under another name.
    fn has_other_name(&self, path: &Path) -> bool {
        let folder = path.parent().unwrap_or(path);
        self.folders.has_under_other_name(&self.watched(folder))
    }

    fn add_folder(&mut self, path: &Path) -> Result<bool, Stop> {
        match self.folders.add(&self.watched(path)) {
            Ok(is_new) => Ok(is_new),
            Err(WatchFailure::Limit(limit)) => Err(Stop::Limit(limit)),
            Err(failure) if failure.is_not_found() && path != self.root() => Ok(false),
            // The walk reports the error.
            Err(WatchFailure::Other(_)) if path != self.root() && fs::read_dir(path).is_err() => {
                Ok(false)
            }
            Err(WatchFailure::Other(source)) => Err(Stop::Watch(WatchError::Watch {
                dir: path.to_owned(),
                source,
            })),
        }
    }

    /// The absolute path under which a folder is watched.
    fn watched(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.root()).unwrap_or(path);
        match below.as_os_str().is_empty() {
            true => self.absolute.clone(),
            false => self.absolute.join(below),
        }
    }

    /// The path of a watched folder relative to the root as given.
    fn named(&self, watched: &Path) -> PathBuf {
        let below = watched.strip_prefix(&self.absolute).unwrap_or(watched);
        match below.as_os_str().is_empty() {
            true => self.root().to_owned(),
            false => self.root().join(below),
        }
    }

    /// Watches folders that were replaced anew.
    fn check(&mut self) -> Result<(), Stop> {
        wait_for(self.root())?;
        for path in self.folders.replaced() {
            let path = self.named(&path);
            self.forget(&path)?;
            if path.is_dir() {
                self.scan(&path, UNTOUCHED)?;
            }
        }
        Ok(())
    }

    fn root_is_missing(&self) -> bool {
        !self.root().is_dir()
    }

    fn check_every(&self) -> Duration {
        CHECK + Duration::from_millis(self.folders.len() as u64)
    }

    fn unreadable(&mut self, error: SourceError) -> Result<(), WatchError> {
        match error {
            // Removed since it was listed.
            SourceError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {}
            SourceError::Io { path, source } if path == self.root() => {
                return Err(SourceError::Io { path, source }.into());
            }
            SourceError::Io { path, source } => {
                if self.reported.insert(path.clone()) {
                    let error = SourceError::Io { path, source };
                    self.notices.push(Arrival::Unreadable(error));
                }
            }
            error => return Err(error.into()),
        }
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, why: &'static str) {
        if self.reported.insert(path) {
            self.notices.push(Arrival::Skipped(why));
        }
    }

    fn schedule(&mut self, path: PathBuf, delay: Duration) {
        self.due.insert(path, Instant::now() + delay);
    }

    /// The results that are ready: notices, then the pictures that are due, sorted by name.
    fn take_ready(&mut self, now: Instant) -> Vec<Arrival> {
        let due = self.due.extract_if(|_, due| *due <= now);
        let mut due: Vec<_> = due
            .map(|(path, _)| path)
            .filter(|path| has_content(path))
            .collect();
        due.sort();
        let pictures = due.into_iter().map(|path| arrived(self.filter.root, path));
        let mut ready = std::mem::take(&mut self.notices);
        ready.extend(pictures);
        ready
    }

    /// The time until the next file is due.
    fn pause(&self) -> Duration {
        let next = self.due.values().min();
        next.map_or(Duration::from_secs(3600), |due| {
            due.saturating_duration_since(Instant::now())
        })
    }
}

/// Whether a file is not empty: an empty file is usually a placeholder for later content.
fn has_content(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

fn arrived(root: &Path, path: PathBuf) -> Arrival {
    let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
    Arrival::Picture(Found { path, name })
}

/// Waits until a folder that is being replaced exists again.
fn wait_for(dir: &Path) -> Result<(), WatchError> {
    let start = Instant::now();
    while !dir.is_dir() {
        if start.elapsed() >= ABSENCE {
            return Err(WatchError::Gone {
                dir: dir.to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Scans the folder periodically.
fn poll(
    filter: &FolderFilter<'_>,
    take: &mut dyn FnMut(Arrival) -> bool,
) -> Result<(), WatchError> {
    let mut folder = PolledFolder::default();
    let mut reported = HashSet::new();
    loop {
        wait_for(filter.root)?;
        let mut pictures = Vec::new();
        let mut ready = Vec::new();
        let steps: Vec<Step> = walk(filter, filter.root).collect();
        let duplicates = names::duplicates(filter.root, &steps);
        let has_other_name =
            |path: &Path| path.parent().is_some_and(|dir| duplicates.contains(dir));
        for step in steps {
            match step {
                Step::Folder(_) => {}
                Step::Picture(path) | Step::Skipped(path, _) if has_other_name(&path) => {}
                Step::Picture(path) if has_content(&path) => {
                    pictures.extend(Identity::of(&path).map(|identity| (path, identity)));
                }
                Step::Picture(_) => {}
                Step::Skipped(path, why) => {
                    ready.extend(reported.insert(path).then_some(Arrival::Skipped(why)));
                }
                Step::Unreadable(SourceError::Io { path, source }) if path != filter.root => {
                    let is_new = reported.insert(path.clone());
                    let error = SourceError::Io { path, source };
                    ready.extend(is_new.then_some(Arrival::Unreadable(error)));
                }
                Step::Unreadable(error) => return Err(error.into()),
            }
        }
        let pictures = folder.update(pictures).into_iter();
        ready.extend(pictures.map(|path| arrived(filter.root, path)));
        if !ready.into_iter().all(&mut *take) {
            return Ok(());
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests;
