//! Decodes the first picture of a TIFF.
//!
//! TIFF describes samples of any size, in strips or tiles, in one or several planes, with many compressions, as grey,
//! colours or palette indices. The crate `tiff` decodes only the common variants, so this module decodes all of them,
//! with decompressors from crates ([`chunk`]). Colours equal Pillow's where Pillow reads the file. Samples of unknown
//! range are rejected: they would come out black or white.

mod chunk;
mod color;
mod fax;
mod layout;
mod samples;

use ::image::{
    ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult,
    error::{DecodingError, LimitError, LimitErrorKind, UnsupportedError, UnsupportedErrorKind},
    metadata::Orientation,
};

use self::{
    chunk::decompress,
    layout::{Layout, Photometric},
    samples::Samples,
};
use crate::vision::image::{
    MAX_DECODED_BYTES,
    ifd::{Directory, tag},
};

/// Errors of a TIFF.
#[derive(Debug)]
pub enum TiffError {
    /// Something is missing or contradictory.
    Invalid(&'static str),
    /// An unsupported variant, identified by its feature.
    Variety(String),
    /// Rows are missing.
    Truncated,
    /// The message of a decompressor.
    Decode(String),
    /// Larger than the limit.
    TooLarge,
    /// The error of an embedded picture.
    Image(Box<crate::vision::image::ImageError>),
}

impl From<TiffError> for ImageError {
    fn from(error: TiffError) -> Self {
        let invalid =
            |why: String| Self::Decoding(DecodingError::new(ImageFormat::Tiff.into(), why));
        match error {
            TiffError::Invalid(why) => invalid(why.to_owned()),
            TiffError::Decode(why) => invalid(why),
            TiffError::Variety(what) => {
                let kind = UnsupportedErrorKind::GenericFeature(what);
                let format = ImageFormat::Tiff.into();
                Self::Unsupported(UnsupportedError::from_format_and_kind(format, kind))
            }
            TiffError::Truncated => Self::IoError(std::io::ErrorKind::UnexpectedEof.into()),
            TiffError::TooLarge => {
                Self::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))
            }
            TiffError::Image(error) => match *error {
                crate::vision::image::ImageError::Truncated { .. } => TiffError::Truncated.into(),
                crate::vision::image::ImageError::Variety { format, variety } => {
                    TiffError::Variety(format!("a {format} with {variety} inside")).into()
                }
                error => invalid(error.to_string()),
            },
        }
    }
}

/// Memory for the samples of a TIFF and one of its strips or tiles, besides the resulting colours, in bytes; 0 if it
/// cannot be read.
pub fn sample_bytes(file: &[u8]) -> u64 {
    let layout = Directory::first(file).and_then(|tags| Layout::new(&tags).ok());
    layout.map_or(0, |layout| layout.sample_bytes() + layout.chunk_bytes())
}

/// A decoder for a TIFF whose tags were read.
pub struct TiffDecoder<'a> {
    bytes: &'a [u8],
    tags: Directory<'a>,
    layout: Layout,
}

impl<'a> TiffDecoder<'a> {
    /// Reads the tags of the first picture.
    ///
    /// # Errors
    /// If they are invalid or declare an unsupported variant.
    pub fn new(bytes: &'a [u8]) -> ImageResult<Self> {
        let tags = Directory::first(bytes).ok_or(TiffError::Truncated)?;
        let layout = Layout::new(&tags)?;
        Ok(Self {
            bytes,
            tags,
            layout,
        })
    }

