//! The pictures of a request, and a cache of embeddings.
//!
//! A picture is identified by the digest of its file before it is decoded, so a cached picture costs no more than
//! reading its file.

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
    vision::image::{self, Decoded, ImageError, Preprocessor, ReadOptions, RgbImage},
};

/// The projected embeddings of a picture, `[n_tokens, n_embd]`, in standard layout.
pub(super) type Embedding = Arc<Array2<f32>>;

/// A picture whose file is in memory, or whose pixels were given.
pub(super) struct LoadedPicture<'a> {
    pub id: PictureId,
    content: PictureData<'a>,
}

enum PictureData<'a> {
    File { path: &'a Path, bytes: Bytes },
    Pixels(&'a RgbImage),
}

impl<'a> LoadedPicture<'a> {
    /// Reads the picture's file if it has one.
    ///
    /// # Errors
    /// If the file cannot be read, or given pixels have no extent or too large a side.
    pub fn load(picture: &'a Picture) -> Result<Self, EngineError> {
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
                let content = PictureData::Pixels(pixels);
                Ok(Self { id, content })
            }
        }
    }

    fn of_file(path: &'a Path, bytes: Bytes) -> Self {
        let id = PictureId::of_file(&bytes);
        let content = PictureData::File { path, bytes };
        Self { id, content }
    }

    /// The picture, resized for the tower. It is resized right after decoding, because the original may be large.
    /// Decoding may take `max_bytes`.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn resized(
        &self,
        preprocessor: &Preprocessor,
        options: ReadOptions,
        max_bytes: u64,
    ) -> Result<Decoded, ImageError> {
        match &self.content {
            PictureData::File { path, bytes } => {
                let decoded = image::decode_within(bytes, options, max_bytes);
                let decoded = decoded.map_err(|e| e.of_file(path))?;
                Ok(Decoded {
                    picture: preprocessor.resize(&decoded.picture),
                    ..decoded
                })
            }
            PictureData::Pixels(pixels) => Ok(Decoded {
                picture: preprocessor.resize(pixels),
                on_white: false, // the caller composites
                is_truncated: false,
            }),
        }
    }
}

/// What the tower has to do for a picture.
pub(super) enum EncoderInput {
    /// Nothing: the KV cache has the picture's positions.
    NotNeeded,
    /// Nothing: the embeddings are cached.
    Cached(Embedding),
    /// Encode this resized picture.
    Encode(Decoded),
}

/// An LRU cache of embeddings, limited in bytes. The last one always stays.
pub(super) struct EmbeddingCache {
    max_bytes: AtomicUsize,
    /// The most recently used one is last.
    entries: Mutex<Vec<(PictureId, Embedding)>>,
}

impl EmbeddingCache {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes: AtomicUsize::new(max_bytes),
            entries: Mutex::default(),
        }
    }

    /// Sets the limit. It applies from the next picture on.
    pub fn limit(&self, max_bytes: usize) {
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    pub fn get(&self, id: PictureId) -> Option<Embedding> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|entry| entry.0 == id)?;
        entries[at..].rotate_left(1);
        entries.last().map(|entry| Arc::clone(&entry.1))
    }

    /// Bytes of all cached embeddings.
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
    fn the_least_recently_used_embeddings_are_evicted() {
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
