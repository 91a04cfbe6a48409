//! How many tiles the pictures of a request are cut into.
//!
//! More tiles show more detail, and take more time and memory: a picture of 25 tiles is 3,700 positions of the prompt.
//! The default is that of the published code, or the largest number for which a picture fits into memory.

use super::{Engine, EngineError, Picture, Request, TileOptions, pictures::LoadedPicture};
use crate::{
    engine::{memory::Remedy, request::DEFAULT_N_PREDICT},
    model::{TileGrid, Tiling},
};

/// The maximum of `hd_num`; the published evaluations use up to 65.
pub const MAX_HD_NUM: u32 = 100;

/// Numbers of tiles to fall back to, the largest first.
const SMALLER: [u32; 8] = [20, 16, 12, 9, 6, 4, 2, 1];

/// Positions of a question with its system text, for choosing the default.
const QUESTION: usize = 256;

/// The default number of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultHdNum {
    /// The maximum number of tiles per picture.
    pub hd_num: u32,
    /// The published code's, if that does not fit into memory.
    pub published: Option<u32>,
}

/// The size of a picture as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// Its tiles, if it is cut into tiles.
    pub grid: Option<TileGrid>,
    /// Its positions in the prompt.
    pub n_tokens: usize,
}

/// How a request's pictures become the tower's input.
#[derive(Clone, Copy, Debug)]
pub(super) enum PictureRule {
    /// A square of fixed size.
    Square,
    /// Tiles.
    Tiles {
        tiling: Tiling,
        /// Maximum number of tiles per picture.
        hd_num: u32,
        /// An upper bound for pictures with a number of their own.
        limit: Option<u32>,
    },
}

impl Engine {
    /// The maximum number of tiles per picture if a request does not say; `None` for models without tiles.
    pub fn default_hd_num(&self) -> Option<DefaultHdNum> {
        let tiling = self.encoder.config().tiling?;
        let choose = || self.choose_hd_num(tiling.default_hd_num());
        Some(*self.default_hd_num.get_or_init(choose))
    }

    /// `published`, or the largest smaller number for which one picture and its answer fit into memory.
    fn choose_hd_num(&self, published: u32) -> DefaultHdNum {
        let fits = |hd_num: u32| {
            let n_ctx = self.encoder.config().n_embeddings_at_most(hd_num) + QUESTION;
            let need = self.memory_need((n_ctx + DEFAULT_N_PREDICT).min(self.max_context()));
            let loaded = self.loaded_bytes(&need);
            let limit = self.options.memory_limit(loaded);
            limit.is_none_or(|limit| need.total() <= limit)
        };
        if fits(published) {
            return DefaultHdNum {
                hd_num: published,
                published: None,
            };
        }
        let smaller = SMALLER.into_iter().filter(|n| *n < published);
        DefaultHdNum {
            hd_num: smaller.into_iter().find(|n| fits(*n)).unwrap_or(1),
            published: Some(published),
        }
    }

    /// Adds to an error about memory the largest number of tiles with which `request` would fit.
    pub(super) fn with_fewer_tiles(&self, error: EngineError, request: &Request) -> EngineError {
        let EngineError::Memory {
            need,
            available,
            mut remedies,
            smaller_model,
        } = error
        else {
            return error;
        };
        let n_images = request.images.len();
        if let Some(default) = self.default_hd_num().filter(|_| n_images > 0) {
            let asked = request.tiles.hd_num.unwrap_or(default.hd_num);
            let with = |hd_num: u32| {
                let n_picture = self.encoder.config().n_embeddings_at_most(hd_num);
                let n_ctx = n_images * n_picture + QUESTION + request.n_predict;
                self.memory_need(n_ctx.min(self.max_context())).total()
            };
            let mut smaller = SMALLER.into_iter().filter(|hd_num| *hd_num < asked);
            if let Some(hd_num) = smaller.find(|hd_num| with(*hd_num) <= available) {
                let options = format!("--hd-num {hd_num}");
                let need = with(hd_num);
                remedies.insert(0, Remedy { options, need });
            }
        }
        EngineError::Memory {
            need,
            available,
            remedies,
            smaller_model,
        }
    }

