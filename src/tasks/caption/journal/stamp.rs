//! Whether somebody else writes to the file of records.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

/// By what it is noticed that somebody else has written to the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// Of the file at `path`, through links.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(path: &Path) -> io::Result<Self> {
        path.metadata().map(Self::from)
    }
}

impl From<fs::Metadata> for Stamp {
    fn from(file: fs::Metadata) -> Self {
        Self {
            dev: file.dev(),
            ino: file.ino(),
            len: file.len(),
            modified: file.modified().ok(),
        }
    }
}

/// Waits until whoever is writing a file, or putting another one in its place, seems to be done.
pub fn wait_for_writer(path: &Path) {
    const PAUSE: Duration = Duration::from_millis(100);
    const MOST: usize = 50;
    let mut before = Stamp::of(path).ok();
    for _ in 0..MOST {
        thread::sleep(PAUSE);
        let now = Stamp::of(path).ok();
        if now.is_some() && now == before {
            return;
        }
        before = now;
    }
}
