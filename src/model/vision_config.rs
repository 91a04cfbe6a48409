//! Hyper-parameters of the vision tower and its projector.

use thiserror::Error;

/// How the members of the family with variable resolution cut pictures into tiles.
///
/// The tower sees the whole picture scaled down to one tile, then every tile. Squares of 2 x 2 patches become one
/// embedding, each row of embeddings ends with a separator, and another separator follows the whole picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiling {
    /// As InternLM-XComposer2-4KHD: pictures are always enlarged, and padded on both sides.
    Khd4,
    /// As InternLM-XComposer2.5: pictures are not enlarged by more than one tile, and padded at the end.
    V2d5,
}

impl Tiling {
    /// The name in the model file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Khd4 => "4khd",
            Self::V2d5 => "2.5",
        }
    }

    /// The maximum number of tiles per picture that the published chat code uses.
    pub fn default_hd_num(self) -> u32 {
        match self {
            Self::Khd4 => 25,
            Self::V2d5 => 24,
        }
    }

    /// The maximum number of tiles per picture that the published chat code uses for several pictures, whatever the
    /// caller asks for.
    pub fn hd_num_of_several(self) -> Option<u32> {
        match self {
            Self::Khd4 => None, // it takes one picture
            Self::V2d5 => Some(6),
        }
    }

    /// The tiling with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Khd4, Self::V2d5]
            .into_iter()
            .find(|t| t.name() == name)
    }
}

/// The tiles of a picture: rows and columns, without the view of the whole picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileGrid {
    /// Tiles from top to bottom.
    pub rows: usize,
    /// Tiles from left to right.
    pub cols: usize,
}

impl TileGrid {
    /// Number of tiles.
    pub fn len(self) -> usize {
        self.rows * self.cols
    }

    /// Whether there are no tiles.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Patches along an edge of the square that becomes one embedding, with [`Tiling`].
pub const MERGE: usize = 2;

/// The hyper-parameters that a model's metadata must contain for its vision part.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Side of the square input of the tower, in pixels: the whole picture, or a tile.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Width of the tower.
    pub n_embd: usize,
    /// Attention heads; each is `n_embd / n_head` wide.
    pub n_head: usize,
    /// Width of the feed-forward layer.
    pub n_ff: usize,
    /// Number of layers; all of them run.
    pub n_layer: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f32,
    /// Width of the decoder's embeddings: the projector's output.
    pub n_embd_text: usize,
    /// How pictures are cut into tiles; `None` if they are resized to `image_size`.
    pub tiling: Option<Tiling>,
}

/// A value that is out of range or contradicts another.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("vision tower: expected {expected}, found {field} {found}")]
pub struct VisionConfigError {
    /// Field of [`VisionConfig`].
    pub field: &'static str,
    /// Description of the valid values.
    pub expected: String,
    /// Its value.
    pub found: String,
}

/// Colour channels of a picture.
pub(crate) const CHANNELS: usize = 3;

/// Limits far above any tower of the family (560 pixels, 1024 wide, 4096 in the feed-forward layer, 24 layers). They
/// keep products of damaged metadata from overflowing, even in 32 bits.
const MAX_IMAGE_SIZE: usize = 4096;
const MAX_WIDTH: usize = 1 << 16;
const MAX_LAYERS: usize = 1024;

impl VisionConfig {
    /// Patches per side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches per tower input. Without [`Tiling`] also the number of embeddings of a picture.
    pub fn n_patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Rows in the tower: the class token and the patches.
    pub fn n_tokens(&self) -> usize {
        self.n_patches() + 1
    }

    /// Width of the projector's input.
    pub fn n_projector_in(&self) -> usize {
        match self.tiling {
            None => self.n_embd,
            Some(_) => MERGE * MERGE * self.n_embd,
        }
    }

    /// Embeddings along an edge of a tile, with [`Tiling`].
    pub fn merged_grid(&self) -> usize {
        self.grid() / MERGE
    }

    /// Embeddings of a picture of `grid` tiles, with [`Tiling`]: the view of the whole picture, a separator, and the
    /// tiles; each row ends with a separator.
    pub fn n_tiled_embeddings(&self, grid: TileGrid) -> usize {
        let m = self.merged_grid();
        (grid.len() + 1) * m * m + 1 + (grid.rows + 1) * m
    }

    /// Bytes of the pixels of all tiles, per embedding; without separators, which take none.
    pub fn canvas_bytes_per_embedding(&self) -> usize {
        let pixels = CHANNELS * self.image_size * self.image_size;
        pixels.div_ceil((self.merged_grid() * self.merged_grid()).max(1))
    }

    /// The largest number of embeddings of a picture of up to `hd_num` tiles, which is that of a tall strip. Without
    /// [`Tiling`] every picture has as many.
    pub fn n_embeddings_at_most(&self, hd_num: u32) -> usize {
        let rows = hd_num as usize;
        match self.tiling {
            None => self.n_patches(),
            Some(_) => self.n_tiled_embeddings(TileGrid { rows, cols: 1 }),
        }
    }

    /// The same for the number of tiles that the published chat code uses.
    pub fn n_usual_embeddings(&self) -> usize {
        let hd_num = self.tiling.map_or(1, Tiling::default_hd_num);
        self.n_embeddings_at_most(hd_num)
    }

    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Values per patch: channels x patch_size x patch_size.
    pub fn patch_len(&self) -> usize {
        CHANNELS * self.patch_size * self.patch_size
    }

