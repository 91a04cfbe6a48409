//! The vision encoder: from the pixels of a picture to embeddings for the decoder.
//!
//! ```text
//! PixelValues [3, S, S]
//!   patches            [N, 3 * P * P]    cut into squares of P pixels
//!   patch_embed        [N, C]            the patch convolution as a matmul
//!   embeddings         [N + 1, C]        class token in front, position embeddings added
//!   hidden.0           [N + 1, C]        layer norm
//!   hidden.1 .. n      [N + 1, C]        transformer layers, all of them
//!   features           [N, C]            class token dropped, no norm
//!   projected          [N, C_text]       two linear layers with GELU between
//! ```
//!
//! Models with tiles see the whole picture and every tile of it, one after another. Squares of 2 x 2 features become
//! one row of `[4 * C]`, and learned separators stand behind rows (`token_layout.rs`):
//!
//! ```text
//!   features           [N / 4, 4 * C]    of each tower input
//!   projected          [n, C_text]       of the whole picture, tiles and separators
//! ```
//!
//! For the published models S = 490 (or 224), P = 14, N = 1225 (256), C = 1024, 24 layers.
//! `tower.rs` and `projector.rs` define the model, `linear.rs` selects the kernels of the crate `xc2-kernels`, and
//! `weights.rs` loads the tensors by name. Everything is checked when the encoder is built, so encoding itself cannot
//! fail.

mod arena;
mod error;
pub mod image;
mod linear;
mod observer;
mod projector;
mod token_layout;
mod tower;
mod weights;

use crate::model::{MERGE, TileGrid, VisionConfig};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use xc2_kernels::{attention, matmul, quantized::QuantizedKernel};

use crate::model::tensor::TensorSource;
use crate::vision::image::PixelValues;

pub use error::VisionError;
pub use observer::StageObserver;
pub(crate) use token_layout::TokenLayout;

use arena::Arena;
use observer::Stages;
use weights::VisionWeights;

/// The precision of the tower's computation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Quantized matrices in int8, BF16 in bf16 where that is faster than f32, others in f32. Attention in f16 where the
    /// CPU supports it and the weights are less precise than that.
    #[default]
    Stored,
    /// Everything in f32, whatever the stored type.
    F32,
}

/// Describes the kernels that the tower uses on this machine.
pub fn kernels() -> String {
    let int8 = QuantizedKernel::fine();
    let bf16 = if matmul::is_bf16_fast() {
        "bf16"
    } else {
        "f32"
    };
    format!(
        "int8 products with {}, bf16 matrices in {bf16}, attention in {}",
        int8.cpu.name(),
        attention::Precision::fastest().name()
    )
}

/// A vision tower with its projector. Any thread can encode pictures with it.
pub struct VisionEncoder {
    config: VisionConfig,
    weights: VisionWeights,
}

