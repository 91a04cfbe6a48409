//! A directory of computed results that later runs can reuse.
//!
//! ```text
//! key (everything that decides the result) ──blake3──▶ file name
//! file = key + payload + checksum of both
//! ```
//!
//! An entry is used only if its file has the requested key and the right checksum; anything else is a miss. Files are
//! written under a temporary name and renamed, so several processes may share a directory. When the entries take too
//! many bytes, the least recently used ones are removed. docs/formats.md has the layout.

mod entry;
mod store;

use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::model::FileMap;

/// Directory and size limit of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The directory; it is created if it is missing.
    pub dir: PathBuf,
    /// The maximum size of all entries together, in bytes; the least recently used ones are removed above it.
    pub max_bytes: u64,
}

impl CacheOptions {
    /// The default size limit: about twenty pictures of the 1.8B.
    pub const DEFAULT_MAX_BYTES: u64 = 4 << 30;

    /// The user's cache: `$XDG_CACHE_HOME/xc2-edge`, or `~/.cache/xc2-edge`. `None` if the environment names neither.
    pub fn for_user() -> Option<Self> {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path) // required by the XDG specification
        };
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Some(Self {
            dir: cache?.join("xc2-edge"),
            max_bytes: Self::DEFAULT_MAX_BYTES,
        })
    }
}

/// Hits, writes and faults of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheCounts {
    /// Entries used.
    pub n_hits: usize,
    /// Entries written.
    pub n_written: usize,
    /// Files with an entry's name that are not valid entries, and entries that could not be written.
    pub n_faults: usize,
}

/// A file whose header is that of the requested entry. It is mapped, so a large payload is not copied before its
/// checksum is verified, and verification can run in parallel to other work.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    map: FileMap,
    payload: Range<usize>,
}

impl Entry {
    /// Reads the whole file and compares it with its checksum.
    ///
    /// # Errors
    /// If the checksum is wrong.
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
    /// The cache in a directory, which is created when the first entry is written.
    pub fn new(options: CacheOptions) -> Self {
        Self { options }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The entry that was written under `key`. A file with its name that is not this entry is a miss, logged and
    /// counted.
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

    /// The payload of an entry that was `verified`, counted as a hit. A damaged one is logged and counted.
    pub fn payload<'a>(
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

    /// A copy of the payload that was written under `key`: [`Self::find`], [`Entry::verify`] and [`Self::payload`] in
    /// one call.
    pub fn get(&self, kind: &str, key: &[u8], counts: &mut CacheCounts) -> Option<Vec<u8>> {
        let entry = self.find(kind, key, counts)?;
        let payload = self.payload(&entry, entry.verify(), counts)?;
        Some(payload.to_vec())
    }

    /// Writes an entry, and removes old ones above the size limit. A failure is logged and counted, but is not an
    /// error of the request.
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
        tracing::warn!("ignored cache entry `{}`: {why}", path.display());
    }
}

#[cfg(test)]
mod tests;
