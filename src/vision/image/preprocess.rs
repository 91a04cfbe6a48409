//! Resizes and normalises a picture for the vision tower.

use ::image::RgbImage;

use super::resize::{Filter, resize};

/// CLIP's training mean per channel (RGB), for samples in 0..=1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's training standard deviation per channel (RGB), for samples in 0..=1.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The input of the tower: `[3, S, S]`, channels R, G, B, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelValues {
    size: usize,
    values: Vec<f32>,
}

impl PixelValues {
    /// Wraps values `[3, size, size]`; `None` if their number is wrong.
    pub fn from_raw(size: usize, values: Vec<f32>) -> Option<Self> {
        (Some(values.len()) == size.checked_mul(size)?.checked_mul(3))
            .then_some(Self { size, values })
    }

    /// Side in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// All values, `[3, size, size]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The plane of one channel, `[size, size]`; channel 0 is red.
    pub fn plane(&self, channel: usize) -> &[f32] {
        &self.values[channel * self.size * self.size..][..self.size * self.size]
    }
}

/// Resizes and normalises pictures with the model's constants.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    image_size: u32,
    /// Normalised value of each of the 256 levels, per channel.
    levels: [[f32; 256]; 3],
}

impl Preprocessor {
    /// For squares of `image_size` pixels per side, with mean and standard deviation per channel (RGB).
    pub fn new(image_size: u32, image_mean: [f32; 3], image_std: [f32; 3]) -> Self {
        // In f32 and in this order, as in torchvision's ToTensor and Normalize.
        let level =
            |c: usize, sample: usize| (sample as f32 / 255.0 - image_mean[c]) / image_std[c];
        Self {
            image_size,
            levels: std::array::from_fn(|c| std::array::from_fn(|sample| level(c, sample))),
        }
    }

    /// The normalised value of each of the 256 levels of a channel.
    pub(super) fn levels(&self, channel: usize) -> &[f32; 256] {
        &self.levels[channel]
    }

    /// Side of the output, in pixels.
    pub fn image_size(&self) -> u32 {
        self.image_size
    }

    /// Resizes a picture of any size to a square (the aspect ratio is not kept) and normalises it.
    pub fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        self.normalize(&self.resize(picture))
    }

    /// The first half of [`Self::pixel_values`].
    pub fn resize(&self, picture: &RgbImage) -> RgbImage {
        resize(picture, self.image_size, self.image_size, Filter::Bicubic)
    }

    /// The second half of [`Self::pixel_values`].
    ///
    /// # Panics
    /// If the sides of the picture are not [`Self::image_size`].
    pub fn normalize(&self, resized: &RgbImage) -> PixelValues {
        let side = self.image_size;
        assert_eq!(resized.dimensions(), (side, side), "the picture is resized");
        let mut values = Vec::with_capacity(resized.len());
        for (channel, levels) in self.levels.iter().enumerate() {
            values.extend(resized.pixels().map(|p| levels[usize::from(p.0[channel])]));
        }
        PixelValues {
            size: side as usize,
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_red_green_blue() {
        let picture = RgbImage::from_pixel(2, 2, ::image::Rgb([255, 0, 51]));
        let pixels = Preprocessor::new(2, [0.5, 0.25, 0.0], [0.5, 0.5, 0.1]).normalize(&picture);
        assert_eq!(pixels.plane(0), [1.0; 4]);
        assert_eq!(pixels.plane(1), [-0.5; 4]);
        assert_eq!(pixels.plane(2), [2.0; 4]);
    }

    #[test]
    fn raw_values_must_fill_three_planes() {
        assert!(PixelValues::from_raw(2, vec![0.0; 12]).is_some());
        assert!(PixelValues::from_raw(2, vec![0.0; 11]).is_none());
        assert!(PixelValues::from_raw(usize::MAX, vec![]).is_none());
    }
}
