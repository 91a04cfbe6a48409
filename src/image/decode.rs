//! Bytes of a picture file to 8-bit RGB.
//!
//! The format is told by the first bytes, never by the file's name. Of animations the first frame
//! is taken. Colours follow Pillow's `convert("RGB")`, which the models were trained with: alpha is
//! dropped and not blended, grey is repeated. Samples of 16 bits keep their high byte, as Pillow
//! does for colour; for 16-bit grey Pillow clips at 255, which turns nearly every picture white,
//! and that is not imitated. Colour profiles are ignored, again as in the reference.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use ::image::{
    ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage,
    metadata::Orientation as Turn,
};

use super::{ImageError, jpeg};

/// The most memory that the samples of a picture may take when decoded, in bytes.
///
/// Prevents a file of a few kilobytes from claiming all memory. At three bytes a pixel this is
/// 179 million pixels, the size at which Pillow speaks of a decompression bomb; fewer with alpha or
/// 16-bit samples, because it is the memory that counts here.
pub const MAX_DECODED_BYTES: u64 = 512 << 20;

/// The longest file that is read: uncompressed pictures are a little longer than their samples.
const MAX_FILE_BYTES: u64 = MAX_DECODED_BYTES + (1 << 20);

/// What to do with the orientation that a camera noted in the file (EXIF).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orientation {
    /// Turn the picture upright: what people see in every viewer.
    #[default]
    Apply,
    /// Take the samples as they are stored, as the reference implementation does.
    Ignore,
}

/// Reads and decodes the picture in a file.
///
/// # Errors
/// [`ImageError::File`] with the path and, as its source, what is wrong.
pub fn open(path: &Path, orientation: Orientation) -> Result<RgbImage, ImageError> {
    decode(&read(path)?, orientation).map_err(|e| e.of_file(path))
}

/// Reads a picture file without decoding it.
///
/// # Errors
/// [`ImageError::File`] with the path and, as its source, what is wrong.
pub fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = || read_from(File::open(path)?, u64::MAX);
    read().map_err(|e| e.of_file(path))
}

/// Reads the content of a picture file that comes from somewhere else, without decoding it.
///
/// # Errors
/// If it cannot be read, or is larger than any picture file or than `max_bytes`.
pub fn read_from(input: impl Read, max_bytes: u64) -> Result<Vec<u8>, ImageError> {
    let limit_bytes = max_bytes.min(MAX_FILE_BYTES);
    let mut bytes = Vec::new();
    input.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(ImageError::FileTooLarge { limit_bytes });
    }
    Ok(bytes)
}

/// Decodes a picture from the content of its file.
///
/// # Errors
/// If the bytes are no picture of a known format, are incomplete or damaged, or describe one beyond
/// [`MAX_DECODED_BYTES`]; the last is found from the header, before memory is taken.
pub fn decode(bytes: &[u8], orientation: Orientation) -> Result<RgbImage, ImageError> {
    decode_within(bytes, orientation, u64::MAX)
}

