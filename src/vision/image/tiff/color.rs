//! Converts samples to 8-bit colours.

use super::{
    TiffError,
    layout::{Alpha, Compression, Format, Layout, Photometric},
    samples::Samples,
};
use crate::vision::image::ifd::{Directory, tag};

/// Tolerance for floats outside 0..=1: filters overshoot.
const OVERSHOOT: f32 = 0.1;

/// Converts samples, `[height, width, samples]`, to 8-bit grey or RGB, with or without alpha.
pub fn convert(
    layout: &Layout,
    tags: &Directory<'_>,
    samples: &Samples,
    out: &mut [u8],
) -> Result<(), TiffError> {
    match samples {
        Samples::U8(samples) => {
            let is_index = layout.photometric == Photometric::Palette;
            let max = match layout.bits {
                _ if is_index => 255,
                bits => (1_u32 << bits) - 1,
            };
            let levels: [u8; 256] = std::array::from_fn(|v| (v as u32 * 255 / max).min(255) as u8);
            colors(layout, tags, samples, |v| levels[usize::from(v)], out)
        }
        Samples::U16(samples) => {
            let range = unsigned_range(layout, samples);
            colors(layout, tags, samples, |v| range.level(v), out)
        }
        Samples::F32(samples) => {
            let (min, max) = real_range(layout, samples)?;
            let level = |v: f32| ((v - min) / (max - min)).clamp(0.0, 1.0) * 255.0;
            colors(layout, tags, samples, |v| level(v).round() as u8, out)
        }
    }
}

/// Values of black and white of unsigned samples.
struct UnsignedRange {
    min: u32,
    max: u32,
}

impl UnsignedRange {
    fn level(&self, v: u16) -> u8 {
        if (self.min, self.max) == (0, 65535) {
            return (v >> 8) as u8; // as for every other format
        }
        let (v, range) = (u32::from(v).saturating_sub(self.min), self.max - self.min);
        ((v * 255 + range / 2) / range).min(255) as u8
    }
}

/// Range of 16-bit samples. Cameras and microscopes store 10 or 12 bits in 16, which would look black. The tags or the
/// brightest sample show it.
fn unsigned_range(layout: &Layout, samples: &[u16]) -> UnsignedRange {
    if layout.bits < 16 {
        let max = (1 << layout.bits) - 1;
        return UnsignedRange { min: 0, max };
    }
    let pixels = samples.chunks_exact(layout.samples);
    let brightest = pixels.flat_map(|pixel| &pixel[..layout.n_colors()]).max();
    let brightest = u32::from(brightest.copied().unwrap_or(0));
    let (min, max) = match layout.range {
        // Some programs write the minimum and maximum of the samples into these tags; only dark pictures are
        // stretched.
        Some((min, max)) if max < 16384.0 && f64::from(brightest) <= max && min >= 0.0 => {
            (min as u32, (max as u32).max(min as u32 + 1))
        }
        _ => match brightest {
            1..=255 => (0, 255),
            256..=1023 => (0, 1023),
            1024..=4095 => (0, 4095),
            _ => (0, 65535),
        },
    };
    UnsignedRange { min, max }
}

/// Values of black and white of other samples: declared by the file, or evident from the samples.
fn real_range(layout: &Layout, samples: &[f32]) -> Result<(f32, f32), TiffError> {
    let pixels = samples.chunks_exact(layout.samples);
    let colors = pixels
        .flat_map(|pixel| &pixel[..layout.n_colors()])
        .copied();
    let finite = || colors.clone().filter(|v| v.is_finite());
    let n = finite().count();
    if n == 0 {
        return Err(TiffError::Variety(
            "samples without finite values".to_owned(),
        ));
    }
    if let Some((min, max)) = layout.range {
        let (min, max) = (min as f32, max as f32);
        let n_outside = finite().filter(|v| *v < min || *v > max).count();
        return match n_outside * 10 <= n {
            true => Ok((min, max)),
            false => Err(TiffError::Variety(format!(
                "samples outside the declared range {min} to {max}"
            ))),
        };
    }
    let min = finite().fold(f32::INFINITY, f32::min);
    let max = finite().fold(f32::NEG_INFINITY, f32::max);
    match layout.format {
        Format::Float if min >= -OVERSHOOT && max <= 1.0 + OVERSHOOT => Ok((0.0, 1.0)),
        Format::Unsigned if max >= 16_777_216.0 => Ok((0.0, u32::MAX as f32)),
        _ => Err(TiffError::Variety(format!(
            "samples from {min} to {max} without a declared range (SMinSampleValue, SMaxSampleValue)"
        ))),
    }
}

