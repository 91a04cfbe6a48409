//! Decodes the first frame of a GIF onto its canvas.
//!
//! The canvas is the logical screen, enlarged where the frame does not fit: some programs write screens of 0x0 pixels
//! or of another picture. Pixels outside the frame are transparent; their colour, and that of transparent pixels, is
//! the same as in Pillow.
//!
//! Stray bytes between blocks and unknown extensions are skipped ([`head`]), as in Pillow.

use std::io::{Chain, Cursor, ErrorKind, Read};

use ::image::{
    ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult,
    error::{DecodingError, LimitError, LimitErrorKind},
};
use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};

/// End of a frame's data and trailer of a GIF, appended for files that lack them.
const END: &[u8] = b"\0;";

/// Introducer of an extension, and the label of the extension that holds the transparent index.
const EXTENSION: u8 = b'!';
const GRAPHIC_CONTROL: u8 = 0xf9;
/// Separator before an image, and trailer of a GIF.
const IMAGE: u8 = b',';
const TRAILER: u8 = b';';
/// Length of signature and logical screen descriptor.
const SCREEN_LEN: usize = 13;

/// A file's bytes in three parts: a rewritten head, the rest, and a trailer.
type Parts<'a> = Chain<Chain<Cursor<Vec<u8>>, &'a [u8]>, &'static [u8]>;

/// A GIF whose first frame's descriptor was read.
pub struct GifFrame<'a> {
    decoder: Decoder<Parts<'a>>,
    canvas: (u32, u32),
    /// Whether the trailer is missing; any decoding error then counts as truncation.
    ends_early: bool,
}

impl<'a> GifFrame<'a> {
    /// Reads up to the first frame's descriptor.
    ///
    /// # Errors
    /// If there is no frame.
    pub fn new(bytes: &'a [u8]) -> ImageResult<Self> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        options.set_memory_limit(MemoryLimit::Unlimited); // the caller checks the size
        let (head, rest) = head(bytes).ok_or_else(truncated)?;
        let decoder = options.read_info(Cursor::new(head).chain(rest).chain(END));
        let mut decoder = decoder.map_err(decode_error)?;
        let screen = (decoder.width(), decoder.height());
        let frame = decoder.next_frame_info().map_err(decode_error)?;
        let frame = frame.ok_or_else(|| invalid("there is no frame"))?;
        let side = |screen, offset, len| u32::from(screen).max(u32::from(offset) + u32::from(len));
        let canvas = (
            side(screen.0, frame.left, frame.width),
            side(screen.1, frame.top, frame.height),
        );
        Ok(Self {
            decoder,
            canvas,
            ends_early: bytes.last() != END.last(),
        })
    }

    /// The frame's indices by row from the top, and the error if rows are missing.
    fn rows(
        &mut self,
        (width, height): (usize, usize),
        is_interlaced: bool,
    ) -> (Rows, Option<ImageError>) {
        let mut rows = vec![None; height];
        for y in row_order(height, is_interlaced) {
            let mut row = vec![0; width];
            match self.decoder.fill_buffer(&mut row) {
                Ok(true) => rows[y] = Some(row),
                Ok(false) => return (rows, Some(truncated())),
                Err(_) if self.ends_early => return (rows, Some(truncated())),
                Err(error) => return (rows, Some(decode_error(error))),
            }
        }
        (rows, None)
    }
}

/// The part before the first image, reduced to what the decoder needs, and the rest of the file from the image on;
/// `None` if the file ends before.
///
/// The decoder fails at stray bytes, at unknown extensions and at control extensions of unusual length, all of which
/// some programs write.
fn head(file: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let flags = *file.get(10)?;
    let palette_len = match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let mut at = SCREEN_LEN + palette_len;
    let mut head = file.get(..at)?.to_vec();
    loop {
        match *file.get(at)? {
            IMAGE | TRAILER => return Some((head, &file[at..])),
            EXTENSION => {
                let kind = *file.get(at + 1)?;
                let len = usize::from(*file.get(at + 2)?);
                let first = file.get(at + 3..at + 3 + len)?;
                if kind == GRAPHIC_CONTROL
                    && let Some(control) = first.first_chunk::<4>()
                {
                    head.extend([EXTENSION, GRAPHIC_CONTROL, 4]);
                    head.extend(control);
                    head.push(0);
                }
                at = end_of_sub_blocks(file, at + 2)?;
            }
            _ => at += 1, // stray
        }
    }
}

/// Offset after the sub-blocks that start at `at` and their terminator.
fn end_of_sub_blocks(file: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*file.get(at)?) {
            0 => return Some(at + 1),
            len => at += 1 + len,
        }
    }
}

/// The rows of a frame from the top; `None` for those that could not be read.
type Rows = Vec<Option<Vec<u8>>>;

/// The order of rows in the file.
fn row_order(height: usize, is_interlaced: bool) -> Vec<usize> {
    let passes: &[(usize, usize)] = match is_interlaced {
        true => &[(0, 8), (4, 8), (2, 4), (1, 2)],
        false => &[(0, 1)],
    };
    let rows = |(first, step): &(usize, usize)| (*first..height).step_by(*step);
    passes.iter().flat_map(rows).collect()
}

impl ImageDecoder for GifFrame<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.canvas
    }

    fn color_type(&self) -> ColorType {
        ColorType::Rgba8
    }

    fn read_image(mut self, canvas: &mut [u8]) -> ImageResult<()> {
        let frame = self.decoder.current_frame_info();
        let frame = frame.ok_or_else(|| invalid("there is no frame"))?;
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let (width, height) = (usize::from(frame.width), usize::from(frame.height));
        let (transparent, is_interlaced) = (frame.transparent, frame.interlaced);
        let palette = self.decoder.palette().unwrap_or_default().to_vec();
        let (rows, error) = self.rows((width, height), is_interlaced);
        let pixel = |index: u8| {
            let at = 3 * usize::from(index);
            let rgb = palette.get(at..at + 3).unwrap_or(&[0; 3]);
            let alpha = if transparent == Some(index) { 0 } else { 255 };
            [rgb[0], rgb[1], rgb[2], alpha]
        };
        let [r, g, b, _] = pixel(transparent.unwrap_or(0));
        let canvas = canvas.as_chunks_mut::<4>().0;
        for (y, row) in canvas.chunks_exact_mut(self.canvas.0 as usize).enumerate() {
            let indices = match rows.get(y.wrapping_sub(top)) {
                None => &[],
                Some(Some(indices)) => &indices[..],
                Some(None) => continue, // missing: left unchanged
            };
            row.fill([r, g, b, 0]);
            for (to, index) in row[left..].iter_mut().zip(indices) {
                *to = pixel(*index);
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn read_image_boxed(self: Box<Self>, canvas: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(canvas)
    }
}

fn truncated() -> ImageError {
    ImageError::IoError(ErrorKind::UnexpectedEof.into())
}

fn decode_error(error: gif::DecodingError) -> ImageError {
    match error {
        gif::DecodingError::Io(error) => ImageError::IoError(error),
        gif::DecodingError::UnexpectedEof => truncated(),
        gif::DecodingError::OutOfMemory => {
            ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))
        }
        error => invalid(error),
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImageError {
    ImageError::Decoding(DecodingError::new(ImageFormat::Gif.into(), why))
}

#[cfg(test)]
mod tests;
