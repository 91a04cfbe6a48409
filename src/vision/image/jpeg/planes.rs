//! Sequential JPEGs whose components come in scans of their own.
//!
//! The decoder of the crate `image` (zune-jpeg 0.5) puts the blocks of such components into wrong places where
//! an MCU has more than one row of them, and so it does where the first component is not the largest. The crate
//! `jpeg-decoder` reads both as libjpeg does; it is slower, and these files are rare.

use std::io::Cursor;

use ::image::{
    ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult, codecs::jpeg::JpegDecoder,
    error::DecodingError, metadata::Orientation,
};

use super::{
    frame::{Frame, Process},
    survey::Survey,
};

/// Whether the other decoder is needed for a frame whose first scan has `n_in_scan` components.
pub fn are_needed(frame: &Frame, n_in_scan: usize) -> bool {
    let rows = |c: &super::frame::Component| c.v;
    let n_rows = frame.components.iter().map(rows).max().unwrap_or(1);
    let [first, others @ ..] = &frame.components[..] else {
        return false;
    };
    let in_scans = n_in_scan < frame.components.len() && n_rows > 1;
    let first_is_smaller = others.iter().any(|c| c.h > first.h || c.v > first.v);
    frame.components.len() == 3 && (in_scans || first_is_smaller)
}

/// Whether the other decoder is needed for a file in which missing scans were filled: the usual one stops where the
/// components do not all come in one scan.
pub fn read_filled(found: &Survey) -> bool {
    let Some((_, frame)) = &found.frame else {
        return false;
    };
    let in_one = (found.broken.as_ref())
        .is_some_and(|broken| broken.scan.components.len() == frame.components.len());
    frame.process == Process::Sequential && frame.components.len() == 3 && !in_one
}

/// Such a JPEG. Its header is read by the usual decoder.
pub struct Planes<'a> {
    header: JpegDecoder<Cursor<&'a [u8]>>,
    bytes: &'a [u8],
}

impl<'a> Planes<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn new(bytes: &'a [u8]) -> ImageResult<Self> {
        let header = JpegDecoder::new(Cursor::new(bytes))?;
        Ok(Self { header, bytes })
    }
}

impl ImageDecoder for Planes<'_> {
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
                "another number of samples than the header declares".to_owned(),
            ));
        }
        out.copy_from_slice(&pixels);
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}