/// Writes every pixel; `level` converts a sample to 8 bits.
fn colors<T: Copy + Into<f64>>(
    layout: &Layout,
    tags: &Directory<'_>,
    samples: &[T],
    level: impl Fn(T) -> u8,
    out: &mut [u8],
) -> Result<(), TiffError> {
    let pixels = samples.chunks_exact(layout.samples);
    let n_colors = layout.n_colors();
    let n_out = out.len() / (layout.width as usize * layout.height as usize);
    let to_rgb = ToRgb::new(layout, tags)?;
    for (to, pixel) in out.chunks_exact_mut(n_out).zip(pixels) {
        let mut levels = [0; 4];
        for (to, from) in levels.iter_mut().zip(&pixel[..n_colors]) {
            *to = level(*from);
        }
        let rgb = to_rgb.rgb(levels);
        match layout.alpha {
            None => to.copy_from_slice(&rgb[..n_out]),
            Some(alpha) => {
                let opacity = level(pixel[n_colors]);
                let straight = |c: u8| match (alpha, opacity) {
                    (Alpha::Associated, 0) => 0,
                    (Alpha::Associated, a @ 1..=254) => {
                        (u32::from(c) * 255 / u32::from(a)).min(255) as u8
                    }
                    _ => c,
                };
                to[..n_out - 1].copy_from_slice(&rgb.map(straight)[..n_out - 1]);
                to[n_out - 1] = opacity;
            }
        }
    }
    Ok(())
}

/// Conversion from the levels of a pixel to RGB.
enum ToRgb {
    Grey,
    Inverted,
    Rgb,
    Palette(Vec<[u8; 3]>),
    Cmyk,
    YCbCr(Box<YCbCr>),
}

impl ToRgb {
    fn new(layout: &Layout, tags: &Directory<'_>) -> Result<Self, TiffError> {
        Ok(match layout.photometric {
            Photometric::BlackIsZero => Self::Grey,
            Photometric::WhiteIsZero => Self::Inverted,
            Photometric::Rgb => Self::Rgb,
            Photometric::Palette => Self::Palette(palette(layout, tags)?),
            Photometric::Cmyk => Self::Cmyk,
            // The JPEG decoder converts.
            Photometric::YCbCr if layout.compression == Compression::Jpeg && !layout.planar => {
                Self::Rgb
            }
            Photometric::YCbCr => Self::YCbCr(Box::new(YCbCr::new(tags))),
        })
    }

    fn rgb(&self, [a, b, c, d]: [u8; 4]) -> [u8; 3] {
        match self {
            Self::Grey => [a; 3],
            Self::Inverted => [255 - a; 3],
            Self::Rgb => [a, b, c],
            Self::Palette(colors) => colors[usize::from(a)],
            Self::Cmyk => {
                let white = 1.0 - f32::from(d) / 255.0;
                [a, b, c].map(|ink| ((255.0 - f32::from(ink)) * white) as u8)
            }
            Self::YCbCr(coefficients) => coefficients.rgb([a, b, c]),
        }
    }
}

/// The 256 colours of the palette; missing ones are black.
fn palette(layout: &Layout, tags: &Directory<'_>) -> Result<Vec<[u8; 3]>, TiffError> {
    let values = tags.values(tag::COLOR_MAP);
    let n = 1 << layout.bits;
    if values.len() < 3 * n {
        return Err(TiffError::Invalid("a palette that is too short"));
    }
    // Values should have 16 bits, but some programs write 8.
    let shift = if values.iter().any(|v| *v > 255) {
        8
    } else {
        0
    };
    let mut colors = vec![[0; 3]; 256];
    for (i, color) in colors.iter_mut().enumerate().take(n) {
        *color = [0, 1, 2].map(|c| (values[c * n + i] >> shift) as u8);
    }
    Ok(colors)
}

/// The coefficients of the file's YCbCr.
struct YCbCr {
    /// Coefficients of red, green and blue in luma.
    luma: [f32; 3],
    /// Codes of black and white for luma, and of zero and maximum for both chromas.
    reference: [f32; 6],
}

impl YCbCr {
    fn new(tags: &Directory<'_>) -> Self {
        let reals = |tag| {
            tags.reals(tag)
                .into_iter()
                .map(|v| v as f32)
                .collect::<Vec<_>>()
        };
        let luma = reals(tag::YCBCR_COEFFICIENTS).try_into();
        let reference = reals(tag::REFERENCE_BLACK_WHITE).try_into();
        Self {
            luma: luma.unwrap_or([0.299, 0.587, 0.114]),
            reference: reference.unwrap_or([0.0, 255.0, 128.0, 255.0, 128.0, 255.0]),
        }
    }

    fn rgb(&self, codes: [u8; 3]) -> [u8; 3] {
        let [black, white, ..] = self.reference;
        let y = (f32::from(codes[0]) - black) * 255.0 / (white - black);
        let chroma = |i: usize| {
            let [zero, full] = [self.reference[2 * i], self.reference[2 * i + 1]];
            (f32::from(codes[i]) - zero) * 127.0 / (full - zero)
        };
        let [of_red, of_green, of_blue] = self.luma;
        let red = y + chroma(2) * (2.0 - 2.0 * of_red);
        let blue = y + chroma(1) * (2.0 - 2.0 * of_blue);
        let green = (y - of_red * red - of_blue * blue) / of_green;
        [red, green, blue].map(|v| v.round().clamp(0.0, 255.0) as u8)
    }
}
