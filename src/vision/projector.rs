//! The projector: from the tower's features to the decoder's embeddings.

use ndarray::Array2;
use ndarray::s;
use xc2_kernels::Epilogue;

use super::arena::Arena;
use super::linear;
use super::weights::VisionWeights;

/// `mm.2(gelu(mm.0(features)))`: from `[n_patches, n_embd]` (the arena's residual stream without the class token) to
/// `[n_patches, n_embd_text]`.
pub fn forward(weights: &VisionWeights, arena: &mut Arena) -> Array2<f32> {
    let (mm_0, mm_2) = (&weights.mm_0, &weights.mm_2);
    let features = arena.x.slice(s![1.., ..]);
    let (n, n_embd_text) = (features.nrows(), mm_2.n_out());
    let x = linear::input(features, mm_0, &mut arena.quantized);
    let x = mm_0.forward_for(&x, Epilogue::Gelu, mm_2, &mut arena.wide, &mut arena.inner);
    let mut projected = Array2::zeros((n, n_embd_text));
    mm_2.forward(&x, Epilogue::Store, projected.view_mut());
    projected
}
