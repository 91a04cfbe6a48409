//! Bytes of a picture file to 8-bit RGB.
//!
//! The format is told by the first bytes, never by the file's name. Of animations the first frame
//! is taken. Colours follow Pillow's `convert("RGB")`, which the models were trained with: alpha is
//! dropped and not blended, grey is repeated. Samples of 16 bits keep their high byte, as Pillow
//! does for colour; for 16-bit grey Pillow clips at 255, which turns nearly every picture white,
//! and that is not imitated. Colour profiles are ignored, again as in the reference.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};
use std::path::Path;

use ::image::{
    DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, RgbImage,
    error::UnsupportedErrorKind, metadata::Orientation as Turn,
};

use super::{
    ImageError, MAX_SIDE, Transparency, cost::bytes_needed, exif, gif::GifFrame, jpeg, partial,
    png, signature, tiff, webp,
};

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

/// How a picture is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Which way up.
    pub orientation: Orientation,
    /// What becomes of transparent parts.
    pub transparency: Transparency,
    /// Whether a picture whose file ends early is taken all the same, with grey where pixels are missing.
    pub allow_truncated: bool,
}

impl Reading {
    /// As the reference implementation reads: as stored, and alpha dropped.
    pub const REFERENCE: Self = Self {
        orientation: Orientation::Ignore,
        transparency: Transparency::Drop,
        allow_truncated: false,
    };
}

/// This way up; alpha is dropped, as in the reference.
impl From<Orientation> for Reading {
    fn from(orientation: Orientation) -> Self {
        Self {
            orientation,
            transparency: Transparency::Drop,
            allow_truncated: false,
        }
    }
}

/// A decoded picture, and what was done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The picture.
    pub picture: RgbImage,
    /// Whether it has transparent parts that were put on white.
    pub on_white: bool,
    /// Whether its file ends early: grey stands where pixels are missing.
    pub is_short: bool,
}

/// Reads and decodes the picture in a file.
///
/// # Errors
/// [`ImageError::File`] with the path and, as its source, what is wrong.
pub fn open(path: &Path, how: impl Into<Reading>) -> Result<RgbImage, ImageError> {
    decode(&read(path)?, how).map_err(|e| e.of_file(path))
}

/// Reads a picture file without decoding it.
///
/// # Errors
/// [`ImageError::File`] with the path and, as its source, what is wrong.
pub fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = || read_from(std::fs::File::open(path)?, u64::MAX);
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
pub fn decode(bytes: &[u8], how: impl Into<Reading>) -> Result<RgbImage, ImageError> {
    decode_within(bytes, how, u64::MAX).map(|decoded| decoded.picture)
}

/// As [`decode`], if that takes no more than `max_bytes` of memory.
///
/// # Errors
/// As there, and [`ImageError::NoMemory`], which is found from the header too.
pub fn decode_within(
    bytes: &[u8],
    how: impl Into<Reading>,
    max_bytes: u64,
) -> Result<Decoded, ImageError> {
    let how = how.into();
    #[cfg(feature = "heic")]
    if signature::is_heic(bytes) {
        return Ok(shown(
            super::heic::decode(bytes, max_bytes)?,
            Turn::NoTransforms,
            how,
        ));
    }
    let (format, name) = format_of(bytes)?;
    let file = File::new(format, bytes, how.allow_truncated)?;
    let fail = |source| decode_error(name, file.was_completed(), source);

    let decoder = file.decoder().map_err(fail)?;
    check_size(decoder.dimensions(), decoder.total_bytes())?;

    let turn = match how.orientation {
        Orientation::Apply => exif::orientation(format, bytes),
        Orientation::Ignore => Turn::NoTransforms,
    };
    let (width, height) = decoder.dimensions();
    let fits = |needed: u64| match needed > max_bytes {
        true => Err(ImageError::NoMemory {
            width,
            height,
            needed,
            left: max_bytes,
        }),
        false => Ok(()),
    };
    let needed = bytes_needed(format, bytes, &decoder, turn);
    fits(needed)?;
    // What is there of a picture that ends early is found by reading it twice, and may be unpacked before.
    let n_copies = if how.allow_truncated { 2 } else { 1 };
    let fits_short = fits(needed.saturating_add(n_copies * decoder.total_bytes()));
    let (stored, is_short) = match DynamicImage::from_decoder(decoder) {
        Ok(stored) => (stored, file.is_short()),
        Err(source) => rest(&file, how, fail(source), fits_short)?,
    };
    Ok(Decoded {
        is_short,
        ..shown(stored, turn, how)
    })
}

/// The stored samples as they are to be seen.
fn shown(mut stored: DynamicImage, turn: Turn, how: Reading) -> Decoded {
    let on_white = how.transparency.apply(&mut stored);
    let mut picture = into_rgb8(stored);
    if turn != Turn::NoTransforms {
        let mut upright = DynamicImage::ImageRgb8(picture);
        upright.apply_orientation(turn);
        picture = upright.into_rgb8();
    }
    Decoded {
        picture,
        on_white,
        is_short: false,
    }
}