impl VisionEncoder {
    /// Checks the configuration and every tensor. Matrices stay in the source's memory.
    ///
    /// # Errors
    /// If a hyper-parameter is out of range, or a tensor is missing or has the wrong shape, type or length.
    pub fn new(
        config: VisionConfig,
        source: &dyn TensorSource,
        precision: Precision,
    ) -> Result<Self, VisionError> {
        config.check()?;
        let weights = VisionWeights::load(&config, source, precision)?;
        Ok(Self { config, weights })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Encodes a picture: `[n_patches, n_embd_text]`, patches in reading order.
    ///
    /// # Panics
    /// If the picture does not have the configured size, or the model takes tiles.
    pub fn encode(&self, pixels: &PixelValues) -> Array2<f32> {
        self.run(pixels, Stages(None))
    }

    /// As [`Self::encode`]; passes the result of every stage to `observer`.
    ///
    /// # Panics
    /// As [`Self::encode`].
    pub fn encode_observed(
        &self,
        pixels: &PixelValues,
        observer: &mut dyn StageObserver,
    ) -> Array2<f32> {
        self.run(pixels, Stages(Some(observer)))
    }

    /// Encodes a picture of `grid` tiles: `[n_tiled_embeddings, n_embd_text]`. `pixels` gives the tower's inputs one by
    /// one: the whole picture, then the tiles in reading order. `observer` receives the stages of each.
    ///
    /// # Panics
    /// If an input does not have the configured size, or the model takes no tiles.
    pub fn encode_tiles_observed(
        &self,
        grid: TileGrid,
        pixels: &mut dyn FnMut(usize) -> PixelValues,
        observer: &mut dyn StageObserver,
    ) -> Array2<f32> {
        self.run_tiles(grid, pixels, Stages(Some(observer)))
    }

    /// As [`Self::encode_tiles_observed`], without an observer.
    ///
    /// # Panics
    /// As [`Self::encode_tiles_observed`].
    pub fn encode_tiles(
        &self,
        grid: TileGrid,
        pixels: &mut dyn FnMut(usize) -> PixelValues,
    ) -> Array2<f32> {
        self.run_tiles(grid, pixels, Stages(None))
    }

    /// The order of the embeddings of a picture of `grid` tiles.
    pub(crate) fn token_layout(&self, grid: TileGrid) -> TokenLayout {
        let m = self.config.merged_grid();
        TokenLayout { grid, m }
    }

    /// Upper bound of the memory for encoding a picture on rayon's current pool, besides weights and result, in bytes.
    /// The threads keep their scratch memory; everything else is freed.
    pub fn work_bytes(&self) -> usize {
        let config = &self.config;
        let n = config.n_tokens();
        let layer = &self.weights.layers[0];
        let linears = [&layer.ffn_up, &layer.ffn_down, &self.weights.mm_2];
        let shared = linears.iter().map(|l| l.shared_bytes(n)).max();
        let attention = xc2_kernels::attention::scratch_bytes(n, config.head_dim());
        let scratch = matmul::scratch_bytes() + attention;
        let shared = shared.unwrap_or(0) + rayon::current_num_threads() * scratch;
        Arena::bytes(config) + shared
    }

    fn run(&self, pixels: &PixelValues, mut stages: Stages<'_>) -> Array2<f32> {
        assert_eq!(pixels.size(), self.config.image_size, "size of the picture");
        assert_eq!(self.config.tiling, None, "a model without tiles");
        // Allocated per picture: a kept arena would be idle while the decoder needs memory, and allocating it costs a
        // hundredth of the encoding.
        let mut arena = Arena::new(&self.config);
        tower::forward(&self.config, &self.weights, pixels, &mut arena, &mut stages);

        stages.report(|| "features".to_owned(), &arena.x.slice(s![1.., ..]));
        let mut projected = Array2::zeros((self.config.n_patches(), self.config.n_embd_text));
        projector::forward(&self.weights, &mut arena, projected.view_mut());
        stages.report(|| "projected".to_owned(), &projected.view());
        projected
    }

    fn run_tiles(
        &self,
        grid: TileGrid,
        pixels: &mut dyn FnMut(usize) -> PixelValues,
        mut stages: Stages<'_>,
    ) -> Array2<f32> {
        let (config, layout) = (&self.config, self.token_layout(grid));
        let n_text = config.n_embd_text;
        let mut arena = Arena::new(config);
        let mut result = Array2::zeros((config.n_tiled_embeddings(grid), n_text));
        let mut of_input = Array2::zeros((layout.m * layout.m, n_text));
        for input in 0..=grid.len() {
            let pixels = pixels(input);
            assert_eq!(pixels.size(), config.image_size, "size of the picture");
            tower::forward(config, &self.weights, &pixels, &mut arena, &mut stages);
            merge(&arena.x.slice(s![1.., ..]), config, arena.merged.view_mut());
            stages.report(|| "features".to_owned(), &arena.merged.view());
            projector::forward(&self.weights, &mut arena, of_input.view_mut());
            for (row, values) in of_input.rows().into_iter().enumerate() {
                result.row_mut(layout.position(input, row)).assign(&values);
            }
        }
        self.add_separators(layout, &mut arena, &mut of_input, &mut result);
        stages.report(|| "projected".to_owned(), &result.view());
        result
    }

    /// Projects the separators, which are features like others, and copies them to their places in `result`.
    /// `projected` is a buffer.
    fn add_separators(
        &self,
        layout: TokenLayout,
        arena: &mut Arena,
        projected: &mut Array2<f32>,
        result: &mut Array2<f32>,
    ) {
        let separators = self.weights.separators.as_ref();
        let separators = separators.expect("checked when the model was loaded");
        for (row, values) in [&separators.row, &separators.view].into_iter().enumerate() {
            let values = ArrayView2::from_shape((1, values.len()), values);
            let values = values.expect("one row");
            arena.merged.slice_mut(s![row..=row, ..]).assign(&values);
        }
        projector::forward(&self.weights, arena, projected.view_mut());
        let view = projected.row(1);
        result.row_mut(layout.view_separator()).assign(&view);
        for at in layout.row_separators() {
            result.row_mut(at).assign(&projected.row(0));
        }
    }
}

/// Merges squares of 2 x 2 patches of `features: [n_patches, n_embd]` into rows of `merged: [n_patches / 4,
/// 4 * n_embd]`: upper left, upper right, lower left, lower right.
fn merge(features: &ArrayView2<f32>, config: &VisionConfig, mut merged: ArrayViewMut2<f32>) {
    let (grid, c, m) = (config.grid(), config.n_embd, config.merged_grid());
    for (row, mut values) in merged.rows_mut().into_iter().enumerate() {
        let (y, x) = (MERGE * (row / m), MERGE * (row % m));
        for part in 0..MERGE * MERGE {
            let patch = (y + part / MERGE) * grid + x + part % MERGE;
            let mut to = values.slice_mut(s![part * c..(part + 1) * c]);
            to.assign(&features.row(patch));
        }
    }
}
