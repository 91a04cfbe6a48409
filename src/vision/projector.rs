//! From the tower's features to embeddings that the decoder takes as they are.

use ndarray::{Array2, ArrayView2};

use super::weights::VisionWeights;
use xc2_kernels::Epilogue;

/// `mm.2(gelu(mm.0(features)))`: `[n_patches, n_embd]` to `[n_patches, n_embd_text]`.
pub fn forward(weights: &VisionWeights, features: &ArrayView2<f32>) -> Array2<f32> {
    let shape = (features.nrows(), weights.mm_2.n_out());
    let mut hidden = Array2::zeros(shape);
    weights
        .mm_0
        .forward(features, Epilogue::Gelu, hidden.view_mut());
    let mut projected = Array2::zeros(shape);
    weights
        .mm_2
        .forward(&hidden.view(), Epilogue::Store, projected.view_mut());
    projected
}
