//! Read speed of storage, without the page cache.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Bytes per read, large enough for the full rate of any disk.
const CHUNK: usize = 4 << 20;
/// Alignment of direct reads, in memory and in the file.
const ALIGN: usize = 4096;
/// Limits of a measurement.
const MAX_BYTES: u64 = 256 << 20;
const MAX_TIME: Duration = Duration::from_secs(3);
/// Size of the file that is written to measure a folder.
const PROBE_BYTES: u64 = 64 << 20;

/// Measured storage.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Bytes per second.
    pub rate: f64,
    /// Whether the page cache was bypassed. If the file system cannot do that, the rate may be that of
    /// memory.
    pub direct: bool,
}

/// Checks that `path` exists.
///
/// # Errors
/// If it does not exist or is not accessible.
pub fn find(path: &Path) -> anyhow::Result<fs::Metadata> {
    fs::metadata(path).with_context(|| name(path))
}

fn name(path: &Path) -> String {
    format!("{}: cannot be measured", path.display())
}

/// Measures the storage of a file, or of a folder with a temporary file in it.
///
/// # Errors
/// If there is nothing to read, or reading or writing fails.
pub fn measure(path: &Path) -> anyhow::Result<Storage> {
    let name = || name(path);
    if !find(path)?.is_dir() {
        return measure_file(path).with_context(name);
    }
    let probe = || -> io::Result<Storage> {
        let mut file = tempfile::NamedTempFile::new_in(path)?;
        let chunk = vec![0xa5; CHUNK];
        for _ in 0..PROBE_BYTES / CHUNK as u64 {
            file.write_all(&chunk)?;
        }
        file.as_file().sync_all()?;
        measure_file(file.path())
    };
    probe().with_context(name)
}

fn measure_file(path: &Path) -> io::Result<Storage> {
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    if let Ok(file) = direct
        && let Ok(rate) = read_rate(&file)
    {
        return Ok(Storage { rate, direct: true });
    }
    // Some file systems, such as tmpfs and network ones, do not support direct reads.
    let rate = read_rate(&File::open(path)?)?;
    Ok(Storage {
        rate,
        direct: false,
    })
}

/// Bytes per second of reading chunks that are spread over the file.
fn read_rate(file: &File) -> io::Result<f64> {
    let chunks = (file.metadata()?.len() / CHUNK as u64).max(1);
    let wanted = chunks.min(MAX_BYTES / CHUNK as u64);
    let mut unaligned = vec![0u8; CHUNK + ALIGN];
    let begin = unaligned.as_ptr().align_offset(ALIGN);
    let buffer = &mut unaligned[begin..begin + CHUNK];
    let (start, mut n_bytes) = (Instant::now(), 0);
    for i in 0..wanted {
        let at = i * chunks / wanted * CHUNK as u64;
        n_bytes += file.read_at(buffer, at)?;
        if start.elapsed() > MAX_TIME {
            break;
        }
    }
    if n_bytes == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file is empty",
        ));
    }
    Ok(n_bytes as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_leaves_no_files_behind() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = dir.path().join("small");
        fs::write(&file, vec![1; 100_000]).unwrap();
        assert!(measure(&file).unwrap().rate > 0.0);
        assert!(measure(dir.path()).unwrap().rate > 0.0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        for path in [empty, dir.path().join("missing")] {
            let error = format!("{:#}", measure(&path).unwrap_err());
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
