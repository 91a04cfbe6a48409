//! A directory of computed things that later runs may use again.
//!
//! ```text
//! key (everything that decides the result) ──blake3──▶ file name
//! file = key + payload + checksum of both
//! ```
//!
//! An entry is used only if its file carries the very key that is asked for and its checksum is
//! right; anything else is a miss. Files are written whole under a temporary name and renamed, so
//! several processes may share a directory. The entries used longest ago go first when there are too
//! many bytes. docs/formats.md has the layout.

mod entry;
mod store;

use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::model::FileMap;

/// Where a cache is and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The directory; it is made if it is missing.
    pub dir: PathBuf,
    /// Bytes of all entries together; those used longest ago are removed beyond it.
    pub max_bytes: u64,
}

impl CacheOptions {
    /// Bytes that a cache takes if nothing else is asked for: about twenty pictures of the 1.8B.
    pub const DEFAULT_MAX_BYTES: u64 = 4 << 30;

    /// The cache of the person who runs this: `$XDG_CACHE_HOME/xc2-edge`, or `~/.cache/xc2-edge`.
    /// `None` if the environment names no home.
    pub fn for_user() -> Option<Self> {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path) // as the XDG specification demands
        };
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Some(Self {
            dir: cache?.join("xc2-edge"),
            max_bytes: Self::DEFAULT_MAX_BYTES,
        })
    }
}

/// What a cache was of use for, and what was wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheCounts {
    /// Entries used.
    pub n_hits: usize,
    /// Entries written.
    pub n_written: usize,
    /// Files that bear the name of an entry and are none, and entries that could not be written.
    pub n_faults: usize,
}

/// A file that says it is the entry asked for. It is mapped, so that large payloads are not copied
/// before their checksum is known, which may be computed while something else is done.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    map: FileMap,
    payload: Range<usize>,
}

impl Entry {
    /// Reads the whole file and holds it against its checksum.
    ///
    /// # Errors
    /// Says that the checksum is wrong.
    pub fn verify(&self) -> Result<(), &'static str> {
        entry::verify(self.map.as_ref())
    }
}

/// A directory of entries.
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
}

impl Cache {
    /// The cache in a directory. Nothing is touched before the first entry is written.
    pub fn new(options: CacheOptions) -> Self {
        Self { options }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The entry that was written under `key`. What is no such entry is a miss; if a file bears its
    /// name nevertheless, that is said in the log and counted.
    pub fn find(&self, kind: &str, key: &[u8], counts: &mut CacheCounts) -> Option<Entry> {
        let path = self.path(kind, key);
        let map = match File::open(&path).and_then(|file| FileMap::new(&file)) {
            Ok(map) => map,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.fault(counts, &path, &format!("it cannot be read: {error}"));
                return None;
            }
        };
        match entry::payload(map.as_ref(), key) {
            Ok(payload) => Some(Entry { path, map, payload }),
            Err(why) => {
                self.fault(counts, &path, why);
                None
            }
        }
    }

    /// Notes what came of an entry: its payload, or nothing, which is said and counted.
    pub fn settle<'a>(
        &self,
        entry: &'a Entry,
        verified: Result<(), &'static str>,
        counts: &mut CacheCounts,
    ) -> Option<&'a [u8]> {
        match verified {
            Ok(()) => {
                counts.n_hits += 1;
                store::touch(&entry.path, SystemTime::now());
                Some(&entry.map.as_ref()[entry.payload.clone()])
            }
            Err(why) => {
                self.fault(counts, &entry.path, why);
                None
            }
        }
    }

    /// A copy of the payload that was written under `key`: [`Self::find`], [`Entry::verify`] and
    /// [`Self::settle`] in one.
    pub fn get(&self, kind: &str, key: &[u8], counts: &mut CacheCounts) -> Option<Vec<u8>> {
        let entry = self.find(kind, key, counts)?;
        let payload = self.settle(&entry, entry.verify(), counts)?;
        Some(payload.to_vec())
    }

    /// Writes an entry, and removes old ones if there are too many bytes. A failure is said in the
    /// log and counted; it is no reason to fail an answer.
    pub fn put(&self, kind: &str, key: &[u8], payload: &[u8], counts: &mut CacheCounts) {
        let path = self.path(kind, key);
        let written = store::write(&self.options.dir, &path, |file| {
            entry::encode(file, key, payload)
        });
        match written {
            Ok(()) => {
                counts.n_written += 1;
                store::shrink(&self.options.dir, self.options.max_bytes, &path);
            }
            Err(error) => self.fault(counts, &path, &format!("it cannot be written: {error}")),
        }
    }

    fn path(&self, kind: &str, key: &[u8]) -> PathBuf {
        let name = blake3::hash(key).to_hex();
        self.options.dir.join(format!("{name}.{kind}"))
    }

    fn fault(&self, counts: &mut CacheCounts, path: &Path, why: &str) {
        counts.n_faults += 1;
        tracing::warn!("cache entry `{}` is not used: {why}", path.display());
    }
}

#[cfg(test)]
mod tests;
