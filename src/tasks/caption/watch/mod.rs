//! A folder in which pictures arrive.
//!
//! A picture is taken when it is whole. On Linux the kernel says when a file was closed after
//! writing, or moved to its place; that is waited for, however long the writer takes. A file that
//! appears with neither (a hard link), and any file on systems that do not tell, is taken when it
//! has been left alone for a while.
//!
//! Every folder is watched for itself, and compared with what it was from time to time: one that was
//! replaced, mounted over or linked elsewhere is watched anew. Where the system watches no more, the
//! folder is looked through every [`POLL`].
//!
//! A folder that is there under several names is looked at under one (`names.rs`).

mod folders;
mod names;
mod polled;
mod what;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{self, Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

pub use folders::Limit;
use folders::{Folders, Refusal};
use notify::Event;
use polled::Polled;
use what::What;

use super::{
    Found, Identity, SourceError,
    selection::{Below, Kind, Selection},
    walk::{Step, walk},
};

/// How long a file is left alone after it was closed or moved: some programs open it once more.
const AFTER_CLOSE: Duration = Duration::from_millis(200);
/// How long a file is left alone where nothing says that it is complete.
const UNTOUCHED: Duration = Duration::from_secs(2);
/// How often folders are compared with what they were; a millisecond for each of them comes to that.
const CHECK: Duration = Duration::from_secs(1);
/// How long a folder may be gone: it takes a moment to replace one by another.
const ABSENCE: Duration = Duration::from_secs(2);
/// How often the folder is looked through where it cannot be watched.
pub const POLL: Duration = Duration::from_secs(10);

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

/// What comes of watching.
#[derive(Debug)]
pub enum Arrival {
    /// A picture that is whole.
    Picture(Found),
    /// A picture that cannot be looked at, and why.
    LeftOut(&'static str),
    /// A folder that cannot be read.
    Unreadable(SourceError),
    /// From now on the folder is looked through every [`POLL`], because of a limit of the system.
    Polling(Limit),
}

/// Calls `take` with every picture that is or comes to be whole below `dir`, those that are there
/// first, until it says `false`. A picture may be given again without having changed. What
/// `selection` leaves out is left out.
///
/// # Errors
/// If the folder cannot be watched, or is removed.
pub fn watch(
    dir: &Path,
    selection: &Selection,
    mut take: impl FnMut(Arrival) -> bool,
) -> Result<(), WatchError> {
    let below = selection.below(dir);
    match watch_events(&below, &mut take) {
        Err(Fault::Limit(limit)) => match take(Arrival::Polling(limit)) {
            true => poll(&below, &mut take),
            false => Ok(()),
        },
        Err(Fault::Watch(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// Why events come no longer.
enum Fault {
    Limit(Limit),
    Watch(WatchError),
}

impl From<WatchError> for Fault {
    fn from(error: WatchError) -> Self {
        Self::Watch(error)
    }
}

fn watch_events(below: &Below<'_>, take: &mut dyn FnMut(Arrival) -> bool) -> Result<(), Fault> {
    let (send, events) = mpsc::channel();
    let fail = |refusal| match refusal {
        Refusal::Limit(limit) => Fault::Limit(limit),
        Refusal::Other(source) => Fault::Watch(WatchError::Watch {
            dir: below.root.to_owned(),
            source,
        }),
    };
    let mut waiting = Waiting {
        below,
        absolute: path::absolute(below.root).map_err(|e| fail(notify::Error::io(e).into()))?,
        folders: Folders::new(send).map_err(fail)?,
        due: HashMap::new(),
        told: HashSet::new(),
        notices: Vec::new(),
    };
    waiting.scan(below.root, Duration::ZERO)?;
    let mut checked = Instant::now();
    loop {
        for arrival in waiting.take_ready(Instant::now()) {
            if !take(arrival) {
                return Ok(());
            }
        }
        let check_in = waiting.check_every().saturating_sub(checked.elapsed());
        waiting.receive(&events, check_in)?;
        if checked.elapsed() >= waiting.check_every() || waiting.root_is_gone() {
            waiting.check()?;
            checked = Instant::now();
        }
    }
}

/// Files that are not yet known to be whole.
struct Waiting<'a> {
    below: &'a Below<'a>,
    /// Where the folder is. Events have absolute paths; so does what is watched.
    absolute: PathBuf,
    folders: Folders,
    due: HashMap<PathBuf, Instant>,
    /// What was said once, and need not be said again.
    told: HashSet<PathBuf>,
    notices: Vec<Arrival>,
}

impl Waiting<'_> {
    fn root(&self) -> &Path {
        self.below.root
    }

    /// Waits for events, for `at_most` or until a file is due, and takes in one.
    fn receive(
        &mut self,
        events: &Receiver<notify::Result<Event>>,
        at_most: Duration,
    ) -> Result<(), Fault> {
        let fail = |source| WatchError::Watch {
            dir: self.below.root.to_owned(),
            source,
        };
        match events.recv_timeout(self.pause().min(at_most)) {
            Ok(Ok(event)) => self.see(&event),
            Ok(Err(error)) => match Refusal::from(error) {
                Refusal::Limit(limit) => Err(Fault::Limit(limit)),
                Refusal::Other(error) => Err(fail(error).into()),
            },
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(fail(notify::Error::generic("the watcher ended")).into())
            }
        }
    }

    /// Takes in what happened.
    fn see(&mut self, event: &Event) -> Result<(), Fault> {
        if event.need_rescan() {
            return self.scan(self.below.root, AFTER_CLOSE); // events were lost
        }
        let Some(what) = What::of(event.kind) else {
            return Ok(());
        };
        for path in &event.paths {
            // As it would have been found: one picture, one path.
            let path = match path.strip_prefix(&self.absolute) {
                Ok(below) if below.as_os_str().is_empty() => continue,
                Ok(below) => self.root().join(below),
                Err(_) => path.clone(),
            };
            if path.is_dir() {
                self.see_folder(&path, what)?;
            } else {
                self.see_file(path, what)?;
            }
        }
        Ok(())
    }

    fn see_folder(&mut self, path: &Path, what: What) -> Result<(), Fault> {
        let is_new = match what {
            What::Appeared | What::Complete => true,
            What::Opened => !self.folders.has(&self.watched(path)),
            What::BeingWritten | What::Touched | What::Gone => false,
        };
        if !is_new || self.below.leaves_out_any_of(path, true) {
            return Ok(());
        }
        // What was in there before it was watched has no events of its own.
        self.forget(path)?;
        self.scan(path, UNTOUCHED)
    }

    fn see_file(&mut self, path: PathBuf, what: What) -> Result<(), Fault> {
        if what == What::Gone {
            self.due.retain(|due, _| !due.starts_with(&path));
            return self.forget(&path); // it may have been a folder
        }
        if self.below.leaves_out_any_of(&path, false) {
            return Ok(());
        }
        match (Kind::of(&path), what) {
            (Kind::Picture, What::Complete) => self.wait(path, AFTER_CLOSE),
            (Kind::Picture, What::Appeared | What::Touched) => self.wait(path, UNTOUCHED),
            (Kind::Picture, What::BeingWritten) => drop(self.due.remove(&path)),
            (Kind::NotRead(format), What::Complete) => self.leave_out(path, format),
            _ => {}
        }
        Ok(())
    }

    /// Watches a folder and those below it no longer. What has another name is found under that.
    fn forget(&mut self, path: &Path) -> Result<(), Fault> {
        for other in self.folders.forget(&self.watched(path), &self.absolute) {
            self.scan(&self.named(&other), UNTOUCHED)?;
        }
        Ok(())
    }

    /// Watches the folders from `from` on, and waits for the pictures in them.
    fn scan(&mut self, from: &Path, patience: Duration) -> Result<(), Fault> {
        // A folder is watched when it is known already what is in it; should anything have come
        // in between, the next time shows it.
        let mut any_new = true;
        while any_new {
            any_new = false;
            let steps: Vec<Step> = walk(self.below, from).collect();
            for folder in names::in_order(self.root(), &steps) {
                any_new |= self.add_folder(folder)?;
            }
            for step in steps {
                match step {
                    Step::Folder(_) => {}
                    Step::Picture(path) if self.has_other_name(&path) => {}
                    Step::LeftOut(path, _) if self.has_other_name(&path) => {}
                    Step::Picture(path) => self.wait(path, patience),
                    Step::LeftOut(path, why) => self.leave_out(path, why),
                    Step::Unreadable(error) => self.unreadable(error)?,
                }
            }
        }
        Ok(())
    }

    /// Whether a file lies in a folder that is looked at under another name.
    fn has_other_name(&self, path: &Path) -> bool {
        let folder = path.parent().unwrap_or(path);
        self.folders.has_under_other_name(&self.watched(folder))
    }

    fn add_folder(&mut self, path: &Path) -> Result<bool, Fault> {
        match self.folders.add(&self.watched(path)) {
            Ok(is_new) => Ok(is_new),
            Err(Refusal::Limit(limit)) => Err(Fault::Limit(limit)),
            Err(refusal) if refusal.is_absence() && path != self.root() => Ok(false),
            // The walk tells that it cannot be read, and why.
            Err(Refusal::Other(_)) if path != self.root() && fs::read_dir(path).is_err() => {
                Ok(false)
            }
            Err(Refusal::Other(source)) => Err(Fault::Watch(WatchError::Watch {
                dir: path.to_owned(),
                source,
            })),
        }
    }

    /// Under which path a folder is watched.
    fn watched(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.root()).unwrap_or(path);
        match below.as_os_str().is_empty() {
            true => self.absolute.clone(),
            false => self.absolute.join(below),
        }
    }

    /// The path as it was given of a folder that is watched.
    fn named(&self, watched: &Path) -> PathBuf {
        let below = watched.strip_prefix(&self.absolute).unwrap_or(watched);
        match below.as_os_str().is_empty() {
            true => self.root().to_owned(),
            false => self.root().join(below),
        }
    }

    /// Looks which folders are others than before, and watches those.
    fn check(&mut self) -> Result<(), Fault> {
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

    fn root_is_gone(&self) -> bool {
        !self.root().is_dir()
    }

    fn check_every(&self) -> Duration {
        CHECK + Duration::from_millis(self.folders.len() as u64)
    }

    fn unreadable(&mut self, error: SourceError) -> Result<(), WatchError> {
        match error {
            // It was there a moment ago.
            SourceError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {}
            SourceError::Io { path, source } if path == self.root() => {
                return Err(SourceError::Io { path, source }.into());
            }
            SourceError::Io { path, source } => {
                if self.told.insert(path.clone()) {
                    let error = SourceError::Io { path, source };
                    self.notices.push(Arrival::Unreadable(error));
                }
            }
            error => return Err(error.into()),
        }
        Ok(())
    }

    fn leave_out(&mut self, path: PathBuf, why: &'static str) {
        if self.told.insert(path) {
            self.notices.push(Arrival::LeftOut(why));
        }
    }

    fn wait(&mut self, path: PathBuf, patience: Duration) {
        self.due.insert(path, Instant::now() + patience);
    }

    /// What can be handed over: notices, then the pictures that are due, by name.
    fn take_ready(&mut self, now: Instant) -> Vec<Arrival> {
        let due = self.due.extract_if(|_, due| *due <= now);
        let mut due: Vec<_> = due
            .map(|(path, _)| path)
            .filter(|path| has_content(path))
            .collect();
        due.sort();
        let pictures = due.into_iter().map(|path| arrived(self.below.root, path));
        let mut ready = std::mem::take(&mut self.notices);
        ready.extend(pictures);
        ready
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        let next = self.due.values().min();
        next.map_or(Duration::from_secs(3600), |due| {
            due.saturating_duration_since(Instant::now())
        })
    }
}

/// An empty file is a place that a program keeps for what it will write.
fn has_content(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

fn arrived(root: &Path, path: PathBuf) -> Arrival {
    let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
    Arrival::Picture(Found { path, name })
}

/// Waits for a folder that is replaced just now.
fn wait_for(dir: &Path) -> Result<(), WatchError> {
    let begun = Instant::now();
    while !dir.is_dir() {
        if begun.elapsed() >= ABSENCE {
            return Err(WatchError::Gone {
                dir: dir.to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Looks through the folder again and again.
fn poll(below: &Below<'_>, take: &mut dyn FnMut(Arrival) -> bool) -> Result<(), WatchError> {
    let mut polled = Polled::default();
    let mut told = HashSet::new();
    loop {
        wait_for(below.root)?;
        let mut pictures = Vec::new();
        let mut ready = Vec::new();
        let steps: Vec<Step> = walk(below, below.root).collect();
        let further = names::further(below.root, &steps);
        let has_other_name = |path: &Path| path.parent().is_some_and(|dir| further.contains(dir));
        for step in steps {
            match step {
                Step::Folder(_) => {}
                Step::Picture(path) | Step::LeftOut(path, _) if has_other_name(&path) => {}
                Step::Picture(path) if has_content(&path) => {
                    pictures.extend(Identity::of(&path).map(|identity| (path, identity)));
                }
                Step::Picture(_) => {}
                Step::LeftOut(path, why) => {
                    ready.extend(told.insert(path).then_some(Arrival::LeftOut(why)));
                }
                Step::Unreadable(SourceError::Io { path, source }) if path != below.root => {
                    let is_new = told.insert(path.clone());
                    let error = SourceError::Io { path, source };
                    ready.extend(is_new.then_some(Arrival::Unreadable(error)));
                }
                Step::Unreadable(error) => return Err(error.into()),
            }
        }
        let pictures = polled.look(pictures).into_iter();
        ready.extend(pictures.map(|path| arrived(below.root, path)));
        if !ready.into_iter().all(&mut *take) {
            return Ok(());
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests;