    /// The largest number of positions that each of `n_images` pictures can take.
    pub fn n_tokens_at_most(&self, n_images: usize, tiles: TileOptions) -> usize {
        let config = self.encoder.config();
        let default = self.default_hd_num().map_or(1, |default| default.hd_num);
        let limit = several_limit(config.tiling, n_images, tiles);
        config.n_embeddings_at_most(limit.or(tiles.hd_num).unwrap_or(default))
    }

    /// The largest possible number of positions of the prompt of `request` with `n_images` pictures, whatever they
    /// are.
    ///
    /// # Errors
    /// If the prompt is empty.
    pub fn n_prompt_at_most(
        &self,
        request: &Request,
        n_images: usize,
    ) -> Result<usize, EngineError> {
        let lengths = vec![self.n_tokens_at_most(n_images, request.tiles); n_images];
        Ok(self.sequence(request, &lengths)?.len())
    }

    /// The sizes of the pictures of `request`, from the headers of their files.
    ///
    /// # Errors
    /// If a picture cannot be read, or tiles or frames are requested that the model does not have.
    pub fn picture_sizes(&self, request: &Request) -> Result<Vec<PictureSize>, EngineError> {
        let pictures = self.load_pictures(request)?;
        let size = |picture: &LoadedPicture<'_>| PictureSize {
            grid: picture.grid(),
            n_tokens: picture.n_tokens,
        };
        Ok(pictures.iter().map(size).collect())
    }

    /// The rule for the pictures of `request`.
    ///
    /// # Errors
    /// If it asks for tiles or frames of a model that has none, or for an invalid number of tiles.
    pub(super) fn picture_rule(&self, request: &Request) -> Result<PictureRule, EngineError> {
        let own = request.images.iter().filter_map(own_hd_num);
        let asked = request.tiles.hd_num.into_iter().chain(own);
        for hd_num in asked {
            self.check_hd_num(hd_num)?;
        }
        let Some(tiling) = self.encoder.config().tiling else {
            return Ok(PictureRule::Square);
        };
        let limit = several_limit(Some(tiling), request.images.len(), request.tiles);
        let default = || self.default_hd_num().map_or(1, |default| default.hd_num);
        let hd_num = request.tiles.hd_num.unwrap_or_else(default);
        Ok(PictureRule::Tiles {
            tiling,
            hd_num,
            limit,
        })
    }

    /// Checks that the model cuts pictures into tiles, and that their number is valid.
    ///
    /// # Errors
    /// If not.
    pub fn check_hd_num(&self, hd_num: u32) -> Result<(), EngineError> {
        let config = self.encoder.config();
        if config.tiling.is_none() {
            let size = config.image_size;
            return Err(EngineError::NoTiles { size });
        }
        if (1..=MAX_HD_NUM).contains(&hd_num) {
            Ok(())
        } else {
            Err(EngineError::HdNum { found: hd_num })
        }
    }
}

impl PictureRule {
    /// The maximum number of tiles of a picture that asks for `own`.
    ///
    /// Where the published code has a fixed number for several pictures, it applies whatever is asked for.
    pub fn hd_num(self, own: Option<u32>) -> u32 {
        match self {
            Self::Square => 1,
            Self::Tiles { hd_num, limit, .. } => limit.unwrap_or(own.unwrap_or(hd_num)),
        }
    }
}

/// The published code's number of tiles for each of several pictures, if it applies.
fn several_limit(tiling: Option<Tiling>, n_images: usize, tiles: TileOptions) -> Option<u32> {
    let limit = tiling?.hd_num_of_several();
    limit.filter(|_| n_images > 1 && !tiles.full_for_several)
}

/// The maximum number of tiles that a picture asks for itself.
pub(super) fn own_hd_num(picture: &Picture) -> Option<u32> {
    match picture {
        Picture::WithTiles { hd_num, .. } => Some(*hd_num),
        _ => None,
    }
}