/// What is there of a picture that its decoder gave up with `error`: all rows may be, all the same.
fn rest(
    file: &File<'_>,
    how: Reading,
    error: ImageError,
    fits: Result<(), ImageError>,
) -> Result<(DynamicImage, bool), ImageError> {
    let may_be_whole = matches!(error, ImageError::Truncated { .. });
    if !how.allow_truncated && !may_be_whole {
        return Err(error);
    }
    fits?;
    let unpacked = how.allow_truncated.then(|| file.unpacked()).flatten();
    let file = unpacked.as_ref().unwrap_or(file);
    match partial::read(|| file.decoder()) {
        Some(partial) if how.allow_truncated || !partial.is_short => {
            Ok((partial.picture, partial.is_short))
        }
        _ => Err(error),
    }
}

/// A file with what its decoder wants and no pixel needs: end markers, lengths, standard tables.
enum File<'a> {
    Jpeg(jpeg::Prepared<'a>),
    Other(ImageFormat, Cow<'a, [u8]>),
}

impl<'a> File<'a> {
    fn new(
        format: ImageFormat,
        bytes: &'a [u8],
        allow_truncated: bool,
    ) -> Result<Self, ImageError> {
        let bytes = match format {
            ImageFormat::Jpeg => return Ok(Self::Jpeg(jpeg::prepare(bytes, allow_truncated)?)),
            ImageFormat::Png => png::prepare(bytes),
            ImageFormat::WebP => webp::prepare(bytes),
            _ => Cow::Borrowed(bytes),
        };
        Ok(Self::Other(format, bytes))
    }

    /// The decoder: this project's own where the crate `image` knows too few forms of the format.
    fn decoder(&self) -> ImageResult<Box<dyn ImageDecoder + '_>> {
        let (format, bytes) = match self {
            Self::Jpeg(jpeg) => return jpeg.decoder(),
            Self::Other(format, bytes) => (*format, bytes),
        };
        match format {
            ImageFormat::Gif => return Ok(Box::new(GifFrame::new(bytes)?)),
            ImageFormat::Tiff => return Ok(Box::new(tiff::Picture::new(bytes)?)),
            _ => {}
        }
        let mut reader = ImageReader::with_format(Cursor::new(&**bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(2 * MAX_DECODED_BYTES); // the samples, and what decoding them takes
        reader.limits(limits);
        Ok(Box::new(reader.into_decoder()?))
    }

    /// A PNG whose decoder gives all rows that are there.
    fn unpacked(&self) -> Option<Self> {
        let Self::Other(ImageFormat::Png, bytes) = self else {
            return None;
        };
        let decoder = self.decoder().ok()?;
        let n_filters = 2 * u64::from(decoder.dimensions().1) + 16; // a byte for each row of each pass
        let file = png::unpacked(bytes, decoder.total_bytes() + n_filters)?;
        Some(Self::Other(ImageFormat::Png, Cow::Owned(file)))
    }

    /// Whether the file ended before its format does.
    fn was_completed(&self) -> bool {
        matches!(self, Self::Other(_, Cow::Owned(_)))
    }

    /// Whether rows are missing, as far as that is known before decoding.
    fn is_short(&self) -> bool {
        matches!(self, Self::Jpeg(jpeg) if jpeg.truncated)
    }
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let format = match bytes {
        [b'I', b'I', b'+', 0, ..] | [b'M', b'M', 0, b'+', ..] => Some(ImageFormat::Tiff), // BigTIFF
        _ => ::image::guess_format(bytes).ok(),
    };
    let name = match format {
        Some(ImageFormat::Jpeg) => "JPEG",
        Some(ImageFormat::Png) => "PNG",
        Some(ImageFormat::WebP) => "WebP",
        Some(ImageFormat::Bmp) => "BMP",
        Some(ImageFormat::Gif) => "GIF",
        Some(ImageFormat::Tiff) => "TIFF",
        _ => "",
    };
    let foreign = match format {
        Some(ImageFormat::Tiff) => signature::raw_photo(bytes),
        Some(format) if !name.is_empty() => return Ok((format, name)),
        _ => signature::foreign(bytes),
    };
    match (foreign, format) {
        (Some(foreign), _) => Err(ImageError::Foreign(foreign)),
        (None, Some(ImageFormat::Tiff)) => Ok((ImageFormat::Tiff, name)),
        (None, _) => Err(ImageError::UnknownFormat {
            head: bytes[..bytes.len().min(16)].to_vec(),
        }),
    }
}

/// Refuses a picture with sides or samples beyond what is taken on; `stored_bytes` is what its samples take.
pub(super) fn check_size((width, height): (u32, u32), stored_bytes: u64) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    if width.max(height) > MAX_SIDE {
        return Err(ImageError::TooLong {
            width,
            height,
            limit: MAX_SIDE,
        });
    }
    // The stored samples, and the RGB made of them (larger for grey pictures).
    let rgb_bytes = 3 * u64::from(width) * u64::from(height);
    if stored_bytes.max(rgb_bytes) > MAX_DECODED_BYTES {
        return Err(ImageError::TooLarge {
            width,
            height,
            limit_bytes: MAX_DECODED_BYTES,
        });
    }
    Ok(())
}

fn decode_error(format: &'static str, ends_early: bool, source: ::image::ImageError) -> ImageError {
    match source {
        ::image::ImageError::Decoding(_) if ends_early => ImageError::Truncated { format },
        ::image::ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        ::image::ImageError::Unsupported(source) => match source.kind() {
            UnsupportedErrorKind::GenericFeature(variety) if format == "TIFF" => {
                ImageError::Variety {
                    format,
                    variety: variety.clone(),
                }
            }
            _ => ImageError::Unsupported { format, source },
        },
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
mod forms;
#[cfg(test)]
mod tests;