/// As [`decode`], if that takes no more than `max_bytes` of memory.
///
/// # Errors
/// As there, and [`ImageError::NoMemory`], which is found from the header too.
pub fn decode_within(
    bytes: &[u8],
    orientation: Orientation,
    max_bytes: u64,
) -> Result<RgbImage, ImageError> {
    let (format, name) = format_of(bytes)?;
    if format == ImageFormat::Jpeg && !jpeg::is_complete(bytes) {
        return Err(ImageError::Truncated { format: name });
    }
    let fail = |source| decode_error(name, source);

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(2 * MAX_DECODED_BYTES); // the samples, and what decoding them takes
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(fail)?;
    check_size(&decoder)?;

    let turn = match orientation {
        // A damaged EXIF block is no reason to refuse the picture.
        Orientation::Apply => decoder.orientation().unwrap_or(Turn::NoTransforms),
        Orientation::Ignore => Turn::NoTransforms,
    };
    let needed = decoding_bytes(&decoder, turn);
    if needed > max_bytes {
        let (width, height) = decoder.dimensions();
        return Err(ImageError::NoMemory {
            width,
            height,
            needed,
            left: max_bytes,
        });
    }
    let rgb = into_rgb8(DynamicImage::from_decoder(decoder).map_err(fail)?);
    if turn == Turn::NoTransforms {
        return Ok(rgb);
    }
    let mut upright = DynamicImage::ImageRgb8(rgb);
    upright.apply_orientation(turn);
    Ok(upright.into_rgb8())
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let format = ::image::guess_format(bytes).ok();
    let name = match format {
        Some(ImageFormat::Jpeg) => "JPEG",
        Some(ImageFormat::Png) => "PNG",
        Some(ImageFormat::WebP) => "WebP",
        Some(ImageFormat::Bmp) => "BMP",
        Some(ImageFormat::Gif) => "GIF",
        Some(ImageFormat::Tiff) => "TIFF",
        _ => "",
    };
    match format {
        Some(format) if !name.is_empty() => Ok((format, name)),
        _ => Err(ImageError::UnknownFormat {
            head: bytes[..bytes.len().min(16)].to_vec(),
        }),
    }
}

fn check_size(decoder: &impl ImageDecoder) -> Result<(), ImageError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    // The stored samples, and the RGB made of them (larger for grey pictures).
    let rgb_bytes = 3 * u64::from(width) * u64::from(height);
    if decoder.total_bytes().max(rgb_bytes) > MAX_DECODED_BYTES {
        return Err(ImageError::TooLarge {
            width,
            height,
            limit_bytes: MAX_DECODED_BYTES,
        });
    }
    Ok(())
}

/// Bytes that decoding takes at least: the samples, the RGB made of them where they are something else, and
/// a turned copy of that.
fn decoding_bytes(decoder: &impl ImageDecoder, turn: Turn) -> u64 {
    let (width, height) = decoder.dimensions();
    let rgb = 3 * u64::from(width) * u64::from(height);
    let converted = match decoder.color_type() {
        ColorType::Rgb8 => 0,
        _ => rgb,
    };
    let turned = match turn {
        Turn::NoTransforms => 0,
        _ => 2 * rgb,
    };
    turned.max(decoder.total_bytes() + converted)
}

fn decode_error(format: &'static str, source: ::image::ImageError) -> ImageError {
    match source {
        ::image::ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        ::image::ImageError::Unsupported(source) => ImageError::Unsupported { format, source },
        source => ImageError::Decode { format, source },
    }
}

/// Any layout of samples to 8-bit RGB, by the rules at the top of this file.
fn into_rgb8(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let grey = |g: u8| [g; 3];
    let samples: Vec<u8> = match picture {
        DynamicImage::ImageRgb8(rgb) => return rgb,
        DynamicImage::ImageLuma8(p) => GrayImage::into_raw(p).into_iter().flat_map(grey).collect(),
        DynamicImage::ImageLumaA8(p) => p.pixels().flat_map(|p| grey(p.0[0])).collect(),
        DynamicImage::ImageRgba8(p) => p.pixels().flat_map(|p| first_three(p.0)).collect(),
        DynamicImage::ImageLuma16(p) => p.pixels().flat_map(|p| grey(high(p.0[0]))).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| grey(high(p.0[0]))).collect(),
        DynamicImage::ImageRgb16(p) => p.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(p) => p
            .pixels()
            .flat_map(|p| first_three(p.0).map(high))
            .collect(),
        // Floats in 0..=1, which only TIFF has: there is no reference to follow.
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, samples).expect("three samples were made of every pixel")
}

fn first_three<T: Copy>(pixel: [T; 4]) -> [T; 3] {
    [pixel[0], pixel[1], pixel[2]]
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

#[cfg(test)]
mod tests;
