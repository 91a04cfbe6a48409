//! Whether a picture differs enough from the last one to be worth a caption.

use ::image::{RgbImage, imageops};

/// Pixels a side of what is compared: small enough to average the camera's noise away.
const SIDE: u32 = 32;

/// Lets a picture pass if it differs from the last that passed.
///
/// Both are shrunk to 32×32 grey pixels; the difference is the mean of the absolute differences of
/// those, in percent of the way from black to white. The last that *passed* is what counts, not the
/// last that was seen, so that a slow change adds up until it is enough.
#[derive(Clone, Debug)]
pub struct Gate {
    min_change: f32,
    last: Option<Vec<u8>>,
}

impl Gate {
    /// A gate for changes of `min_change` percent or more. The first picture passes.
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

/// `[32, 32]`, 0 is black.
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
    fn noise_does_not_pass_and_a_thing_that_appears_does() {
        let mut gate = Gate::new(2.0);
        let noisy = |seed: u32| {
            RgbImage::from_fn(320, 240, |x, y| {
                let hash = (x * 7919 + y * 104_729 + seed).wrapping_mul(2_654_435_761);
                Rgb([120 + (hash >> 28) as u8; 3])
            })
        };
        assert!(gate.passes(&noisy(1)));
        assert!(!gate.passes(&noisy(2)));
        let mut with_thing = noisy(3);
        imageops::replace(
            &mut with_thing,
            &RgbImage::from_pixel(80, 60, Rgb([250, 250, 250])),
            40,
            40,
        );
        assert!(gate.passes(&with_thing));
    }
}
