//! Hyper-parameters of the vision tower and its projector.

use thiserror::Error;

/// The hyper-parameters that a model's metadata must contain for its vision part.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Side of the square input picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Width of the tower.
    pub n_embd: usize,
    /// Attention heads; each is `n_embd / n_head` wide.
    pub n_head: usize,
    /// Width of the feed-forward layer.
    pub n_ff: usize,
    /// Number of layers; all of them run.
    pub n_layer: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f32,
    /// Width of the decoder's embeddings: the projector's output.
    pub n_embd_text: usize,
}

/// A value that is out of range or contradicts another.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("vision tower: expected {expected}, found {field} {found}")]
pub struct VisionConfigError {
    /// Field of [`VisionConfig`].
    pub field: &'static str,
    /// Description of the valid values.
    pub expected: String,
    /// Its value.
    pub found: String,
}

/// Colour channels of a picture.
pub(crate) const CHANNELS: usize = 3;

/// Limits far above any tower of the family (560 pixels, 1024 wide, 4096 in the feed-forward layer, 24 layers). They
/// keep products of damaged metadata from overflowing, even in 32 bits.
const MAX_IMAGE_SIZE: usize = 4096;
const MAX_WIDTH: usize = 1 << 16;
const MAX_LAYERS: usize = 1024;

impl VisionConfig {
    /// Patches per side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches per picture; also the number of output embeddings.
    pub fn n_patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Rows in the tower: the class token and the patches.
    pub fn n_tokens(&self) -> usize {
        self.n_patches() + 1
    }

    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Values per patch: channels x patch_size x patch_size.
    pub fn patch_len(&self) -> usize {
        CHANNELS * self.patch_size * self.patch_size
    }

    /// Floating-point operations for one picture; a multiply-add counts as two.
    pub fn flops(&self) -> f64 {
        let [n, p, c, ff, text] = [
            self.n_tokens(),
            self.n_patches(),
            self.n_embd,
            self.n_ff,
            self.n_embd_text,
        ]
        .map(|v| v as f64);
        let embed = 2.0 * p * c * self.patch_len() as f64;
        let layer = 2.0 * n * c * (4.0 * c + 2.0 * ff) + 4.0 * n * n * c;
        let projector = 2.0 * p * text * (c + text);
        embed + layer * self.n_layer as f64 + projector
    }

    /// Checks that the values are in range and consistent.
    ///
    /// # Errors
    /// [`VisionConfigError`] for the first value that is not.
    pub fn check(&self) -> Result<(), VisionConfigError> {
        let ranges = [
            ("image_size", self.image_size, MAX_IMAGE_SIZE),
            ("patch_size", self.patch_size, MAX_IMAGE_SIZE),
            ("n_embd", self.n_embd, MAX_WIDTH),
            ("n_head", self.n_head, MAX_WIDTH),
            ("n_ff", self.n_ff, MAX_WIDTH),
            ("n_layer", self.n_layer, MAX_LAYERS),
            ("n_embd_text", self.n_embd_text, MAX_WIDTH),
        ];
        for (field, value, max) in ranges {
            ensure((1..=max).contains(&value), field, value, || {
                format!("1 to {max}")
            })?;
        }
        let multiples = [
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("n_embd", self.n_embd, "n_head", self.n_head),
        ];
        for (field, value, of, divisor) in multiples {
            ensure(value.is_multiple_of(divisor), field, value, || {
                format!("a multiple of {of} {divisor}")
            })?;
        }
        let eps = self.layer_norm_eps;
        ensure((0.0..1.0).contains(&eps), "layer_norm_eps", eps, || {
            "at least 0 and below 1".to_owned()
        })
    }
}

fn ensure(
    holds: bool,
    field: &'static str,
    found: impl Copy + ToString,
    expected: impl FnOnce() -> String,
) -> Result<(), VisionConfigError> {
    if holds {
        return Ok(());
    }
    Err(VisionConfigError {
        field,
        expected: expected(),
        found: found.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vl_7b() -> VisionConfig {
        VisionConfig {
            image_size: 490,
            patch_size: 14,
            n_embd: 1024,
            n_head: 16,
            n_ff: 4096,
            n_layer: 24,
            layer_norm_eps: 1e-5,
            n_embd_text: 4096,
        }
    }

    #[test]
    fn the_published_tower_has_1225_patches_and_heads_of_64() {
        let config = vl_7b();
        config.check().unwrap();
        assert_eq!((config.grid(), config.n_patches()), (35, 1225));
        assert_eq!((config.head_dim(), config.patch_len()), (64, 588));
        assert!(
            (config.flops() / 1e9 - 941.0).abs() < 1.0,
            "{}",
            config.flops()
        );
    }

    #[test]
    fn each_invalid_value_is_reported_with_its_field() {
        type Damage = fn(&mut VisionConfig);
        let cases: [(&str, Damage); 7] = [
            ("image_size", |c| c.image_size = 491),
            ("image_size", |c| c.image_size = usize::MAX),
            ("patch_size", |c| c.patch_size = 0),
            ("n_embd", |c| c.n_head = 7),
            ("n_head", |c| c.n_head = 0),
            ("n_layer", |c| c.n_layer = 0),
            ("layer_norm_eps", |c| c.layer_norm_eps = f32::NAN),
        ];
        for (expected, damage) in cases {
            let mut config = vl_7b();
            damage(&mut config);
            match config.check() {
                Err(VisionConfigError { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
