//! What the tower sees of a recorded picture.

use std::path::Path;

use ndarray::{Array2, ArrayView2};

use super::{
    VerifyError,
    golden::{GoldenDir, GoldenError},
    picture_source::PictureSource,
};
use crate::{
    engine::Engine,
    model::{TileGrid, Tiling},
    vision::{
        StageObserver,
        image::{self, PixelValues, ReadOptions, RgbImage, TileMode, TilePlan},
    },
};

/// A picture in the size that the tower takes, or all of its tiles side by side.
pub(super) struct TowerInput {
    pub picture: RgbImage,
    /// The tiles, for models that cut pictures into tiles.
    pub grid: Option<TileGrid>,
}

impl TowerInput {
    /// The input for a picture, as the original prepares it.
    pub fn new(
        engine: &Engine,
        golden: &GoldenDir,
        source: &PictureSource,
        hd_num: u32,
    ) -> Result<Self, VerifyError> {
        let picture = source.open(golden)?;
        let preprocessor = engine.preprocessor();
        let Some(tiling) = engine.encoder().config().tiling else {
            return Ok(Self {
                picture: preprocessor.resize(&picture),
                grid: None,
            });
        };
        let mode = match source.is_strip() {
            true => TileMode::Strip,
            false => TileMode::Picture { hd_num },
        };
        let plan = TilePlan::new(
            tiling,
            preprocessor.image_size(),
            picture.dimensions(),
            mode,
        )?;
        Ok(Self {
            picture: preprocessor.tile(&picture, &plan),
            grid: Some(plan.grid),
        })
    }

    /// The input for a picture in as many tiles as were recorded; how many were allowed was not.
    pub fn with_grid(
        engine: &Engine,
        golden: &GoldenDir,
        source: &PictureSource,
        grid: TileGrid,
    ) -> Result<Self, VerifyError> {
        // The smallest number that permits the columns, if rounding did not save a row.
        let least = grid.len() as u32;
        let most = least + grid.rows.max(grid.cols) as u32;
        for hd_num in least..most {
            let input = Self::new(engine, golden, source, hd_num)?;
            if input.grid == Some(grid) {
                return Ok(input);
            }
        }
        Self::new(engine, golden, source, least)
    }

    /// A recorded input.
    pub fn recorded(engine: &Engine, path: &Path) -> Result<Self, VerifyError> {
        let picture = image::open(path, ReadOptions::REFERENCE)?;
        let side = engine.preprocessor().image_size();
        let (width, height) = picture.dimensions();
        let is_tiled = engine.encoder().config().tiling.is_some();
        let fits = match is_tiled {
            true => width.is_multiple_of(side) && height.is_multiple_of(side),
            false => (width, height) == (side, side),
        };
        if !fits {
            let found = format!("{width}x{height}");
            return Err(GoldenError::PictureSize {
                path: path.to_owned(),
                expected: side,
                found,
            }
            .into());
        }
        let grid = TileGrid {
            rows: (height / side) as usize,
            cols: (width / side) as usize,
        };
        let grid = is_tiled.then_some(grid);
        Ok(Self { picture, grid })
    }

    /// The pixels of tower input `i`: of the only one, or of the whole picture and then of each tile.
    pub fn pixels(&self, engine: &Engine, i: usize) -> PixelValues {
        let preprocessor = engine.preprocessor();
        match self.grid {
            None => preprocessor.normalize(&self.picture),
            Some(grid) => preprocessor.tile_pixels(&self.picture, grid, i),
        }
    }

    /// The embeddings; `observer` receives each stage, tile by tile.
    pub fn encode(&self, engine: &Engine, observer: &mut dyn StageObserver) -> Array2<f32> {
        let encoder = engine.encoder();
        match self.grid {
            None => encoder.encode_observed(&self.pixels(engine, 0), observer),
            Some(grid) => {
                encoder.encode_tiles_observed(grid, &mut |i| self.pixels(engine, i), observer)
            }
        }
    }
}

/// The maximum number of tiles per picture in a conversation of the original with `n_images` pictures, for which
/// `asked` was recorded.
pub(super) fn hd_num(tiling: Option<Tiling>, asked: Option<u32>, n_images: usize) -> u32 {
    let Some(tiling) = tiling else { return 1 };
    let several = tiling.hd_num_of_several().filter(|_| n_images > 1);
    several.unwrap_or(asked.unwrap_or(tiling.default_hd_num()))
}

/// Ignores all stages.
pub(super) struct Unobserved;

impl StageObserver for Unobserved {
    fn stage(&mut self, _name: &str, _values: ArrayView2<f32>) {}
}
