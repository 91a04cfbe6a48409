//! The memory in which a picture is encoded.

use memmap2::MmapMut;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use xc2_kernels::int8::QuantizedRows;

use crate::model::VisionConfig;

/// The activations of one picture.
pub struct Arena {
    /// The residual stream, `[n_tokens, n_embd]`.
    pub x: Array2<f32>,
    /// A normalised copy of it, then what attention makes: `[n_tokens, n_embd]`.
    pub normed: Array2<f32>,
    /// What is wide and short-lived: patches, q k v side by side, inner activations of the MLP and
    /// of the projector.
    pub wide: Wide,
    /// The input of a product in int8.
    pub quantized: QuantizedRows,
    /// The same for the second one of an MLP or of the projector.
    pub inner: QuantizedRows,
}

/// Room for matrices of different widths, one at a time; in huge pages where the system has them.
///
/// Heads of q, k and v and strips of results are read and written in rows that lie pages apart, so with
/// small pages each would begin with looking up an address.
pub struct Wide(MmapMut);

impl Wide {
    /// So many zeros.
    fn zeros(len: usize) -> Self {
        let memory = MmapMut::map_anon(len * size_of::<f32>()).expect("memory for a picture");
        // Without them it is only slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Self(memory)
    }

    /// `[rows, cols]`, holding what was there before.
    pub fn of(&mut self, rows: usize, cols: usize) -> ArrayViewMut2<'_, f32> {
        let room = &mut bytemuck::cast_slice_mut(&mut self.0)[..rows * cols];
        ArrayViewMut2::from_shape((rows, cols), room).expect("as long as the shape says")
    }

    /// The same, to read.
    pub fn view(&self, rows: usize, cols: usize) -> ArrayView2<'_, f32> {
        let room = &bytemuck::cast_slice(&self.0)[..rows * cols];
        ArrayView2::from_shape((rows, cols), room).expect("as long as the shape says")
    }
}

impl Arena {
    /// For pictures of the configured size.
    pub fn new(config: &VisionConfig) -> Self {
        let shape = (config.n_tokens(), config.n_embd);
        Self {
            x: Array2::zeros(shape),
            normed: Array2::zeros(shape),
            wide: Wide::zeros(wide_len(config)),
            quantized: QuantizedRows::default(),
            inner: QuantizedRows::default(),
        }
    }

    /// Its size in bytes, at most.
    pub fn bytes(config: &VisionConfig) -> usize {
        let bytes = |width| QuantizedRows::bytes(config.n_tokens(), width);
        let inner = bytes(config.n_ff.max(config.n_embd_text));
        let quantized = bytes(config.n_embd.max(config.patch_len())) + inner;
        (2 * config.n_tokens() * config.n_embd + wide_len(config)) * size_of::<f32>() + quantized
    }
}

fn wide_len(config: &VisionConfig) -> usize {
    let per_token = (3 * config.n_embd).max(config.n_ff).max(config.n_embd_text);
    let patches = config.n_patches() * config.patch_len();
    patches.max(config.n_tokens() * per_token)
}
