//! The tiles of a picture: how large it becomes, where its padding is, what the tower sees.
//!
//! All sizes are computed in landscape orientation. A portrait picture is mirrored about its main diagonal before, and
//! its tiles after. Arithmetic is in f64 and in the order of the published code, which integers would not reproduce:
//! 700x300 pixels in at most 25 tiles become 2352x1007, not 2352x1008.

use ::image::{Rgb, RgbImage, imageops};

use super::{
    ImageError,
    preprocess::{PixelValues, Preprocessor},
    resize::{Filter, resize, resize_bytes, resize_transposed},
};
use crate::model::{TileGrid, Tiling};

/// The colour of padding.
const WHITE: Rgb<u8> = Rgb([255; 3]);

/// Largest ratio of a picture's sides. Longer pictures become a line of a few pixels in a row of tiles.
const MAX_RATIO: f64 = 1000.0;

/// What is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileMode {
    /// A picture, into at most `hd_num` tiles.
    Picture {
        /// At least 1.
        hd_num: u32,
    },
    /// A strip of frames, into as many tiles as its length needs.
    Strip,
}

/// How a picture becomes tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePlan {
    /// The tiles.
    pub grid: TileGrid,
    /// Width and height after resizing, in landscape orientation.
    pub resized: (u32, u32),
    /// Whether the picture is portrait.
    pub transposed: bool,
    /// White rows above the resized picture, in landscape orientation.
    top: u32,
    /// Side of a tile, in pixels.
    tile: u32,
}

impl TilePlan {
    /// The plan for a picture of `size` (width, height) and tiles of `tile` pixels.
    ///
    /// # Errors
    /// If the picture is so long that its short side vanishes, or more than 1000 times as long as wide.
    pub fn new(
        tiling: Tiling,
        tile: u32,
        size: (u32, u32),
        mode: TileMode,
    ) -> Result<Self, ImageError> {
        let (width, height) = size;
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { width, height });
        }
        let transposed = width < height;
        let (w, h) = match transposed {
            true => (height, width),
            false => (width, height),
        };
        let ratio = f64::from(w) / f64::from(h);
        let resized = match mode {
            TileMode::Picture { hd_num } => {
                let new_w = tile * n_cols(tiling, tile, w, ratio, hd_num);
                (new_w, (f64::from(new_w) / ratio) as u32)
            }
            TileMode::Strip => ((f64::from(tile) * ratio) as u32, tile),
        };
        if resized.1 == 0 || ratio > MAX_RATIO {
            return Err(ImageError::TooNarrow { width, height });
        }
        let [cols, rows] = [resized.0, resized.1].map(|n| n.div_ceil(tile));
        let top = match tiling {
            Tiling::Khd4 => (rows * tile - resized.1) / 2,
            Tiling::V2d5 => 0,
        };
        let (rows, cols) = match transposed {
            true => (cols, rows),
            false => (rows, cols),
        };
        Ok(Self {
            grid: TileGrid {
                rows: rows as usize,
                cols: cols as usize,
            },
            resized,
            transposed,
            top,
            tile,
        })
    }

    /// Upper bound of the memory for cutting a picture of `size` into tiles with `n_threads` threads, in bytes.
    pub fn bytes(&self, size: (u32, u32), n_threads: usize) -> u64 {
        let (width, height) = size;
        let from = match self.transposed {
            true => (height, width),
            false => size,
        };
        let tile = u64::from(self.tile);
        let canvas = 3 * tile * tile * self.grid.len() as u64;
        // The resized picture, the padded one, and its mirror image.
        3 * canvas + resize_bytes(from, self.resized, n_threads)
    }

    /// The picture resized and padded to whole tiles.
    ///
    /// # Panics
    /// If the picture has no pixels.
    pub fn canvas(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = self.resized;
        let resized = match self.transposed {
            true => resize_transposed(picture, width, height, Filter::Bilinear),
            false => resize(picture, width, height, Filter::Bilinear),
        };
        let whole = |n: u32| n.next_multiple_of(self.tile);
        let padded = if (whole(width), whole(height)) == self.resized {
            resized
        } else {
            let mut canvas = RgbImage::from_pixel(whole(width), whole(height), WHITE);
            imageops::replace(&mut canvas, &resized, 0, i64::from(self.top));
            canvas
        };
        match self.transposed {
            true => resize_transposed(&padded, padded.height(), padded.width(), Filter::Bilinear),
            false => padded,
        }
    }
}

/// Tiles along the longer side, of `w` pixels, where `ratio` is that of the sides.
fn n_cols(tiling: Tiling, tile: u32, w: u32, ratio: f64, hd_num: u32) -> u32 {
    let n_tiles = |cols: u32| f64::from(cols) * (f64::from(cols) / ratio).ceil();
    let mut cols = 1;
    while n_tiles(cols + 1) <= f64::from(hd_num) {
        cols += 1;
    }
    match tiling {
        Tiling::Khd4 => cols,
        Tiling::V2d5 => cols.min(w.div_ceil(tile)),
    }
}

impl Preprocessor {
    /// Resizes a picture as planned, and pads it with white to whole tiles.
    ///
    /// # Panics
    /// If the picture has no pixels.
    pub fn tile(&self, picture: &RgbImage, plan: &TilePlan) -> RgbImage {
        plan.canvas(picture)
    }

