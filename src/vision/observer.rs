//! Looking at the encoder while it works: the way to find the first stage that departs.

use ndarray::ArrayView2;

/// Is shown every stage of an encoding, in order.
///
/// The names are those of the golden files: `patch_embed` `[n_patches, n_embd]`, `embeddings`
/// `[n_tokens, n_embd]` (class token first, positions added), `hidden.0` (normalised embeddings) to
/// `hidden.n` (after layer n), `features` `[n_patches, n_embd]` and `projected`
/// `[n_patches, n_embd_text]`.
pub trait StageObserver {
    /// Called once a stage; the values are gone when it returns.
    fn stage(&mut self, name: &str, values: ArrayView2<f32>);
}

/// An observer, or none: then nothing is computed for it, not even a name.
pub struct Stages<'a>(pub Option<&'a mut dyn StageObserver>);

impl Stages<'_> {
    pub fn report(&mut self, name: impl FnOnce() -> String, values: &ArrayView2<f32>) {
        if let Some(observer) = &mut self.0 {
            observer.stage(&name(), values.view());
        }
    }
}
