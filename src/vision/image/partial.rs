//! Recovers the available pixels of a truncated file.

use ::image::{ColorType, DynamicImage, ImageDecoder, ImageResult, RgbImage};

/// Grey level of missing pixels.
const GREY: u8 = 128;

/// A picture that may be incomplete.
pub struct Partial {
    /// The picture; missing pixels are grey.
    pub picture: DynamicImage,
    /// Whether pixels are missing.
    pub is_truncated: bool,
}

/// Reads the available pixels with decoders from `decoder`; `None` if there are none.
///
/// Decoders store the available samples before they report the end of the file. Decoding twice, into buffers with
/// different content, shows which samples were stored.
pub fn read<'a>(decoder: impl Fn() -> ImageResult<Box<dyn ImageDecoder + 'a>>) -> Option<Partial> {
    let (color, (width, height)) = {
        let decoder = decoder().ok()?;
        (decoder.color_type(), decoder.dimensions())
    };
    let read_over = |fill: u8| {
        let decoder = decoder().ok()?;
        let mut samples = vec![fill; usize::try_from(decoder.total_bytes()).ok()?];
        let _ = decoder.read_image_boxed(&mut samples); // the caller already has this error
        Some(samples)
    };
    let (mut samples, other) = (read_over(0)?, read_over(u8::MAX)?);
    let mut n_missing = 0;
    let pixel_len = usize::from(color.bytes_per_pixel());
    let alpha_len = match color.has_alpha() {
        true => pixel_len / usize::from(color.channel_count()),
        false => 0,
    };
    let pixels = samples.chunks_exact_mut(pixel_len);
    for (pixel, other) in pixels.zip(other.chunks_exact(pixel_len)) {
        if pixel != other {
            n_missing += 1;
            let (colors, alpha) = pixel.split_at_mut(pixel_len - alpha_len);
            colors.fill(GREY);
            alpha.fill(u8::MAX);
        }
    }
    let n = samples.len() / pixel_len;
    let picture = picture(color, width, height, samples)?;
    (n_missing < n).then_some(Partial {
        picture,
        is_truncated: n_missing > 0,
    })
}

fn picture(color: ColorType, width: u32, height: u32, samples: Vec<u8>) -> Option<DynamicImage> {
    use ::image::{GrayAlphaImage, GrayImage, RgbaImage};
    Some(match color {
        ColorType::L8 => DynamicImage::ImageLuma8(GrayImage::from_raw(width, height, samples)?),
        ColorType::La8 => {
            DynamicImage::ImageLumaA8(GrayAlphaImage::from_raw(width, height, samples)?)
        }
        ColorType::Rgb8 => DynamicImage::ImageRgb8(RgbImage::from_raw(width, height, samples)?),
        ColorType::Rgba8 => DynamicImage::ImageRgba8(RgbaImage::from_raw(width, height, samples)?),
        _ => {
            // 16 bits in native byte order: only the high bytes are used later.
            let high = if cfg!(target_endian = "little") { 1 } else { 0 };
            let samples = samples.chunks_exact(2).map(|s| s[high]).collect();
            let color = match color {
                ColorType::L16 => ColorType::L8,
                ColorType::La16 => ColorType::La8,
                ColorType::Rgb16 => ColorType::Rgb8,
                ColorType::Rgba16 => ColorType::Rgba8,
                _ => return None,
            };
            return picture(color, width, height, samples);
        }
    })
}
