//! A file mapped read-only into memory.
#![allow(unsafe_code)]

use std::fs::File;

/// A read-only, private map of a whole file.
#[derive(Debug)]
pub struct FileMap(memmap2::Mmap);

impl FileMap {
    /// Maps a file that is not empty.
    ///
    /// # Errors
    /// If the system cannot map it.
    pub fn new(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is read-only and private. As in every program that maps a model, if another process
        // truncates the file during use, this process ends (SIGBUS), and if another process rewrites it in place, the
        // weights change. Neither breaks memory safety: the bytes are plain data, for which every bit pattern is
        // valid. Our own writers, of models and of cache entries, replace files by renaming.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }

    /// The share of the file that is in the page cache, 0 to 1; `None` if the system does not report it.
    pub fn cached_share(&self) -> Option<f64> {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: reads a system constant.
            let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
            let mut pages = vec![0u8; self.0.len().div_ceil(page)];
            let start = self.0.as_ptr().cast_mut().cast();
            // SAFETY: the map has this length and starts at a page boundary; the vector has a byte for each of its
            // pages.
            let code = unsafe { libc::mincore(start, self.0.len(), pages.as_mut_ptr()) };
            let n_cached = pages.iter().filter(|page| **page & 1 == 1).count();
            (code == 0).then(|| n_cached as f64 / pages.len() as f64)
        }
        #[cfg(not(target_os = "linux"))]
        None
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
