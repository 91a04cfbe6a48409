//! The first frame of a GIF, on its canvas.
//!
//! The canvas is the logical screen, made larger where the frame does not fit: programs write screens of 0x0
//! pixels, or of another picture. What the frame leaves free is transparent; its colour there, and that of
//! transparent pixels, is what Pillow gives them.
//!
//! Stray bytes between blocks and extensions of unknown kinds are skipped ([`head`]), as in Pillow.

use std::io::{Chain, Cursor, ErrorKind, Read};

use ::image::{
    ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult,
    error::{DecodingError, LimitError, LimitErrorKind},
};
use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};

/// The end of a frame's data and of a GIF, for files that stop before them.
const END: &[u8] = b"\0;";

/// What begins an extension, and its kind if it says which index is transparent.
const EXTENSION: u8 = b'!';
const GRAPHIC_CONTROL: u8 = 0xf9;
/// What begins an image, and what ends a GIF.
const IMAGE: u8 = b',';
const TRAILER: u8 = b';';
/// Length of signature and screen descriptor.
const SCREEN_LEN: usize = 13;

/// A GIF whose first frame's header was read.
pub struct GifFrame<'a> {
    decoder: Decoder<Chain<Chain<Cursor<Vec<u8>>, &'a [u8]>, &'static [u8]>>,
    canvas: (u32, u32),
    /// Whether the file has no trailer: then whatever its decoder finds wrong is that.
    ends_early: bool,
}

impl<'a> GifFrame<'a> {
    /// Reads up to the first frame.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(bytes: &'a [u8]) -> ImageResult<Self> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        options.set_memory_limit(MemoryLimit::Unlimited); // the caller checks the size
        let (head, rest) = head(bytes).ok_or_else(cut)?;
        let decoder = options.read_info(Cursor::new(head).chain(rest).chain(END));
        let mut decoder = decoder.map_err(failed)?;
        let screen = (decoder.width(), decoder.height());
        let frame = decoder.next_frame_info().map_err(failed)?;
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

    /// The frame's indices, row by row from the top; what is wrong if some are missing.
    fn rows(
        &mut self,
        (width, height): (usize, usize),
        is_interlaced: bool,
    ) -> (Rows, Option<ImageError>) {
        let mut rows = vec![None; height];
        for y in order(height, is_interlaced) {
            let mut row = vec![0; width];
            match self.decoder.fill_buffer(&mut row) {
                Ok(true) => rows[y] = Some(row),
                Ok(false) => return (rows, Some(cut())),
                Err(_) if self.ends_early => return (rows, Some(cut())),
                Err(error) => return (rows, Some(failed(error))),
            }
        }
        (rows, None)
    }
}

/// What the decoder needs of all that stands before the first image, and the rest of the file from the image on; `None`
/// if the file ends before.
///
/// The decoder gives up at bytes that begin no block, at extensions of unknown kinds and at control extensions of
/// another length, all of which some programs write.
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
                at = behind_sub_blocks(file, at + 2)?;
            }
            _ => at += 1, // stray
        }
    }
}

/// The place behind the sub-blocks that begin at `at`, and their end.
fn behind_sub_blocks(file: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*file.get(at)?) {
            0 => return Some(at + 1),
            len => at += 1 + len,
        }
    }
}

/// The rows of a frame from the top, those that could be read.
type Rows = Vec<Option<Vec<u8>>>;

/// The order in which rows stand in the file.
fn order(height: usize, is_interlaced: bool) -> Vec<usize> {
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
        let (rows, fault) = self.rows((width, height), is_interlaced);
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
                Some(None) => continue, // missing: it stays as it was
            };
            row.fill([r, g, b, 0]);
            for (to, index) in row[left..].iter_mut().zip(indices) {
                *to = pixel(*index);
            }
        }
        fault.map_or(Ok(()), Err)
    }

    fn read_image_boxed(self: Box<Self>, canvas: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(canvas)
    }
}

fn cut() -> ImageError {
    ImageError::IoError(ErrorKind::UnexpectedEof.into())
}

fn failed(error: gif::DecodingError) -> ImageError {
    match error {
        gif::DecodingError::Io(error) => ImageError::IoError(error),
        gif::DecodingError::UnexpectedEof => cut(),
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
