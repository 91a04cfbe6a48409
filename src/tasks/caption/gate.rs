//! Skips video frames that hardly differ from the last captioned one.

use ::image::{RgbImage, imageops};

/// Side in pixels of the compared thumbnails: small enough to average the camera's noise.
const SIDE: u32 = 32;

/// Passes a picture if it differs enough from the last one that passed.
///
/// Both are reduced to 32×32 grey pixels. The change is the mean absolute difference of these, in percent of the
/// range from black to white. Pictures are compared with the last one that *passed*, so that slow changes add up.
#[derive(Clone, Debug)]
pub struct Gate {
    min_change: f32,
    last: Option<Vec<u8>>,
}

impl Gate {
    /// Passes changes of at least `min_change` percent. The first picture always passes.
    pub fn new(min_change: f32) -> Self {
        Self {
            min_change,
            last: None,
        }
    }

    /// Whether `picture` passes.
    pub fn passes(&mut self, picture: &RgbImage) -> bool {
        let small = grey(picture);
        let same = self
            .last
            .as_ref()
            .is_some_and(|last| change(last, &small) < self.min_change);
        if !same {
            self.last = Some(small);
        }
        !same
    }
}

/// The grey thumbnail, `[32, 32]`; 0 is black.
fn grey(picture: &RgbImage) -> Vec<u8> {
    imageops::grayscale(&imageops::thumbnail(picture, SIDE, SIDE)).into_raw()
}

/// Mean absolute difference, in percent.
fn change(a: &[u8], b: &[u8]) -> f32 {
    let sum: u32 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u32::from(a.abs_diff(*b)))
        .sum();
    sum as f32 / (a.len() as f32 * 255.0) * 100.0
}

#[cfg(test)]
mod tests {
    use ::image::Rgb;

    use super::*;

    fn plain(grey: u8) -> RgbImage {
        RgbImage::from_pixel(64, 48, Rgb([grey; 3]))
    }

    #[test]
    fn change_is_in_percent_from_black_to_white() {
        let of = |a, b| change(&grey(&plain(a)), &grey(&plain(b)));
        assert_eq!(of(0, 255), 100.0);
        assert_eq!(of(7, 7), 0.0);
        assert!((of(100, 151) - 20.0).abs() < 0.01);
    }

    #[test]
    fn a_slow_change_adds_up() {
        let mut gate = Gate::new(2.0);
        let passed: Vec<u8> = (100..120).filter(|g| gate.passes(&plain(*g))).collect();
        assert_eq!(passed, [100, 106, 112, 118]); // six levels are 2.35 %, five 1.96 %
    }

    #[test]
    fn a_new_object_passes_and_noise_does_not() {
        let mut gate = Gate::new(2.0);
        let noisy = |seed: u32| {
            RgbImage::from_fn(320, 240, |x, y| {
                let hash = (x * 7919 + y * 104_729 + seed).wrapping_mul(2_654_435_761);
                Rgb([120 + (hash >> 28) as u8; 3])
            })
        };
        assert!(gate.passes(&noisy(1)));
        assert!(!gate.passes(&noisy(2)));
        let mut with_object = noisy(3);
        imageops::replace(
            &mut with_object,
            &RgbImage::from_pixel(80, 60, Rgb([250, 250, 250])),
            40,
            40,
        );
        assert!(gate.passes(&with_object));
    }
}
