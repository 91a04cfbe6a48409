//! The directory of a cache: written to, cleaned up, and shared with other processes, whose files
//! may come and go at any moment.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Begins the names of files that are being written.
const PARTIAL: &str = ".partial-";

/// A file that was being written this long ago never will be finished: its process is gone.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Writes a file whole or not at all.
pub fn write(
    dir: &Path,
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // What stands there is trusted once its checksum is right: it is for its user only.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(dir)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    content(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.persist(path)?;
    Ok(())
}

/// Notes that an entry was used. That this fails, on a read-only directory say, is no harm.
pub fn touch(path: &Path, now: SystemTime) {
    let file = File::options().append(true).open(path);
    let _ = file.and_then(|file| file.set_modified(now));
}

struct Item {
    path: PathBuf,
    n_bytes: u64,
    used: SystemTime,
}

/// Removes the entries used longest ago until the rest takes at most `max_bytes`; `newest` stays.
/// Abandoned partial files go as well.
pub fn shrink(dir: &Path, max_bytes: u64, newest: &Path) {
    let mut items = items(dir);
    items.sort_by_key(|item| item.used);
    let mut total: u64 = items.iter().map(|item| item.n_bytes).sum();
    for item in items.iter().filter(|item| item.path != newest) {
        if total <= max_bytes {
            return;
        }
        // Somebody else may have removed it already; either way it is gone.
        let _ = fs::remove_file(&item.path);
        total -= item.n_bytes;
    }
}

/// The entries in a directory, as far as they can be looked at.
fn items(dir: &Path) -> Vec<Item> {
    let Ok(files) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut items = Vec::new();
    for file in files.flatten() {
        let (path, name) = (file.path(), file.file_name());
        let Ok(metadata) = file.metadata() else {
            continue; // it vanished
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

/// Whether a file has a name that entries have: a digest and a kind. Whatever else lies in the
/// directory is not ours to remove.
fn is_entry(path: &Path) -> bool {
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or("");
    let is_digest = stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit());
    is_digest && path.extension().is_some()
}
