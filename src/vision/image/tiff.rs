//! The first picture of a TIFF.
//!
//! TIFF is less a format than a way to describe samples: of any size, in strips or tiles, of one or several
//! planes, compressed by anyone's code, grey, coloured or numbers of a palette. The crate `tiff` gives the
//! samples of the commoner kinds; this module reads the others as well, so that there is one way for all, and
//! takes the codes themselves from crates ([`chunk`]). Colours are as Pillow gives them where Pillow reads the
//! file. Samples whose range nobody knows are refused: they would be black or white.

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

/// What can be wrong with a TIFF.
#[derive(Debug)]
pub enum Fault {
    /// Something is missing, or contradicts itself.
    Invalid(&'static str),
    /// A kind that is not read, by what is special about it.
    Variety(String),
    /// Rows are missing.
    Truncated,
    /// A codec's words.
    Decode(String),
    /// Not within the limit.
    TooLarge,
    /// What is wrong with a picture inside it.
    Image(Box<crate::vision::image::ImageError>),
}

impl From<Fault> for ImageError {
    fn from(fault: Fault) -> Self {
        let invalid =
            |why: String| Self::Decoding(DecodingError::new(ImageFormat::Tiff.into(), why));
        match fault {
            Fault::Invalid(why) => invalid(why.to_owned()),
            Fault::Decode(why) => invalid(why),
            Fault::Variety(what) => {
                let kind = UnsupportedErrorKind::GenericFeature(what);
                let format = ImageFormat::Tiff.into();
                Self::Unsupported(UnsupportedError::from_format_and_kind(format, kind))
            }
            Fault::Truncated => Self::IoError(std::io::ErrorKind::UnexpectedEof.into()),
            Fault::TooLarge => {
                Self::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))
            }
            Fault::Image(error) => match *error {
                crate::vision::image::ImageError::Truncated { .. } => Fault::Truncated.into(),
                crate::vision::image::ImageError::Variety { format, variety } => {
                    Fault::Variety(format!("a {format} with {variety} inside")).into()
                }
                error => invalid(error.to_string()),
            },
        }
    }
}

/// Bytes that the samples of a TIFF and one of its strips or tiles take beside the colours made of them; 0 if it
/// cannot be read.
pub fn sample_bytes(file: &[u8]) -> u64 {
    let layout = Directory::first(file).and_then(|tags| Layout::new(&tags).ok());
    layout.map_or(0, |layout| layout.sample_bytes() + layout.chunk_bytes())
}

/// A TIFF whose tags were read.
pub struct Picture<'a> {
    bytes: &'a [u8],
    tags: Directory<'a>,
    layout: Layout,
}

impl<'a> Picture<'a> {
    /// Reads the tags of the first picture.
    ///
    /// # Errors
    /// If they make no sense, or say what is not read.
    pub fn new(bytes: &'a [u8]) -> ImageResult<Self> {
        let tags = Directory::first(bytes).ok_or(Fault::Truncated)?;
        let layout = Layout::new(&tags)?;
        Ok(Self {
            bytes,
            tags,
            layout,
        })
    }

    /// All samples, `[height, width, samples]`; the rectangles that are missing; and why the first of them is.
    fn samples(&self) -> Result<(Samples, Vec<Missing>, Option<Fault>), Fault> {
        if self.layout.sample_bytes() > MAX_DECODED_BYTES {
            return Err(Fault::TooLarge);
        }
        let layout = &self.layout;
        let mut samples = Samples::new(layout);
        let (mut missing, mut first_fault) = (Vec::new(), None);
        let (across, down) = layout.chunks();
        let jpeg_tables = self.tags.bytes(tag::JPEG_TABLES);
        for i in 0..layout.n_chunks() {
            let place = i % (across as usize * down as usize);
            let plane = i / (across as usize * down as usize);
            let x = place as u32 % across * layout.chunk.0;
            let y = place as u32 / across * layout.chunk.1;
            let height = layout.chunk.1.min(layout.height - y);
            let (n_rows, fault) =
                match decompress(layout, jpeg_tables, self.chunk(i, height), height) {
                    Ok(chunk) => {
                        let at = (x, y);
                        let n_rows = samples.put(layout, self.tags.big_endian(), &chunk, at, plane);
                        (n_rows, Fault::Truncated)
                    }
                    Err(fault) => (0, fault),
                };
            if n_rows < height {
                first_fault.get_or_insert(fault);
                missing.push(Missing {
                    x,
                    y: y + n_rows,
                    width: layout.chunk.0,
                    height: height - n_rows,
                });
            }
        }
        Ok((samples, missing, first_fault))
    }

    /// The compressed bytes of a strip or tile, as far as they are in the file.
    fn chunk(&self, i: usize, height: u32) -> &'a [u8] {
        let Some(rest) = usize::try_from(self.layout.offsets[i])
            .ok()
            .filter(|at| *at > 0)
            .and_then(|at| self.bytes.get(at..))
        else {
            return &[];
        };
        // Some programs leave the count out, or write it wrong where nothing is compressed.
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

/// Pixels that the file does not hold.
struct Missing {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl Missing {
    /// Fills the pixels in `picture`, rows of `width` pixels of `n` samples.
    fn fill(&self, picture: &mut [u8], width: u32, n: usize, with: u8) {
        let rows = picture.chunks_exact_mut(width as usize * n);
        let end = (self.x + self.width).min(width) as usize;
        for row in rows.skip(self.y as usize).take(self.height as usize) {
            row[self.x as usize * n..end * n].fill(with);
        }
    }
}

impl ImageDecoder for Picture<'_> {
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
        let (samples, missing, fault) = self.samples()?;
        // Missing pixels stay what they were, as other decoders leave them.
        let before = out[0];
        color::convert(&self.layout, &self.tags, &samples, out)?;
        let n = usize::from(self.color_type().channel_count());
        for rectangle in missing {
            rectangle.fill(out, self.layout.width, n, before);
        }
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}

#[cfg(test)]
mod tests;
