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
mod tower;
mod weights;

use crate::model::VisionConfig;
use ndarray::{Array2, s};
use xc2_kernels::{attention, matmul, quantized::QuantizedKernel};

use crate::model::tensor::TensorSource;
use crate::vision::image::PixelValues;

pub use error::VisionError;
pub use observer::StageObserver;

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
    /// If the picture does not have the configured size.
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

    /// Upper bound of the memory for encoding a picture on rayon's current pool, besides the weights, in bytes. The
    /// threads keep their scratch memory; everything else except the result is freed.
    pub fn work_bytes(&self) -> usize {
        let config = &self.config;
        let (n, text) = (config.n_tokens(), config.n_embd_text);
        let layer = &self.weights.layers[0];
        let linears = [&layer.ffn_up, &layer.ffn_down, &self.weights.mm_2];
        let shared = linears.iter().map(|l| l.shared_bytes(n)).max();
        let attention = xc2_kernels::attention::scratch_bytes(n, config.head_dim());
        let scratch = matmul::scratch_bytes() + attention;
        let result = n * text * size_of::<f32>();
        let shared = shared.unwrap_or(0) + rayon::current_num_threads() * scratch;
        Arena::bytes(config) + result + shared
    }

    fn run(&self, pixels: &PixelValues, mut stages: Stages<'_>) -> Array2<f32> {
        assert_eq!(pixels.size(), self.config.image_size, "size of the picture");
        // Allocated per picture: a kept arena would be idle while the decoder needs memory, and allocating it costs a
        // hundredth of the encoding.
        let mut arena = Arena::new(&self.config);
        tower::forward(&self.config, &self.weights, pixels, &mut arena, &mut stages);

        stages.report(|| "features".to_owned(), &arena.x.slice(s![1.., ..]));
        let projected = projector::forward(&self.weights, &mut arena);
        stages.report(|| "projected".to_owned(), &projected.view());
        projected
    }
}
