//! The directory of a cache: writing, cleaning up, and sharing with other processes, which may create and remove files
//! at any moment.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The prefix of the names of files that are being written.
const PARTIAL: &str = ".partial-";

/// The age of a partial file above which its process is assumed to be gone.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Writes a file atomically.
pub fn write(
    dir: &Path,
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // Entries are trusted if their checksum is right, so only the user may write them.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(dir)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    content(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.persist(path)?;
    Ok(())
}

/// Records the use of an entry as its file's modification time. Failure, for example in a read-only directory, is
/// ignored.
pub fn touch(path: &Path, now: SystemTime) {
    let file = File::options().append(true).open(path);
    let _ = file.and_then(|file| file.set_modified(now));
}

struct Item {
    path: PathBuf,
    n_bytes: u64,
    used: SystemTime,
}

/// Removes the least recently used entries until the rest takes at most `max_bytes`; `newest` stays. Removes abandoned
/// partial files as well.
pub fn shrink(dir: &Path, max_bytes: u64, newest: &Path) {
    let mut items = items(dir);
    items.sort_by_key(|item| item.used);
    let mut total: u64 = items.iter().map(|item| item.n_bytes).sum();
    for item in items.iter().filter(|item| item.path != newest) {
        if total <= max_bytes {
            return;
        }
        // Another process may have removed it already.
        let _ = fs::remove_file(&item.path);
        total -= item.n_bytes;
    }
}

/// The readable entries of a directory.
fn items(dir: &Path) -> Vec<Item> {
    let Ok(files) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut items = Vec::new();
    for file in files.flatten() {
        let (path, name) = (file.path(), file.file_name());
        let Ok(metadata) = file.metadata() else {
            continue; // another process removed it
        };
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if name.to_string_lossy().starts_with(PARTIAL) {
            if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(&path);
            }
        } else if metadata.is_file() && is_entry(&path) {
            items.push(Item {
                n_bytes: metadata.len(),
                path,
                used,
            });
        }
    }
    items
}

/// Whether a file has the name of an entry, a digest and a kind. Other files are not removed.
fn is_entry(path: &Path) -> bool {
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or("");
    let is_digest = stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit());
    is_digest && path.extension().is_some()
}
