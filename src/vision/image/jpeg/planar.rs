//! Decodes sequential JPEGs whose components are in separate scans.
//!
//! The decoder of the crate `image` (zune-jpeg 0.5) misplaces the blocks of such components where an MCU has more than
//! one row of them, and also where the first component is not the largest. The crate `jpeg-decoder` decodes both as
//! libjpeg does; it is slower, but these files are rare.

use std::io::Cursor;

use ::image::{
    ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult, codecs::jpeg::JpegDecoder,
    error::DecodingError, metadata::Orientation,
};

use super::{
    analysis::Analysis,
    frame::{Frame, Process},
};

/// Whether a frame whose first scan has `n_in_scan` components needs this decoder.
pub fn needs_planar_decoder(frame: &Frame, n_in_scan: usize) -> bool {
    let rows = |c: &super::frame::Component| c.v;
    let n_rows = frame.components.iter().map(rows).max().unwrap_or(1);
    let [first, others @ ..] = &frame.components[..] else {
        return false;
    };
    let is_separate = n_in_scan < frame.components.len() && n_rows > 1;
    let first_is_smaller = others.iter().any(|c| c.h > first.h || c.v > first.v);
    frame.components.len() == 3 && (is_separate || first_is_smaller)
}

/// Whether a file whose missing scans were filled needs this decoder: the usual one stops where the components are not
/// all in one scan.
pub fn filled_needs_planar_decoder(found: &Analysis) -> bool {
    let Some((_, frame)) = &found.frame else {
        return false;
    };
    let in_one = (found.truncated.as_ref())
        .is_some_and(|truncated| truncated.scan.components.len() == frame.components.len());
    frame.process == Process::Sequential && frame.components.len() == 3 && !in_one
}

/// The decoder. The usual decoder reads the header.
pub struct PlanarDecoder<'a> {
    header: JpegDecoder<Cursor<&'a [u8]>>,
    bytes: &'a [u8],
}

impl<'a> PlanarDecoder<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn new(bytes: &'a [u8]) -> ImageResult<Self> {
        let header = JpegDecoder::new(Cursor::new(bytes))?;
        Ok(Self { header, bytes })
    }
}

impl ImageDecoder for PlanarDecoder<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.header.dimensions()
    }

    fn color_type(&self) -> ColorType {
        self.header.color_type()
    }

    fn orientation(&mut self) -> ImageResult<Orientation> {
        self.header.orientation()
    }

    fn read_image(self, out: &mut [u8]) -> ImageResult<()> {
        let invalid = |why| ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), why));
        let pixels = jpeg_decoder::Decoder::new(self.bytes).decode();
        let pixels = pixels.map_err(|error| invalid(error.to_string()))?;
        if pixels.len() != out.len() {
            return Err(invalid(
                "the number of samples differs from the header".to_owned(),
            ));
        }
        out.copy_from_slice(&pixels);
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}