    /// All samples, `[height, width, samples]`; the missing rectangles; and the error of the first one.
    fn samples(&self) -> Result<(Samples, Vec<MissingRect>, Option<TiffError>), TiffError> {
        if self.layout.sample_bytes() > MAX_DECODED_BYTES {
            return Err(TiffError::TooLarge);
        }
        let layout = &self.layout;
        let mut samples = Samples::new(layout);
        let (mut missing, mut first_error) = (Vec::new(), None);
        let (across, down) = layout.chunks();
        let jpeg_tables = self.tags.bytes(tag::JPEG_TABLES);
        for i in 0..layout.n_chunks() {
            let position = i % (across as usize * down as usize);
            let plane = i / (across as usize * down as usize);
            let x = position as u32 % across * layout.chunk.0;
            let y = position as u32 / across * layout.chunk.1;
            let height = layout.chunk.1.min(layout.height - y);
            let (n_rows, error) =
                match decompress(layout, jpeg_tables, self.chunk(i, height), height) {
                    Ok(chunk) => {
                        let at = (x, y);
                        let n_rows = samples.put(layout, self.tags.big_endian(), &chunk, at, plane);
                        (n_rows, TiffError::Truncated)
                    }
                    Err(error) => (0, error),
                };
            if n_rows < height {
                first_error.get_or_insert(error);
                missing.push(MissingRect {
                    x,
                    y: y + n_rows,
                    width: layout.chunk.0,
                    height: height - n_rows,
                });
            }
        }
        Ok((samples, missing, first_error))
    }

    /// The available compressed bytes of a strip or tile.
    fn chunk(&self, i: usize, height: u32) -> &'a [u8] {
        let Some(rest) = usize::try_from(self.layout.offsets[i])
            .ok()
            .filter(|at| *at > 0)
            .and_then(|at| self.bytes.get(at..))
        else {
            return &[];
        };
        // Some programs omit the byte count, or write a wrong one for uncompressed data.
        let pixels = self.layout.chunk.0 as u64 * u64::from(height);
        let bits = pixels * self.layout.chunk_samples() as u64 * u64::from(self.layout.bits);
        let count = match self.layout.byte_counts.get(i) {
            Some(0) | None => u64::MAX,
            Some(n) if self.layout.compression == layout::Compression::None => {
                (*n).max(bits.div_ceil(8))
            }
            Some(n) => *n,
        };
        &rest[..rest.len().min(usize::try_from(count).unwrap_or(usize::MAX))]
    }
}

/// A rectangle of pixels that the file lacks.
struct MissingRect {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl MissingRect {
    /// Fills the rectangle in `picture`, whose rows have `width` pixels of `n` samples.
    fn fill(&self, picture: &mut [u8], width: u32, n: usize, value: u8) {
        let rows = picture.chunks_exact_mut(width as usize * n);
        let end = (self.x + self.width).min(width) as usize;
        for row in rows.skip(self.y as usize).take(self.height as usize) {
            row[self.x as usize * n..end * n].fill(value);
        }
    }
}

impl ImageDecoder for TiffDecoder<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.layout.width, self.layout.height)
    }

    fn color_type(&self) -> ColorType {
        let is_grey = matches!(
            self.layout.photometric,
            Photometric::BlackIsZero | Photometric::WhiteIsZero
        );
        match (is_grey, self.layout.alpha) {
            (true, None) => ColorType::L8,
            (true, Some(_)) => ColorType::La8,
            (false, None) => ColorType::Rgb8,
            (false, Some(_)) => ColorType::Rgba8,
        }
    }

    fn orientation(&mut self) -> ImageResult<Orientation> {
        let code = self.tags.value(tag::ORIENTATION);
        let code = code.and_then(|code| u8::try_from(code).ok());
        Ok(code
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms))
    }

    fn read_image(self, out: &mut [u8]) -> ImageResult<()> {
        let (samples, missing, error) = self.samples()?;
        // Missing pixels keep the content of the buffer, as in other decoders.
        let before = out[0];
        color::convert(&self.layout, &self.tags, &samples, out)?;
        let n = usize::from(self.color_type().channel_count());
        for rectangle in missing {
            rectangle.fill(out, self.layout.width, n, before);
        }
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}

#[cfg(test)]
mod tests;