    /// Input `index` of the tower for a `canvas` of tiles: the whole picture scaled to the size of a tile, then the
    /// tiles in reading order.
    ///
    /// # Panics
    /// If the canvas is not of that many tiles, or there is no such tile.
    pub fn tile_pixels(&self, canvas: &RgbImage, grid: TileGrid, index: usize) -> PixelValues {
        let side = self.image_size();
        let expected = (side * grid.cols as u32, side * grid.rows as u32);
        assert_eq!(canvas.dimensions(), expected, "a canvas of whole tiles");
        let Some(tile) = index.checked_sub(1) else {
            return self.overview(canvas);
        };
        assert!(tile < grid.len(), "one of the tiles");
        let (x, y) = (tile % grid.cols, tile / grid.cols);
        let (x, y) = (side * x as u32, side * y as u32);
        self.normalize(&imageops::crop_imm(canvas, x, y, side, side).to_image())
    }

    /// The canvas scaled to the size of a tile, as torch's bicubic interpolation of the normalised values computes it:
    /// four taps per axis, also when shrinking, in f32.
    fn overview(&self, canvas: &RgbImage) -> PixelValues {
        let side = self.image_size();
        let columns = taps(canvas.width(), side);
        let rows = taps(canvas.height(), side);
        let mut values = Vec::with_capacity(3 * (side * side) as usize);
        for channel in 0..3 {
            let levels = self.levels(channel);
            let level = |x: u32, y: u32| levels[usize::from(canvas.get_pixel(x, y).0[channel])];
            for row in &rows {
                values.extend(columns.iter().map(|column| {
                    interpolate(row.map(|(y, weight)| {
                        let across = column.map(|(x, weight)| (level(x, y), weight));
                        (interpolate(across), weight)
                    }))
                }));
            }
        }
        PixelValues::from_raw(side as usize, values).expect("three planes of side x side values")
    }
}

/// Four positions and their weights.
type Taps = [(u32, f32); 4];

/// Sum of values by their weights, in torch's order.
fn interpolate(values: [(f32, f32); 4]) -> f32 {
    values
        .into_iter()
        .map(|(value, weight)| value * weight)
        .reduce(|sum, product| sum + product)
        .unwrap_or(0.0)
}

/// For each of `new_len` positions the four source positions and their weights, as torch's `upsample_bicubic2d` without
/// aligned corners: positions beyond the ends are those at the ends.
fn taps(len: u32, new_len: u32) -> Vec<Taps> {
    let scale = len as f32 / new_len as f32;
    let tap = |i: u32| {
        let source = scale * (i as f32 + 0.5) - 0.5;
        let first = source.floor();
        let t = source - first;
        let at = |offset: i64| (first as i64 + offset).clamp(0, i64::from(len) - 1) as u32;
        [
            (at(-1), outer(t + 1.0)),
            (at(0), inner(t)),
            (at(1), inner(1.0 - t)),
            (at(2), outer(2.0 - t)),
        ]
    };
    (0..new_len).map(tap).collect()
}

/// Torch's parameter of Keys' kernel; Pillow's is -0.5.
const A: f32 = -0.75;

/// The kernel at distances up to 1.
fn inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The kernel at distances from 1 to 2.
fn outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(tiling: Tiling, size: (u32, u32), hd_num: u32) -> (usize, usize) {
        let tile = match tiling {
            Tiling::Khd4 => 336,
            Tiling::V2d5 => 560,
        };
        let plan = TilePlan::new(tiling, tile, size, TileMode::Picture { hd_num }).unwrap();
        (plan.grid.rows, plan.grid.cols)
    }

    #[test]
    fn portrait_pictures_are_padded_at_their_right() {
        let picture = RgbImage::from_pixel(300, 700, Rgb([0; 3]));
        let mode = TileMode::Picture { hd_num: 4 };
        let plan = TilePlan::new(Tiling::V2d5, 560, picture.dimensions(), mode).unwrap();
        assert_eq!(grid(Tiling::V2d5, (300, 700), 4), (2, 1));
        let canvas = plan.canvas(&picture);
        assert_eq!(canvas.dimensions(), (560, 1120));
        assert_eq!(*canvas.get_pixel(478, 1119), Rgb([0; 3]));
        assert_eq!(*canvas.get_pixel(481, 0), WHITE);
    }

    #[test]
    fn the_short_side_must_not_vanish() {
        for size in [(100_000, 1), (1, 100_000)] {
            let mode = TileMode::Picture { hd_num: 9 };
            let error = TilePlan::new(Tiling::Khd4, 336, size, mode).unwrap_err();
            assert!(error.to_string().contains("too narrow"), "{error}");
        }
    }

    #[test]
    fn the_overview_of_a_flat_canvas_is_flat() {
        let preprocessor = Preprocessor::new(28, [0.5; 3], [0.5; 3]);
        let canvas = RgbImage::from_pixel(84, 56, Rgb([255, 0, 255]));
        let grid = TileGrid { rows: 2, cols: 3 };
        let overview = preprocessor.tile_pixels(&canvas, grid, 0);
        assert!(overview.plane(0).iter().all(|v| (v - 1.0).abs() < 1e-6));
        assert!(overview.plane(1).iter().all(|v| (v + 1.0).abs() < 1e-6));
    }
}
