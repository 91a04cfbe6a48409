//! Decoding pictures within the available memory.
//!
//! A photograph takes hundreds of megabytes between its file and the few hundred pixels a side that the tower
//! sees. Its header states its size, so a picture that does not fit is rejected by name before it is decoded.

use std::path::Path;

use rayon::prelude::*;

use super::{Engine, EngineOptions};
use crate::{
    system,
    vision::image::{self, Decoded, ImageError},
};

impl EngineOptions {
    /// Bytes that this process may still allocate; `u64::MAX` if unknown or if memory is not checked.
    fn memory_left(&self) -> u64 {
        let own = (self.max_memory)
            .map(|max| max.saturating_sub(system::memory::resident().unwrap_or(0)));
        let limits = [system::memory::available(), own].into_iter().flatten();
        limits
            .min()
            .filter(|_| self.check_memory)
            .unwrap_or(u64::MAX)
    }
}

impl Engine {
    /// Reads and decodes the picture in a file.
    ///
    /// # Errors
    /// [`ImageError::File`] with the path and the cause as its source; the cause may be too little memory.
    pub fn open_picture(&self, path: &Path) -> Result<Decoded, ImageError> {
        let bytes = image::read(path)?;
        self.decode_picture(&bytes).map_err(|e| e.of_file(path))
    }

    /// Decodes a picture from the content of its file.
    ///
    /// # Errors
    /// If it is not a picture, or does not fit into memory.
    pub fn decode_picture(&self, file: &[u8]) -> Result<Decoded, ImageError> {
        image::decode_within(file, self.options.read_options(), self.memory_left())
    }

    /// Calls `open` for each item with the bytes it may use: first in parallel, one item per thread, each with an
    /// equal share of the memory; then the items that do not fit, one at a time, each with all that is left.
    pub(super) fn open_within<T: Sync, U: Send>(
        &self,
        items: &[T],
        open: impl Fn(&T, u64) -> Result<U, ImageError> + Sync,
    ) -> Result<Vec<U>, ImageError> {
        let n_parallel = items.len().min(rayon::current_num_threads()).max(1);
        let share = self.memory_left() / n_parallel as u64;
        let opened: Vec<_> = items.par_iter().map(|item| open(item, share)).collect();
        let retry = |(item, opened): (&T, Result<U, ImageError>)| match opened {
            Err(error) if error.is_out_of_memory() => open(item, self.memory_left()),
            opened => opened,
        };
        items.iter().zip(opened).map(retry).collect()
    }

    fn memory_left(&self) -> u64 {
        self.options.memory_left()
    }
}
