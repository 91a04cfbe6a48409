//! The projector: from the tower's features to the decoder's embeddings.

use ndarray::{ArrayViewMut2, s};
use xc2_kernels::Epilogue;

use super::arena::Arena;
use super::linear;
use super::weights::VisionWeights;

/// `mm.2(gelu(mm.0(features)))`: from `[n, n_projector_in]` to `projected: [n, n_embd_text]`. The features are the
/// arena's merged ones, or without tiles its residual stream without the class token.
pub fn forward(weights: &VisionWeights, arena: &mut Arena, projected: ArrayViewMut2<f32>) {
    let (mm_0, mm_2) = (&weights.mm_0, &weights.mm_2);
    let features = match weights.separators {
        None => arena.x.slice(s![1.., ..]),
        Some(_) => arena.merged.view(),
    };
    let x = linear::input(features, mm_0, &mut arena.quantized);
    let x = mm_0.forward_for(&x, Epilogue::Gelu, mm_2, &mut arena.wide, &mut arena.inner);
    mm_2.forward(&x, Epilogue::Store, projected);
}
