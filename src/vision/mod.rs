//! The eye of the model: a picture's pixels to embeddings for the decoder.
//!
//! ```text
//! PixelValues [3, S, S]
//!   patches            [N, 3 * P * P]    cut into squares of P pixels
//!   patch_embed        [N, C]            a product with the patch convolution's weights
//!   embeddings         [N + 1, C]        class token in front, positions added
//!   hidden.0           [N + 1, C]        layer norm
//!   hidden.1 .. n      [N + 1, C]        transformer layers, all of them
//!   features           [N, C]            class token dropped, no norm
//!   projected          [N, C_text]       two linear layers with GELU between
//! ```
//!
//! For the published models S = 490 (or 224), P = 14, N = 1225 (256), C = 1024, 24 layers.
//! `tower.rs` and `projector.rs` tell the model; the crate `xc2-kernels` computes, `linear.rs` chooses; `weights.rs` knows the tensors'
//! names. Everything is checked when the encoder is built, so encoding itself cannot fail.

mod arena;
mod error;
pub mod image;
mod linear;
mod observer;
mod projector;
mod tower;
mod weights;

use crate::model::VisionConfig;
use ndarray::{Array2, s};
use xc2_kernels::{Cpu, attention, bf16::Bf16Matrix};

use crate::model::tensor::TensorSource;
use crate::vision::image::PixelValues;

pub use error::VisionError;
pub use observer::StageObserver;

use arena::Arena;
use observer::Stages;
use weights::VisionWeights;

/// In what the tower computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Q8_0 matrices in int8, BF16 in bf16 where that is faster than f32, the others in f32;
    /// attention in f16 where the CPU multiplies it and weights are coarser.
    #[default]
    Stored,
    /// Everything in f32, whatever it is stored in.
    F32,
}

/// The kernels that the tower will use on this machine, for a person.
pub fn kernels() -> String {
    let int8 = xc2_kernels::int8::Int8Kernel::for_cpu(Cpu::chosen());
    let bf16 = if Bf16Matrix::is_fast() { "bf16" } else { "f32" };
    format!(
        "int8 products with {}, bf16 matrices in {bf16}, attention in {}",
        int8.cpu.name(),
        attention::Precision::fastest().name()
    )
}

/// A vision tower with its projector, ready to encode pictures from any thread.
pub struct VisionEncoder {
    config: VisionConfig,
    weights: VisionWeights,
}

impl VisionEncoder {
    /// Checks the configuration and every tensor. Matrices remain windows into the source.
    ///
    /// # Errors
    /// If a number is out of range, or a tensor is missing or of the wrong shape, type or length.
    pub fn new(
        config: VisionConfig,
        source: &dyn TensorSource,
        precision: Precision,
    ) -> Result<Self, VisionError> {
        config.check()?;
        let weights = VisionWeights::load(&config, source, precision)?;
        Ok(Self { config, weights })
    }

    /// The sizes it was built with.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Encodes a picture: `[n_patches, n_embd_text]`, patches in reading order.
    ///
    /// # Panics
    /// If the picture is not of the size that the configuration says.
    pub fn encode(&self, pixels: &PixelValues) -> Array2<f32> {
        self.run(pixels, Stages(None))
    }

    /// The same, while `observer` is shown every stage.
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

    /// Bytes that encoding a picture takes on rayon's current pool, besides the weights: an upper
    /// bound. What threads need stays with them, the rest but the result goes.
    pub fn work_bytes(&self) -> usize {
        let config = &self.config;
        let (n, text) = (config.n_tokens(), config.n_embd_text);
        let layer = &self.weights.layers[0];
        let linears = [&layer.ffn_up, &layer.ffn_down, &self.weights.mm_2];
        let linear = linears.iter().map(|l| l.scratch_bytes()).max();
        let shared = linears.iter().map(|l| l.shared_bytes(n)).max();
        let attention = xc2_kernels::attention::scratch_bytes(n, config.head_dim());
        let scratch = linear.unwrap_or(0) + attention;
        let result = n * text * size_of::<f32>();
        let shared = shared.unwrap_or(0) + rayon::current_num_threads() * scratch;
        Arena::bytes(config) + result + shared
    }

    fn run(&self, pixels: &PixelValues, mut stages: Stages<'_>) -> Array2<f32> {
        assert_eq!(pixels.size(), self.config.image_size, "size of the picture");
        // For this picture alone: kept for the next, it would lie idle while the decoder needs room, and
        // making it costs a hundredth of the encoding.
        let mut arena = Arena::new(&self.config);
        tower::forward(&self.config, &self.weights, pixels, &mut arena, &mut stages);

        stages.report(|| "features".to_owned(), &arena.x.slice(s![1.., ..]));
        let projected = projector::forward(&self.weights, &mut arena);
        stages.report(|| "projected".to_owned(), &projected.view());
        projected
    }
}
