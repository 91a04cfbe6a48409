//! Decodes a picture file to 8-bit RGB.
//!
//! The first bytes determine the format; the file's name is not used. The first frame of an animation is used. Colours
//! follow Pillow's `convert("RGB")`, with which the models were trained: alpha is dropped without blending, grey is
//! repeated. 16-bit samples keep their high byte, as in Pillow for colour; for 16-bit grey Pillow clips at 255, which
//! turns nearly every picture white, and that is not imitated. Colour profiles are ignored, as in the reference.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};
use std::path::Path;

use ::image::{
    DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, RgbImage,
    error::UnsupportedErrorKind, metadata::Orientation as ExifOrientation,
};

use super::{
    ImageError, MAX_SIDE, Transparency, cost::bytes_needed, exif, gif::GifFrame, jpeg, partial,
    png, signature, tiff, webp,
};

/// Maximum size of the decoded samples of a picture, in bytes.
///
/// Prevents a file of a few kilobytes from taking all memory. At three bytes per pixel this is 179 million pixels, the
/// size from which Pillow reports a decompression bomb; fewer with alpha or 16-bit samples, because the limit is on
/// memory.
pub const MAX_DECODED_BYTES: u64 = 512 << 20;

/// Maximum file size in bytes: uncompressed pictures are slightly longer than their samples.
const MAX_FILE_BYTES: u64 = MAX_DECODED_BYTES + (1 << 20);

/// What to do with the EXIF orientation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orientation {
    /// Rotate the picture upright, as viewers do.
    #[default]
    Apply,
    /// Keep the stored orientation, as the reference implementation does.
    Ignore,
}

/// Options for decoding a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Handling of the EXIF orientation.
    pub orientation: Orientation,
    /// Handling of transparency.
    pub transparency: Transparency,
    /// Accept truncated files, with grey for missing pixels.
    pub allow_truncated: bool,
}

impl ReadOptions {
    /// The reference implementation's behaviour: stored orientation, alpha dropped.
    pub const REFERENCE: Self = Self {
        orientation: Orientation::Ignore,
        transparency: Transparency::Drop,
        allow_truncated: false,
    };
}

/// This orientation handling; alpha is dropped, as in the reference.
impl From<Orientation> for ReadOptions {
    fn from(orientation: Orientation) -> Self {
        Self {
            orientation,
            transparency: Transparency::Drop,
            allow_truncated: false,
        }
    }
}

/// A decoded picture, with notes on how it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The picture.
    pub picture: RgbImage,
    /// Whether transparent pixels were blended with white.
    pub on_white: bool,
    /// Whether the file is truncated: missing pixels are grey.
    pub is_truncated: bool,
}

/// Reads and decodes the picture in a file.
///
/// # Errors
/// [`ImageError::File`] with the path and, as its source, what is wrong.
pub fn open(path: &Path, options: impl Into<ReadOptions>) -> Result<RgbImage, ImageError> {
    decode(&read(path)?, options).map_err(|e| e.of_file(path))
}

/// Reads a picture file without decoding it.
///
/// # Errors
/// [`ImageError::File`] with the path and, as its source, what is wrong.
pub fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = || read_from(std::fs::File::open(path)?, u64::MAX);
    read().map_err(|e| e.of_file(path))
}

/// Reads a picture file from any input without decoding it.
///
/// # Errors
/// If it cannot be read, or is longer than `max_bytes` or any valid picture file.
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
/// If the bytes are not a picture of a supported format, are incomplete or damaged, or declare a picture larger than
/// [`MAX_DECODED_BYTES`]. The size is checked from the header, before memory is allocated.
pub fn decode(bytes: &[u8], options: impl Into<ReadOptions>) -> Result<RgbImage, ImageError> {
    decode_within(bytes, options, u64::MAX).map(|decoded| decoded.picture)
}

/// As [`decode`], with at most `max_bytes` of memory.
///
/// # Errors
/// As [`decode`], and [`ImageError::NoMemory`], also determined from the header.
pub fn decode_within(
    bytes: &[u8],
    options: impl Into<ReadOptions>,
    max_bytes: u64,
) -> Result<Decoded, ImageError> {
    let options: ReadOptions = options.into();
    #[cfg(feature = "heic")]
    if signature::is_heic(bytes) {
        return Ok(finish(
            super::heic::decode(bytes, max_bytes)?,
            ExifOrientation::NoTransforms,
            options,
        ));
    }
    let (format, name) = format_of(bytes)?;
    let file = PreparedFile::new(format, bytes, options.allow_truncated)?;
    let fail = |source| decode_error(name, file.was_completed(), source);

    let decoder = file.decoder().map_err(fail)?;
    check_size(decoder.dimensions(), decoder.total_bytes())?;

    let orientation = match options.orientation {
        Orientation::Apply => exif::orientation(format, bytes),
        Orientation::Ignore => ExifOrientation::NoTransforms,
    };
    let (width, height) = decoder.dimensions();
    let check_memory = |needed: u64| match needed > max_bytes {
        true => Err(ImageError::NoMemory {
            width,
            height,
            needed,
            left: max_bytes,
        }),
        false => Ok(()),
    };
    let needed = bytes_needed(format, bytes, &decoder, orientation);
    check_memory(needed)?;
    // Partial pictures are decoded twice into separate buffers, and PNGs are decompressed before.
    let n_copies = if options.allow_truncated { 2 } else { 1 };
    let check_partial = check_memory(needed.saturating_add(n_copies * decoder.total_bytes()));
    let (stored, is_truncated) = match DynamicImage::from_decoder(decoder) {
        Ok(stored) => (stored, file.is_truncated()),
        Err(source) => read_partial(&file, options, fail(source), check_partial)?,
    };
    Ok(Decoded {
        is_truncated,
        ..finish(stored, orientation, options)
    })
}

