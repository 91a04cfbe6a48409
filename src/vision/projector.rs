//! From the tower's features to embeddings that the decoder takes as they are.

use ndarray::{Array2, ArrayView2};
use xc2_kernels::{Epilogue, int8::QuantizedRows};

use super::arena::Wide;
use super::weights::VisionWeights;

/// `mm.2(gelu(mm.0(features)))`: `[n_patches, n_embd]` to `[n_patches, n_embd_text]`.
pub fn forward(
    weights: &VisionWeights,
    features: &ArrayView2<f32>,
    wide: &mut Wide,
    quantized: &mut QuantizedRows,
) -> Array2<f32> {
    let (n, n_embd_text) = (features.nrows(), weights.mm_2.n_out());
    let mut inner = wide.of(n, n_embd_text);
    weights
        .mm_0
        .forward(features, quantized, Epilogue::Gelu, inner.view_mut());
    let mut projected = Array2::zeros((n, n_embd_text));
    weights.mm_2.forward(
        &inner.view(),
        quantized,
        Epilogue::Store,
        projected.view_mut(),
    );
    projected
}
