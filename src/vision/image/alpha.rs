//! What becomes of transparency.
//!
//! The reference drops alpha. The model then sees the colours under it, which nobody sees: black where an
//! editor erased, or whatever stood there before. Where that is a good part of the picture it is put on white
//! instead, as a page shows it.

use ::image::DynamicImage;

/// What to do with the transparent parts of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transparency {
    /// [`Self::White`] where transparency hides a good part of the picture, otherwise [`Self::Drop`].
    #[default]
    Auto,
    /// Show the colours under it, as the reference implementation does.
    Drop,
    /// Put the picture on white.
    White,
}

/// A pixel counts as hidden if dropping its alpha and blending it differ by so much in a channel.
const VISIBLE_LEVELS: u32 = 32;
/// The share of hidden pixels from which on a picture is put on white, in percent.
///
/// Measured with the bundled model and eight scenes: a black frame under transparency that covers 1.8 % of the
/// picture (one pixel of 224) makes it see things that are not there, and a quarter of the answer is wrong; on white
/// 4 % are. Under a percent there are only rounded corners and smoothed edges.
const HIDDEN_PERCENT: u64 = 1;

impl Transparency {
    /// Puts the picture on white if that is to be done; whether it was. Alpha itself stays as it is.
    pub(super) fn apply(self, picture: &mut DynamicImage) -> bool {
        let on_white = match self {
            Self::Drop => false,
            Self::White => true,
            Self::Auto => Survey::of(picture).is_better_on_white(),
        };
        on_white && blend(picture)
    }
}

/// What transparency does to a picture.
#[derive(Default)]
struct Survey {
    n_pixels: u64,
    /// Pixels that look otherwise on white than with alpha dropped.
    n_hidden: u64,
    /// Pixels that are more there than not.
    n_solid: u64,
    /// Those of them that are nearly white.
    n_solid_white: u64,
}

impl Survey {
    fn of(picture: &DynamicImage) -> Self {
        let mut survey = Self::default();
        let high = |sample: u16| (sample >> 8) as u8;
        let level = |sample: f32| (sample.clamp(0.0, 1.0) * 255.0) as u8;
        match picture {
            DynamicImage::ImageLumaA8(p) => p.pixels().for_each(|p| survey.add(&p.0[..1], p.0[1])),
            DynamicImage::ImageRgba8(p) => p.pixels().for_each(|p| survey.add(&p.0[..3], p.0[3])),
            DynamicImage::ImageLumaA16(p) => p.pixels().for_each(|p| {
                let [grey, a] = p.0.map(high);
                survey.add(&[grey], a);
            }),
            DynamicImage::ImageRgba16(p) => p.pixels().for_each(|p| {
                let [r, g, b, a] = p.0.map(high);
                survey.add(&[r, g, b], a);
            }),
            DynamicImage::ImageRgba32F(p) => p.pixels().for_each(|p| {
                let [r, g, b, a] = p.0.map(level);
                survey.add(&[r, g, b], a);
            }),
            _ => {}
        }
        survey
    }

    fn add(&mut self, colour: &[u8], alpha: u8) {
        let darkest = colour.iter().min().copied().unwrap_or(0);
        let difference = u32::from(255 - darkest) * u32::from(255 - alpha) / 255;
        self.n_pixels += 1;
        self.n_hidden += u64::from(difference >= VISIBLE_LEVELS);
        self.n_solid += u64::from(alpha >= 128);
        self.n_solid_white += u64::from(alpha >= 128 && darkest >= 224);
    }

    fn is_better_on_white(&self) -> bool {
        let is_invisible = self.n_solid == 0; // alpha that a program left unset
        let is_white = self.n_solid_white * 100 >= self.n_solid * 95; // it would vanish
        !is_invisible && !is_white && self.n_hidden * 100 >= self.n_pixels * HIDDEN_PERCENT
    }
}

/// Blends with white where alpha is not full; whether there is such a pixel.
fn blend(picture: &mut DynamicImage) -> bool {
    match picture {
        DynamicImage::ImageLumaA8(p) => any(p.pixels_mut().map(|p| blend_8(&mut p.0))),
        DynamicImage::ImageRgba8(p) => any(p.pixels_mut().map(|p| blend_8(&mut p.0))),
        DynamicImage::ImageLumaA16(p) => any(p.pixels_mut().map(|p| blend_16(&mut p.0))),
        DynamicImage::ImageRgba16(p) => any(p.pixels_mut().map(|p| blend_16(&mut p.0))),
        DynamicImage::ImageRgba32F(p) => any(p.pixels_mut().map(|p| blend_float(&mut p.0))),
        _ => false,
    }
}

/// Whether any is true; unlike [`Iterator::any`] it takes them all, since all pixels are to be blended.
fn any(pixels: impl Iterator<Item = bool>) -> bool {
    pixels.fold(false, |any, one| any | one)
}

/// Blends a pixel; whether it is not opaque.
fn blend_8<const N: usize>(pixel: &mut [u8; N]) -> bool {
    let [colour @ .., alpha] = &mut pixel[..] else {
        return false;
    };
    let alpha = u32::from(*alpha);
    for sample in colour {
        let sum = u32::from(*sample) * alpha + 255 * (255 - alpha);
        *sample = ((sum + 127) / 255) as u8;
    }
    alpha < 255
}

fn blend_16<const N: usize>(pixel: &mut [u16; N]) -> bool {
    const MAX: u64 = u16::MAX as u64;
    let [colour @ .., alpha] = &mut pixel[..] else {
        return false;
    };
    let alpha = u64::from(*alpha);
    for sample in colour {
        let sum = u64::from(*sample) * alpha + MAX * (MAX - alpha);
        *sample = ((sum + MAX / 2) / MAX) as u16;
    }
    alpha < MAX
}

fn blend_float([colour @ .., alpha]: &mut [f32; 4]) -> bool {
    let alpha = alpha.clamp(0.0, 1.0);
    for sample in colour {
        *sample = *sample * alpha + (1.0 - alpha);
    }
    alpha < 1.0
}

#[cfg(test)]
mod tests;
