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

use super::{
    Engine, EngineError, Frames, Picture, PreparedPicture, Request, TileOptions,
    tiles::{PictureRule, own_hd_num},
};
use crate::{
    language::prompt::PictureId,
    model::{TileGrid, Tiling, VisionConfig},
    vision::image::{
        self, Decoded, ImageError, Preprocessor, ReadOptions, RgbImage, TileMode, TilePlan, strip,
    },
};

/// The projected embeddings of a picture, `[n_tokens, n_embd]`, in standard layout.
pub(super) type Embedding = Arc<Array2<f32>>;

/// A picture whose file is in memory, or whose pixels were given.
pub(super) struct LoadedPicture<'a> {
    pub id: PictureId,
    /// Number of its embeddings.
    pub n_tokens: usize,
    content: PictureContent<'a>,
    grid: Option<TileGrid>,
    /// How it is cut into tiles, unless that is done or not needed.
    plan: Option<TilePlan>,
    /// Its width and height, if there is a plan.
    size: (u32, u32),
}

enum PictureContent<'a> {
    One(PictureData<'a>),
    Prepared(&'a PreparedPicture),
    /// Frames of a video, and whether they get labels.
    Frames(Vec<PictureData<'a>>, bool),
}

enum PictureData<'a> {
    File { path: &'a Path, bytes: Bytes },
    Pixels(&'a RgbImage),
}

impl<'a> PictureData<'a> {
    /// Reads the picture's file if it has one.
    fn load(picture: &'a Picture) -> Result<Self, EngineError> {
        match picture {
            Picture::File(path) => {
                let bytes = image::read(path)?.into();
                Ok(Self::File { path, bytes })
            }
            Picture::Encoded { name, bytes } => Ok(Self::File {
                path: name.as_ref(),
                bytes: bytes.clone(),
            }),
            Picture::Pixels(pixels) => {
                check_sides(pixels)?;
                Ok(Self::Pixels(pixels))
            }
            Picture::WithTiles { picture, .. } => Self::load(picture),
            Picture::Prepared(_) | Picture::Frames(_) => Err(EngineError::Frames {
                expected: "files or pixels as frames",
                found: "another kind of picture".to_owned(),
            }),
        }
    }

    fn id(&self) -> PictureId {
        match self {
            Self::File { bytes, .. } => PictureId::of_file(bytes),
            Self::Pixels(pixels) => {
                PictureId::of_pixels(pixels.width(), pixels.height(), pixels.as_raw())
            }
        }
    }

    /// Width and height, from the file's header.
    fn dimensions(&self, options: ReadOptions) -> Result<(u32, u32), ImageError> {
        match self {
            Self::File { path, bytes } => {
                image::dimensions(bytes, options).map_err(|e| e.of_file(path))
            }
            Self::Pixels(pixels) => Ok(pixels.dimensions()),
        }
    }

    /// The picture, passed through `prepare` right after decoding, because the original may be large. Decoding may
    /// take `max_bytes`.
    fn decode(
        &self,
        options: ReadOptions,
        max_bytes: u64,
        prepare: impl FnOnce(&RgbImage) -> RgbImage,
    ) -> Result<Decoded, ImageError> {
        match self {
            Self::File { path, bytes } => {
                let decoded = image::decode_within(bytes, options, max_bytes);
                let decoded = decoded.map_err(|e| e.of_file(path))?;
                Ok(Decoded {
                    picture: prepare(&decoded.picture),
                    ..decoded
                })
            }
            Self::Pixels(pixels) => Ok(Decoded {
                picture: prepare(pixels),
                on_white: false, // the caller composites
                is_truncated: false,
            }),
        }
    }
}

fn check_sides(pixels: &RgbImage) -> Result<(), ImageError> {
    let (width, height) = pixels.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    let limit = image::MAX_SIDE;
    if width.max(height) > limit {
        return Err(ImageError::TooLong {
            width,
            height,
            limit,
        });
    }
    Ok(())
}

impl<'a> LoadedPicture<'a> {
    /// Reads the picture's file if it has one, and plans its tiles by `rule`.
    ///
    /// # Errors
    /// If the file cannot be read, given pixels have no extent or too large a side, or the rule does not permit it.
    pub fn load(
        picture: &'a Picture,
        rule: PictureRule,
        tower: &VisionConfig,
        options: ReadOptions,
    ) -> Result<Self, EngineError> {
        let content = match picture {
            Picture::Frames(frames) => {
                check_frames(frames, rule)?;
                let data = frames.pictures.iter().map(PictureData::load);
                PictureContent::Frames(data.collect::<Result<_, _>>()?, frames.labels)
            }
            Picture::Prepared(prepared) => return Ok(Self::prepared(prepared, tower)),
            one => PictureContent::One(PictureData::load(one)?),
        };
        let PictureRule::Tiles { tiling, .. } = rule else {
            return Ok(Self {
                id: content.id(),
                n_tokens: tower.n_patches(),
                content,
                grid: None,
                plan: None,
                size: (0, 0),
            });
        };
        let hd_num = rule.hd_num(own_hd_num(picture));
        let mode = content.tile_mode(hd_num);
        let size = content.dimensions(options)?;
        let plan = TilePlan::new(tiling, tower.image_size as u32, size, mode)
            .map_err(|e| content.name_in(e))?;
        Ok(Self {
            id: content.id().in_tiles(plan.grid),
            n_tokens: tower.n_tiled_embeddings(plan.grid),
            content,
            grid: Some(plan.grid),
            plan: Some(plan),
            size,
        })
    }

    fn prepared(picture: &'a PreparedPicture, tower: &VisionConfig) -> Self {
        let (pixels, grid) = (&picture.pixels, picture.grid);
        let id = PictureId::of_pixels(pixels.width(), pixels.height(), pixels.as_raw());
        Self {
            id: grid.map_or(id, |grid| id.in_tiles(grid)),
            n_tokens: grid.map_or(tower.n_patches(), |grid| tower.n_tiled_embeddings(grid)),
            content: PictureContent::Prepared(picture),
            grid,
            plan: None,
            size: (0, 0),
        }
    }

    /// Its tiles, if it is cut into tiles.
    pub fn grid(&self) -> Option<TileGrid> {
        self.grid
    }

    /// The picture in the size that the tower takes, or all of its tiles side by side.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn resized(
        &self,
        preprocessor: &Preprocessor,
        options: ReadOptions,
        max_bytes: u64,
    ) -> Result<ResizedPicture, ImageError> {
        let n_threads = rayon::current_num_threads();
        let tiling = self.plan.map_or(0, |plan| plan.bytes(self.size, n_threads));
        let (available, max_bytes) = (max_bytes, max_bytes.saturating_sub(tiling));
        let resize = |picture: &RgbImage| match &self.plan {
            None => preprocessor.resize(picture),
            Some(plan) => preprocessor.tile(picture, plan),
        };
        let resized = match &self.content {
            PictureContent::One(data) => data
                .decode(options, max_bytes, resize)
                .map_err(|e| e.with_more_memory(tiling, available))?,
            PictureContent::Prepared(prepared) => {
                return Ok(ResizedPicture {
                    pixels: Arc::clone(&prepared.pixels),
                    on_white: false, // the caller composites
                    is_truncated: false,
                });
            }
            PictureContent::Frames(frames, labels) => {
                let strip = decode_strip(frames, *labels, options, max_bytes)?;
                Decoded {
                    picture: resize(&strip.picture),
                    ..strip
                }
            }
        };
        Ok(ResizedPicture {
            pixels: Arc::new(resized.picture),
            on_white: resized.on_white,
            is_truncated: resized.is_truncated,
        })
    }
}

impl PictureContent<'_> {
    fn id(&self) -> PictureId {
        match self {
            Self::One(data) => data.id(),
            Self::Prepared(_) => unreachable!("it has no file"),
            Self::Frames(frames, labels) => {
                let ids: Vec<_> = frames.iter().map(PictureData::id).collect();
                PictureId::of_frames(&ids, *labels)
            }
        }
    }

    fn tile_mode(&self, hd_num: u32) -> TileMode {
        match self {
            Self::One(_) | Self::Prepared(_) => TileMode::Picture { hd_num },
            Self::Frames(..) => TileMode::Strip,
        }
    }

    /// Width and height of the picture, or of the strip of all frames.
    fn dimensions(&self, options: ReadOptions) -> Result<(u32, u32), ImageError> {
        match self {
            Self::One(data) => data.dimensions(options),
            Self::Prepared(picture) => Ok(picture.pixels.dimensions()),
            Self::Frames(frames, _) => {
                let sizes = frames.iter().map(|frame| frame.dimensions(options));
                Ok(strip::size(&sizes.collect::<Result<Vec<_>, _>>()?))
            }
        }
    }

    /// `error` with the name of the picture's file, if it has one.
    fn name_in(&self, error: ImageError) -> ImageError {
        match self {
            Self::One(PictureData::File { path, .. }) => error.of_file(path),
            _ => error,
        }
    }
}

/// Checks that the model sees frames, and that there are as many as it was trained with.
fn check_frames(frames: &Frames, rule: PictureRule) -> Result<(), EngineError> {
    let found = frames.pictures.len();
    match rule {
        PictureRule::Tiles {
            tiling: Tiling::V2d5,
            ..
        } if (1..=strip::MAX_FRAMES).contains(&found) => Ok(()),
        PictureRule::Tiles {
            tiling: Tiling::V2d5,
            ..
        } => Err(EngineError::Frames {
            expected: "1 to 32 frames",
            found: found.to_string(),
        }),
        _ => Err(EngineError::Frames {
            expected: "a 2.5 model, which sees a video as one strip of frames",
            found: "another model".to_owned(),
        }),
    }
}

/// Decodes frames one after another and puts them into a strip.
fn decode_strip(
    frames: &[PictureData<'_>],
    labels: bool,
    options: ReadOptions,
    max_bytes: u64,
) -> Result<Decoded, ImageError> {
    let mut resized = Vec::with_capacity(frames.len());
    let (mut on_white, mut is_truncated) = (false, false);
    let mut last_size = (0, 0);
    for frame in frames {
        let decoded = frame.decode(options, max_bytes, |picture| {
            last_size = picture.dimensions();
            strip::resize_frame(picture)
        })?;
        on_white |= decoded.on_white;
        is_truncated |= decoded.is_truncated;
        resized.push(decoded.picture);
    }
    Ok(Decoded {
        picture: strip::join(&resized, last_size, labels),
        on_white,
        is_truncated,
    })
}

impl Engine {
    /// Resizes a decoded picture for the tower, or cuts it into tiles as `tiles` says for a single picture. Much
    /// smaller than a photograph, it can be kept until it is needed.
    ///
    /// # Errors
    /// If the picture has no pixels or cannot be cut into tiles, or `tiles` does not suit the model.
    pub fn prepare_picture(
        &self,
        picture: &RgbImage,
        tiles: TileOptions,
    ) -> Result<PreparedPicture, EngineError> {
        check_sides(picture)?;
        let request = Request {
            tiles,
            ..Request::default()
        };
        let rule = self.picture_rule(&request)?;
        let PictureRule::Tiles { tiling, .. } = rule else {
            return Ok(PreparedPicture {
                pixels: Arc::new(self.preprocessor.resize(picture)),
                grid: None,
            });
        };
        let hd_num = rule.hd_num(None);
        let mode = TileMode::Picture { hd_num };
        let tile = self.encoder.config().image_size as u32;
        let plan = TilePlan::new(tiling, tile, picture.dimensions(), mode)?;
        Ok(PreparedPicture {
            pixels: Arc::new(self.preprocessor.tile(picture, &plan)),
            grid: Some(plan.grid),
        })
    }
}

/// A picture in the size that the tower takes, or all of its tiles side by side.
pub(super) struct ResizedPicture {
    pub pixels: Arc<RgbImage>,
    /// Whether transparent parts were blended on white.
    pub on_white: bool,
    /// Whether the file ends early, so that parts of the picture are grey.
    pub is_truncated: bool,
}

/// What the tower has to do for a picture.
pub(super) enum EncoderInput {
    /// Nothing: the KV cache has the picture's positions.
    NotNeeded,
    /// Nothing: the embeddings are cached.
    Cached(Embedding),
    /// Encode this resized picture.
    Encode(ResizedPicture),
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
