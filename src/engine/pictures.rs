//! The pictures of a request, and the embeddings of those seen lately.
//!
//! A picture is told by its content before it is decoded, so one that is known already costs no more
//! than reading its file.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use ndarray::Array2;

use super::{EngineError, Picture};
use crate::{
    language::prompt::PictureId,
    vision::image::{self, Decoded, ImageError, Preprocessor, Reading, RgbImage},
};

/// The projected embeddings of a picture, `[n_tokens, n_embd]`, in standard layout.
pub(super) type Embedding = Arc<Array2<f32>>;

/// A picture whose content is at hand.
pub(super) struct FoundPicture<'a> {
    pub id: PictureId,
    content: Content<'a>,
}

enum Content<'a> {
    File { path: &'a Path, bytes: Bytes },
    Pixels(&'a RgbImage),
}

impl<'a> FoundPicture<'a> {
    /// Reads the picture's file if it has one.
    ///
    /// # Errors
    /// If the file cannot be read, or there are no pixels.
    pub fn find(picture: &'a Picture) -> Result<Self, EngineError> {
        match picture {
            Picture::File(path) => Ok(Self::of_file(path, image::read(path)?.into())),
            Picture::Encoded { name, bytes } => Ok(Self::of_file(name.as_ref(), bytes.clone())),
            Picture::Pixels(pixels) => {
                let (width, height) = pixels.dimensions();
                if width == 0 || height == 0 {
                    return Err(ImageError::NoPixels { width, height }.into());
                }
                let limit = image::MAX_SIDE;
                if width.max(height) > limit {
                    let error = ImageError::TooLong {
                        width,
                        height,
                        limit,
                    };
                    return Err(error.into());
                }
                let id = PictureId::of_pixels(width, height, pixels.as_raw());
                let content = Content::Pixels(pixels);
                Ok(Self { id, content })
            }
        }
    }

    fn of_file(path: &'a Path, bytes: Bytes) -> Self {
        let id = PictureId::of_file(&bytes);
        let content = Content::File { path, bytes };
        Self { id, content }
    }

    /// The picture, resized for the tower: at once, because the original may be large. Decoding may take
    /// `max_bytes`.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn resized(
        &self,
        preprocessor: &Preprocessor,
        how: Reading,
        max_bytes: u64,
    ) -> Result<Decoded, ImageError> {
        match &self.content {
            Content::File { path, bytes } => {
                let decoded = image::decode_within(bytes, how, max_bytes);
                let decoded = decoded.map_err(|e| e.of_file(path))?;
                Ok(Decoded {
                    picture: preprocessor.resize(&decoded.picture),
                    ..decoded
                })
            }
            Content::Pixels(pixels) => Ok(Decoded {
                picture: preprocessor.resize(pixels),
                on_white: false, // the caller's own work
                is_short: false,
            }),
        }
    }
}

/// How far a picture's embeddings are away.
pub(super) enum Ready {
    /// The decoder holds what they would give.
    NotNeeded,
    /// They are known.
    Known(Embedding),
    /// The tower has to compute them, of this picture, resized.
    ToEncode(Decoded),
}

/// Embeddings of the pictures used last, up to a number of bytes; one picture has always room.
pub(super) struct EmbeddingCache {
    max_bytes: AtomicUsize,
    /// The one used last stands last.
    entries: Mutex<Vec<(PictureId, Embedding)>>,
}

impl EmbeddingCache {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes: AtomicUsize::new(max_bytes),
            entries: Mutex::default(),
        }
    }

    /// Keeps no more than so many bytes from the next picture on, but always that one.
    pub fn limit(&self, max_bytes: usize) {
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    pub fn get(&self, id: PictureId) -> Option<Embedding> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|entry| entry.0 == id)?;
        entries[at..].rotate_left(1);
        entries.last().map(|entry| Arc::clone(&entry.1))
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |e: &(_, Embedding)| e.1.len() * size_of::<f32>();
        entries.iter().map(bytes).sum()
    }

    pub fn put(&self, id: PictureId, embedding: &Embedding) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.0 != id);
        entries.push((id, Arc::clone(embedding)));
        let bytes = |e: &Embedding| e.len() * size_of::<f32>();
        let mut total: usize = entries.iter().map(|entry| bytes(&entry.1)).sum();
        let max_bytes = self.max_bytes.load(Ordering::Relaxed);
        while total > max_bytes && entries.len() > 1 {
            total -= bytes(&entries.remove(0).1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embeddings_used_longest_ago_go_first() {
        let [a, b, c] = [0, 1, 2].map(|i| PictureId::of_file(&[i]));
        let embedding: Embedding = Arc::new(Array2::zeros((2, 4)));
        let cache = EmbeddingCache::new(2 * 32);
        cache.put(a, &embedding);
        cache.put(b, &embedding);
        assert!(cache.get(a).is_some()); // b is the older one now
        cache.put(c, &embedding);
        assert!(cache.get(b).is_none());
        assert!(cache.get(a).is_some() && cache.get(c).is_some());
        cache.limit(0);
        cache.put(b, &embedding);
        assert!(cache.get(b).is_some() && cache.get(a).is_none() && cache.get(c).is_none());
    }
}
