//! Buffers for the activations of one picture.

use memmap2::MmapMut;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use xc2_kernels::quantized::OwnedQuantizedActivations;

use crate::model::VisionConfig;

/// The activations of one picture.
pub struct Arena {
    /// The residual stream, `[n_tokens, n_embd]`.
    pub x: Array2<f32>,
    /// The output of a layer norm or of attention, `[n_tokens, n_embd]`.
    pub normed: Array2<f32>,
    /// Wide, short-lived matrices: patches, q k v side by side, inner activations of the MLP and of the projector.
    pub wide: WideBuffer,
    /// With tiles: the projector's input, `[n_patches / 4, 4 * n_embd]`. Otherwise empty.
    pub merged: Array2<f32>,
    /// The input of a matmul in int8.
    pub quantized: OwnedQuantizedActivations,
    /// The input of the second matmul of an MLP or of the projector in int8.
    pub inner: OwnedQuantizedActivations,
}

/// A buffer for matrices of different widths, one at a time; in huge pages where available.
///
/// Heads of q, k and v and strips of results are read and written in rows that lie pages apart. With small pages, each
/// row would cost a TLB miss.
pub struct WideBuffer(MmapMut);

impl WideBuffer {
    /// `len` zeros.
    fn zeros(len: usize) -> Self {
        let memory = MmapMut::map_anon(len * size_of::<f32>()).expect("memory for a picture");
        // Without huge pages it is only slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Self(memory)
    }

    /// A mutable view `[rows, cols]`; the content is what was written last.
    pub fn view_mut(&mut self, rows: usize, cols: usize) -> ArrayViewMut2<'_, f32> {
        let buffer = &mut bytemuck::cast_slice_mut(&mut self.0)[..rows * cols];
        ArrayViewMut2::from_shape((rows, cols), buffer)
            .expect("the slice has the length of the shape")
    }

    /// A view `[rows, cols]`.
    pub fn view(&self, rows: usize, cols: usize) -> ArrayView2<'_, f32> {
        let buffer = &bytemuck::cast_slice(&self.0)[..rows * cols];
        ArrayView2::from_shape((rows, cols), buffer).expect("the slice has the length of the shape")
    }
}

impl Arena {
    /// Buffers for pictures of the configured size.
    pub fn new(config: &VisionConfig) -> Self {
        let shape = (config.n_tokens(), config.n_embd);
        Self {
            x: Array2::zeros(shape),
            normed: Array2::zeros(shape),
            merged: Array2::zeros(merged_shape(config)),
            wide: WideBuffer::zeros(wide_len(config)),
            quantized: OwnedQuantizedActivations::default(),
            inner: OwnedQuantizedActivations::default(),
        }
    }

    /// Upper bound of the size in bytes.
    pub fn bytes(config: &VisionConfig) -> usize {
        let bytes = |width| OwnedQuantizedActivations::most_bytes(config.n_tokens(), width);
        let inner = bytes(config.n_ff.max(config.n_embd_text));
        let quantized = bytes(config.n_embd.max(config.patch_len())) + inner;
        let merged = merged_shape(config);
        let floats = 2 * config.n_tokens() * config.n_embd + merged.0 * merged.1 + wide_len(config);
        floats * size_of::<f32>() + quantized
    }
}

fn merged_shape(config: &VisionConfig) -> (usize, usize) {
    let m = config.merged_grid();
    match config.tiling {
        None => (0, 0),
        Some(_) => (m * m, config.n_projector_in()),
    }
}

fn wide_len(config: &VisionConfig) -> usize {
    let per_token = (3 * config.n_embd).max(config.n_ff).max(config.n_embd_text);
    let patches = config.n_patches() * config.patch_len();
    patches.max(config.n_tokens() * per_token)
}
