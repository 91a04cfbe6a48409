//! Samples to 8-bit colours.

use super::{
    Fault,
    layout::{Alpha, Compression, Format, Layout, Photometric},
    samples::Samples,
};
use crate::vision::image::ifd::{Directory, tag};

/// How far floats may lie outside 0..=1 and still be meant to lie in it: filters overshoot.
const OVERSHOOT: f32 = 0.1;

/// Converts samples, `[height, width, samples]`, to grey or RGB with or without alpha, 8 bits each.
pub fn convert(
    layout: &Layout,
    tags: &Directory<'_>,
    samples: &Samples,
    out: &mut [u8],
) -> Result<(), Fault> {
    match samples {
        Samples::U8(samples) => {
            let is_index = layout.photometric == Photometric::Palette;
            let most = match layout.bits {
                _ if is_index => 255,
                bits => (1_u32 << bits) - 1,
            };
            let levels: [u8; 256] = std::array::from_fn(|v| (v as u32 * 255 / most).min(255) as u8);
            colors(layout, tags, samples, |v| levels[usize::from(v)], out)
        }
        Samples::U16(samples) => {
            let range = unsigned_range(layout, samples);
            colors(layout, tags, samples, |v| range.level(v), out)
        }
        Samples::F32(samples) => {
            let (least, most) = real_range(layout, samples)?;
            let level = |v: f32| ((v - least) / (most - least)).clamp(0.0, 1.0) * 255.0;
            colors(layout, tags, samples, |v| level(v).round() as u8, out)
        }
    }
}

/// Black and white of unsigned samples.
struct Unsigned {
    least: u32,
    most: u32,
}

impl Unsigned {
    fn level(&self, v: u16) -> u8 {
        if (self.least, self.most) == (0, 65535) {
            return (v >> 8) as u8; // as for every other format
        }
        let (v, range) = (
            u32::from(v).saturating_sub(self.least),
            self.most - self.least,
        );
        ((v * 255 + range / 2) / range).min(255) as u8
    }
}

/// Cameras and microscopes write 10 or 12 bits into 16, where they would be black. The file says so, or its
/// samples do.
fn unsigned_range(layout: &Layout, samples: &[u16]) -> Unsigned {
    if layout.bits < 16 {
        let most = (1 << layout.bits) - 1;
        return Unsigned { least: 0, most };
    }
    let pixels = samples.chunks_exact(layout.samples);
    let brightest = pixels.flat_map(|pixel| &pixel[..layout.n_colors()]).max();
    let brightest = u32::from(brightest.copied().unwrap_or(0));
    let (least, most) = match layout.range {
        // Programs write the extremes of the samples into these tags, too; only what would be dark is stretched.
        Some((least, most)) if most < 16384.0 && f64::from(brightest) <= most && least >= 0.0 => {
            (least as u32, (most as u32).max(least as u32 + 1))
        }
        _ => match brightest {
            1..=255 => (0, 255),
            256..=1023 => (0, 1023),
            1024..=4095 => (0, 4095),
            _ => (0, 65535),
        },
    };
    Unsigned { least, most }
}

/// Black and white of other samples: what the file declares, or what goes without saying.
fn real_range(layout: &Layout, samples: &[f32]) -> Result<(f32, f32), Fault> {
    let pixels = samples.chunks_exact(layout.samples);
    let colors = pixels
        .flat_map(|pixel| &pixel[..layout.n_colors()])
        .copied();
    let finite = || colors.clone().filter(|v| v.is_finite());
    let n = finite().count();
    if n == 0 {
        return Err(Fault::Variety("samples that are no numbers".to_owned()));
    }
    if let Some((least, most)) = layout.range {
        let (least, most) = (least as f32, most as f32);
        let n_outside = finite().filter(|v| *v < least || *v > most).count();
        return match n_outside * 10 <= n {
            true => Ok((least, most)),
            false => Err(Fault::Variety(format!(
                "samples outside the range {least} to {most} that it declares"
            ))),
        };
    }
    let least = finite().fold(f32::INFINITY, f32::min);
    let most = finite().fold(f32::NEG_INFINITY, f32::max);
    match layout.format {
        Format::Float if least >= -OVERSHOOT && most <= 1.0 + OVERSHOOT => Ok((0.0, 1.0)),
        Format::Unsigned if most >= 16_777_216.0 => Ok((0.0, u32::MAX as f32)),
        _ => Err(Fault::Variety(format!(
            "samples from {least} to {most} and no word on which of them is white (SMinSampleValue, \
             SMaxSampleValue)"
        ))),
    }
}

/// Writes every pixel; `level` makes 8 bits of a sample.
fn colors<T: Copy + Into<f64>>(
    layout: &Layout,
    tags: &Directory<'_>,
    samples: &[T],
    level: impl Fn(T) -> u8,
    out: &mut [u8],
) -> Result<(), Fault> {
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

/// From the levels of a pixel to its colour.
enum ToRgb {
    Grey,
    Inverted,
    Rgb,
    Palette(Vec<[u8; 3]>),
    Cmyk,
    YCbCr(Box<YCbCr>),
}

impl ToRgb {
    fn new(layout: &Layout, tags: &Directory<'_>) -> Result<Self, Fault> {
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

/// The 256 colours that an index may stand for; those that the file does not have are black.
fn palette(layout: &Layout, tags: &Directory<'_>) -> Result<Vec<[u8; 3]>, Fault> {
    let values = tags.values(tag::COLOR_MAP);
    let n = 1 << layout.bits;
    if values.len() < 3 * n {
        return Err(Fault::Invalid("a palette that is too short"));
    }
    // 16 bits are meant; some programs write 8.
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

/// The coefficients of a file's YCbCr.
struct YCbCr {
    /// Of red, green and blue in luma.
    luma: [f32; 3],
    /// Codes of black and white of luma, of zero and full of both chromas.
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