    /// Floating-point operations for one tower input and its embeddings; a multiply-add counts as two.
    pub fn flops(&self) -> f64 {
        let [n, p, c, ff] =
            [self.n_tokens(), self.n_patches(), self.n_embd, self.n_ff].map(|v| v as f64);
        let embed = 2.0 * p * c * self.patch_len() as f64;
        let layer = 2.0 * n * c * (4.0 * c + 2.0 * ff) + 4.0 * n * n * c;
        embed + layer * self.n_layer as f64 + self.projector_flops()
    }

    /// Those of the projector.
    pub fn projector_flops(&self) -> f64 {
        let rows = match self.tiling {
            None => self.n_patches(),
            Some(_) => self.merged_grid() * self.merged_grid(),
        };
        let [rows, n_in, text] = [rows, self.n_projector_in(), self.n_embd_text].map(|v| v as f64);
        2.0 * rows * text * (n_in + text)
    }

    /// Checks that the values are in range and consistent.
    ///
    /// # Errors
    /// [`VisionConfigError`] for the first value that is not.
    pub fn check(&self) -> Result<(), VisionConfigError> {
        let ranges = [
            ("image_size", self.image_size, MAX_IMAGE_SIZE),
            ("patch_size", self.patch_size, MAX_IMAGE_SIZE),
            ("n_embd", self.n_embd, MAX_WIDTH),
            ("n_head", self.n_head, MAX_WIDTH),
            ("n_ff", self.n_ff, MAX_WIDTH),
            ("n_layer", self.n_layer, MAX_LAYERS),
            ("n_embd_text", self.n_embd_text, MAX_WIDTH),
        ];
        for (field, value, max) in ranges {
            ensure((1..=max).contains(&value), field, value, || {
                format!("1 to {max}")
            })?;
        }
        let multiples = [
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("n_embd", self.n_embd, "n_head", self.n_head),
        ];
        for (field, value, of, divisor) in multiples {
            ensure(value.is_multiple_of(divisor), field, value, || {
                format!("a multiple of {of} {divisor}")
            })?;
        }
        if self.tiling.is_some() {
            ensure(
                self.grid().is_multiple_of(MERGE),
                "image_size",
                self.image_size,
                || format!("a multiple of {MERGE} patches of {}", self.patch_size),
            )?;
        }
        let eps = self.layer_norm_eps;
        ensure((0.0..1.0).contains(&eps), "layer_norm_eps", eps, || {
            "at least 0 and below 1".to_owned()
        })
    }
}

fn ensure(
    holds: bool,
    field: &'static str,
    found: impl Copy + ToString,
    expected: impl FnOnce() -> String,
) -> Result<(), VisionConfigError> {
    if holds {
        return Ok(());
    }
    Err(VisionConfigError {
        field,
        expected: expected(),
        found: found.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vl_7b() -> VisionConfig {
        VisionConfig {
            image_size: 490,
            patch_size: 14,
            n_embd: 1024,
            n_head: 16,
            n_ff: 4096,
            n_layer: 24,
            layer_norm_eps: 1e-5,
            n_embd_text: 4096,
            tiling: None,
        }
    }

    #[test]
    fn the_published_tower_has_1225_patches_and_heads_of_64() {
        let config = vl_7b();
        config.check().unwrap();
        assert_eq!((config.grid(), config.n_patches()), (35, 1225));
        assert_eq!((config.head_dim(), config.patch_len()), (64, 588));
        assert!(
            (config.flops() / 1e9 - 941.0).abs() < 1.0,
            "{}",
            config.flops()
        );
    }

    #[test]
    fn tiles_become_as_many_embeddings_as_the_published_models_count() {
        let tiled = |tiling, image_size| VisionConfig {
            tiling: Some(tiling),
            image_size,
            ..vl_7b()
        };
        let grid = |rows, cols| TileGrid { rows, cols };
        let (khd4, v2d5) = (tiled(Tiling::Khd4, 336), tiled(Tiling::V2d5, 560));
        assert_eq!(khd4.n_tiled_embeddings(grid(3, 3)), 1489);
        assert_eq!(khd4.n_tiled_embeddings(grid(6, 4)), 3685);
        assert_eq!(v2d5.n_tiled_embeddings(grid(1, 1)), 841);
        assert_eq!(v2d5.n_tiled_embeddings(grid(24, 1)), 10501);
        assert_eq!(khd4.n_projector_in(), 4096);
    }

    #[test]
    fn each_invalid_value_is_reported_with_its_field() {
        type Damage = fn(&mut VisionConfig);
        let cases: [(&str, Damage); 7] = [
            ("image_size", |c| c.image_size = 491),
            ("image_size", |c| c.image_size = usize::MAX),
            ("patch_size", |c| c.patch_size = 0),
            ("n_embd", |c| c.n_head = 7),
            ("n_head", |c| c.n_head = 0),
            ("n_layer", |c| c.n_layer = 0),
            ("layer_norm_eps", |c| c.layer_norm_eps = f32::NAN),
        ];
        for (expected, damage) in cases {
            let mut config = vl_7b();
            damage(&mut config);
            match config.check() {
                Err(VisionConfigError { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
