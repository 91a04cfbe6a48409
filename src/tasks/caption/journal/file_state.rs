//! Detects that another program writes to the record file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

/// The identity, length and modification time of a file. A difference shows that another program has written to
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    dev: u64,
    ino: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    /// The state of the file at `path`, following links.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        path.metadata().map(Self::from)
    }
}

impl From<fs::Metadata> for FileState {
    fn from(file: fs::Metadata) -> Self {
        Self {
            dev: file.dev(),
            ino: file.ino(),
            len: file.len(),
            modified: file.modified().ok(),
        }
    }
}

/// Waits until a file has not changed for 100 ms, at most 5 s.
pub fn wait_for_writer(path: &Path) {
    const PAUSE: Duration = Duration::from_millis(100);
    const MAX_PAUSES: usize = 50;
    let mut previous = FileState::of(path).ok();
    for _ in 0..MAX_PAUSES {
        thread::sleep(PAUSE);
        let now = FileState::of(path).ok();
        if now.is_some() && now == previous {
            return;
        }
        previous = now;
    }
}