/// The width and height of the picture that [`decode`] returns, from the headers of its file where possible.
///
/// # Errors
/// As [`decode`], as far as headers show it.
pub fn dimensions(bytes: &[u8], options: impl Into<ReadOptions>) -> Result<(u32, u32), ImageError> {
    let options: ReadOptions = options.into();
    #[cfg(feature = "heic")]
    if signature::is_heic(bytes) {
        return Ok(decode(bytes, options)?.dimensions());
    }
    let (format, name) = format_of(bytes)?;
    let file = PreparedFile::new(format, bytes, options.allow_truncated)?;
    let decoder = file
        .decoder()
        .map_err(|source| decode_error(name, file.was_completed(), source))?;
    let (width, height) = decoder.dimensions();
    check_size((width, height), decoder.total_bytes())?;
    let turned = match options.orientation {
        Orientation::Apply => exif::orientation(format, bytes),
        Orientation::Ignore => ExifOrientation::NoTransforms,
    };
    Ok(match turned {
        ExifOrientation::Rotate90
        | ExifOrientation::Rotate270
        | ExifOrientation::Rotate90FlipH
        | ExifOrientation::Rotate270FlipH => (height, width),
        _ => (width, height),
    })
}

/// Applies transparency and orientation to the stored samples.
fn finish(mut stored: DynamicImage, orientation: ExifOrientation, options: ReadOptions) -> Decoded {
    let on_white = options.transparency.apply(&mut stored);
    let mut picture = into_rgb8(stored);
    if orientation != ExifOrientation::NoTransforms {
        let mut upright = DynamicImage::ImageRgb8(picture);
        upright.apply_orientation(orientation);
        picture = upright.into_rgb8();
    }
    Decoded {
        picture,
        on_white,
        is_truncated: false,
    }
}

/// Recovers the pixels of a picture whose decoder failed with `error`. All of them may be there.
fn read_partial(
    file: &PreparedFile<'_>,
    options: ReadOptions,
    error: ImageError,
    check_memory: Result<(), ImageError>,
) -> Result<(DynamicImage, bool), ImageError> {
    let may_be_complete = matches!(error, ImageError::Truncated { .. });
    if !options.allow_truncated && !may_be_complete {
        return Err(error);
    }
    check_memory?;
    let decompressed = options
        .allow_truncated
        .then(|| file.decompressed())
        .flatten();
    let file = decompressed.as_ref().unwrap_or(file);
    match partial::read(|| file.decoder()) {
        Some(partial) if options.allow_truncated || !partial.is_truncated => {
            Ok((partial.picture, partial.is_truncated))
        }
        _ => Err(error),
    }
}

/// A file completed with what its decoder requires although no pixel depends on it: end markers, lengths, standard
/// tables.
enum PreparedFile<'a> {
    Jpeg(jpeg::Prepared<'a>),
    Other(ImageFormat, Cow<'a, [u8]>),
}

impl<'a> PreparedFile<'a> {
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

    /// The decoder: our own where the crate `image` supports too few variants of the format.
    fn decoder(&self) -> ImageResult<Box<dyn ImageDecoder + '_>> {
        let (format, bytes) = match self {
            Self::Jpeg(jpeg) => return jpeg.decoder(),
            Self::Other(format, bytes) => (*format, bytes),
        };
        match format {
            ImageFormat::Gif => return Ok(Box::new(GifFrame::new(bytes)?)),
            ImageFormat::Tiff => return Ok(Box::new(tiff::TiffDecoder::new(bytes)?)),
            _ => {}
        }
        let mut reader = ImageReader::with_format(Cursor::new(&**bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(2 * MAX_DECODED_BYTES); // the samples and the decoder's buffers
        reader.limits(limits);
        Ok(Box::new(reader.into_decoder()?))
    }

    /// For a PNG: the file with all rows that can be decompressed, so that the decoder returns them.
    fn decompressed(&self) -> Option<Self> {
        let Self::Other(ImageFormat::Png, bytes) = self else {
            return None;
        };
        let decoder = self.decoder().ok()?;
        let n_filters = 2 * u64::from(decoder.dimensions().1) + 16; // a byte per row and pass
        let file = png::recompress(bytes, decoder.total_bytes() + n_filters)?;
        Some(Self::Other(ImageFormat::Png, Cow::Owned(file)))
    }

    /// Whether the end of the file was missing and was added.
    fn was_completed(&self) -> bool {
        matches!(self, Self::Other(_, Cow::Owned(_)))
    }

    /// Whether rows are known to be missing before decoding.
    fn is_truncated(&self) -> bool {
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
    let unsupported = match format {
        Some(ImageFormat::Tiff) => signature::raw_photo(bytes),
        Some(format) if !name.is_empty() => return Ok((format, name)),
        _ => signature::foreign(bytes),
    };
    match (unsupported, format) {
        (Some(unsupported), _) => Err(ImageError::Foreign(unsupported)),
        (None, Some(ImageFormat::Tiff)) => Ok((ImageFormat::Tiff, name)),
        (None, _) => Err(ImageError::UnknownFormat {
            head: bytes[..bytes.len().min(16)].to_vec(),
        }),
    }
}

/// Rejects pictures whose sides or samples exceed the limits; `stored_bytes` is the size of the samples.
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
    // The stored samples, and their RGB form (larger for grey pictures).
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

/// Converts any sample layout to 8-bit RGB, by the rules at the top of this file.
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
        // Floats in 0..=1, which only TIFF has: the reference does not define them.
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, samples).expect("three samples per pixel")
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
