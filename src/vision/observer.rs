//! Observing the encoder's stages, to find the first one that diverges from a reference.

use ndarray::ArrayView2;

/// Receives the result of every stage of an encoding, in order.
///
/// The stages have the names of the golden files: `patch_embed` `[n_patches, n_embd]`, `embeddings` `[n_tokens,
/// n_embd]` (class token first, positions added), `hidden.0` (normalised embeddings) to `hidden.n` (after layer n),
/// `features` `[n_patches, n_embd]` and `projected` `[n_patches, n_embd_text]`.
pub trait StageObserver {
    /// Called once per stage. The values are valid during the call only.
    fn stage(&mut self, name: &str, values: ArrayView2<f32>);
}

/// An optional observer. Without one, nothing is computed for it, not even names.
pub struct Stages<'a>(pub Option<&'a mut dyn StageObserver>);

impl Stages<'_> {
    pub fn report(&mut self, name: impl FnOnce() -> String, values: &ArrayView2<f32>) {
        if let Some(observer) = &mut self.0 {
            observer.stage(&name(), values.view());
        }
    }
}
