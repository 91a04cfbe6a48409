//! Pictures decoded within the memory there is.
//!
//! A photograph takes hundreds of megabytes for the moment between its file and the few hundred pixels a
//! side that the tower sees. Its header tells, so one too many is refused by name before it is decoded.

use crate::system;
use std::path::Path;

use rayon::prelude::*;

use super::{Engine, EngineOptions};
use crate::vision::image::{self, Decoded, ImageError};

impl EngineOptions {
    /// Bytes that this process may take beyond what it holds now; all there are where nothing is known or
    /// nothing is to be checked.
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
    /// [`ImageError::File`] with the path and, as its source, what is wrong: also if there is no memory for it.
    pub fn open_picture(&self, path: &Path) -> Result<Decoded, ImageError> {
        let bytes = image::read(path)?;
        self.decode_picture(&bytes).map_err(|e| e.of_file(path))
    }

    /// Decodes a picture from the content of its file.
    ///
    /// # Errors
    /// If it is none, or there is no memory for it.
    pub fn decode_picture(&self, file: &[u8]) -> Result<Decoded, ImageError> {
        image::decode_within(file, self.options.reading(), self.memory_left())
    }

    /// Opens what needs memory, as many as there are threads at a time, each within its share; those that do
    /// not fit into that one after the other, each with all that is left.
    pub(super) fn open_within<T: Sync, U: Send>(
        &self,
        items: &[T],
        open: impl Fn(&T, u64) -> Result<U, ImageError> + Sync,
    ) -> Result<Vec<U>, ImageError> {
        let at_once = items.len().min(rayon::current_num_threads()).max(1);
        let share = self.memory_left() / at_once as u64;
        let opened: Vec<_> = items.par_iter().map(|item| open(item, share)).collect();
        let again = |(item, opened): (&T, Result<U, ImageError>)| match opened {
            Err(error) if error.is_for_want_of_memory() => open(item, self.memory_left()),
            opened => opened,
        };
        items.iter().zip(opened).map(again).collect()
    }

    fn memory_left(&self) -> u64 {
        self.options.memory_left()
    }
}
