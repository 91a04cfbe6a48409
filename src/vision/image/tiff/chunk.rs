//! Decompresses strips and tiles.

use std::{
    borrow::Cow,
    io::{self, Cursor, Read},
};

use ::image::{ImageDecoder, codecs::webp::WebPDecoder};
use zune_jpeg::{JpegDecoder, zune_core::bytestream::ZCursor};

use super::{
    TiffError, fax,
    layout::{Compression, Layout, Photometric},
};
use crate::vision::image::jpeg;

/// A strip or tile: rows of `row_len` bytes; fewer than declared if the file ends early.
pub struct Chunk {
    pub bytes: Vec<u8>,
    pub row_len: usize,
    /// Whether an embedded JPEG was converted to bytes in RGB or grey.
    pub is_rgb: bool,
}

/// Decompresses `bytes`, a strip or tile of `height` rows.
pub fn decompress(
    layout: &Layout,
    jpeg_tables: Option<&[u8]>,
    bytes: &[u8],
    height: u32,
) -> Result<Chunk, TiffError> {
    let (row_len, n_rows) = rows(layout, height);
    let len = row_len * n_rows;
    let bytes = high_bits_first(layout, bytes);
    let (width, is_rgb) = (layout.chunk.0, false);
    let bytes = match layout.compression {
        Compression::None => bytes[..bytes.len().min(len)].to_vec(),
        Compression::PackBits => unpack_bits(&bytes, len),
        Compression::Lzw => lzw(&bytes, len)?,
        Compression::Deflate => read_up_to(flate2::read::ZlibDecoder::new(&*bytes), len)?,
        Compression::Zstd => {
            let mut rest = &*bytes;
            let decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest);
            let read = read_up_to(
                decoder.map_err(|_| TiffError::Invalid("no zstd data"))?,
                len,
            );
            match read {
                Err(TiffError::Decode(_)) if rest.is_empty() => Vec::new(), // the file ends early
                read => read?,
            }
        }
        Compression::Huffman | Compression::Group3 | Compression::Group4 => {
            let code = match layout.compression {
                Compression::Huffman => fax::Code::Huffman,
                Compression::Group3 if layout.t4_options & 1 == 1 => fax::Code::Group3In2d,
                Compression::Group3 => fax::Code::Group3,
                _ => fax::Code::Group4,
            };
            let side = |n: u32| {
                u16::try_from(n)
                    .map_err(|_| TiffError::Invalid("a fax of more than 65535 pixels per side"))
            };
            fax::decode(code, &bytes, side(width)?, side(height)?)
        }
        Compression::Jpeg => return jpeg(layout, jpeg_tables, &bytes),
        Compression::WebP => return webp(layout, &bytes),
    };
    Ok(Chunk {
        bytes,
        row_len,
        is_rgb,
    })
}

/// Bytes per row, and number of rows, of a chunk with `height` rows of pixels. With subsampled colours these are rows
/// of groups.
fn rows(layout: &Layout, height: u32) -> (usize, usize) {
    let (across, down) = layout.subsampling;
    if (across, down) == (1, 1) {
        let bits = layout.chunk.0 as usize * layout.chunk_samples() * layout.bits as usize;
        return (bits.div_ceil(8), height as usize);
    }
    let groups = layout.chunk.0.div_ceil(across) * (across * down + 2);
    (groups as usize, height.div_ceil(down) as usize)
}

/// The bytes, converted to high bit first.
fn high_bits_first<'a>(layout: &Layout, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    let as_is = matches!(layout.compression, Compression::Jpeg | Compression::WebP);
    match layout.low_bit_first && !as_is {
        true => bytes.iter().map(|byte| byte.reverse_bits()).collect(),
        false => Cow::Borrowed(bytes),
    }
}

/// Reads up to `len` bytes; stops without error where the input ends early.
fn read_up_to(reader: impl Read, len: usize) -> Result<Vec<u8>, TiffError> {
    let mut out = Vec::with_capacity(len);
    match reader.take(len as u64).read_to_end(&mut out) {
        // A wrong checksum after the last byte is tolerated.
        Err(error) if out.len() < len && error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(TiffError::Decode(error.to_string()))
        }
        _ => Ok(out),
    }
}

fn lzw(bytes: &[u8], len: usize) -> Result<Vec<u8>, TiffError> {
    if bytes.len() >= 2 && bytes[0] == 0 && bytes[1] & 1 == 1 {
        return Err(TiffError::Variety("old-style LZW compression".to_owned()));
    }
    let mut decoder = weezl::decode::Configuration::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
        .with_yield_on_full_buffer(true)
        .build();
    let mut out = vec![0; len];
    let (mut read, mut written) = (0, 0);
    while written < len {
        let result = decoder.decode_bytes(&bytes[read..], &mut out[written..]);
        read += result.consumed_in;
        written += result.consumed_out;
        match result.status {
            Ok(weezl::LzwStatus::Ok) => {}
            Ok(_) => break, // end of the data or of the file
            Err(error) => return Err(TiffError::Decode(error.to_string())),
        }
    }
    out.truncate(written);
    Ok(out)
}

/// Decompresses PackBits as far as possible.
fn unpack_bits(mut bytes: &[u8], len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len);
    while let (true, Some((&head, rest))) = (out.len() < len, bytes.split_first()) {
        bytes = match head {
            0..=127 => {
                let n = (usize::from(head) + 1).min(rest.len());
                out.extend_from_slice(&rest[..n]);
                &rest[n..]
            }
            128 => rest,
            _ => {
                let Some((&value, rest)) = rest.split_first() else {
                    break;
                };
                out.resize(out.len() + 257 - usize::from(head), value);
                rest
            }
        };
    }
    out.truncate(len);
    out
}

/// Decodes a strip or tile that is a JPEG; its tables may be in a tag of the file.
fn jpeg(layout: &Layout, tables: Option<&[u8]>, bytes: &[u8]) -> Result<Chunk, TiffError> {
    let whole = match (tables, bytes) {
        (Some([0xff, 0xd8, tables @ ..]), [0xff, 0xd8, rest @ ..]) => {
            let tables = tables.strip_suffix(&[0xff, 0xd9]).unwrap_or(tables);
            Cow::Owned([&[0xff, 0xd8], tables, rest].concat())
        }
        _ => Cow::Borrowed(bytes),
    };
    let prepared = jpeg::prepare(&whole, false).map_err(|e| TiffError::Image(Box::new(e)))?;
    let mut decoder = JpegDecoder::new(ZCursor::new(&*prepared.bytes));
    let failed = |error: zune_jpeg::errors::DecodeErrors| TiffError::Decode(error.to_string());
    decoder.decode_headers().map_err(failed)?;
    // The tags define the colour space; only YCbCr is converted here.
    if layout.photometric != Photometric::YCbCr || layout.planar {
        let stored = decoder.input_colorspace();
        let stored = stored.ok_or(TiffError::Invalid("no JPEG header"))?;
        decoder.set_options(decoder.options().jpeg_set_out_colorspace(stored));
    }
    let (width, height) = decoder
        .dimensions()
        .ok_or(TiffError::Invalid("no JPEG header"))?;
    if !fits(layout, width, height) {
        return Err(TiffError::Invalid("a JPEG that is larger than the picture"));
    }
    let n = decoder
        .output_colorspace()
        .map_or(0, |c| c.num_components());
    if n != layout.chunk_samples() {
        return Err(TiffError::Invalid(
            "a JPEG whose samples per pixel differ from the tags",
        ));
    }
    if width < layout.chunk.0 as usize {
        return Err(TiffError::Invalid(
            "a JPEG that is smaller than its strip or tile",
        ));
    }
    let bytes = decoder.decode().map_err(failed)?;
    Ok(Chunk {
        bytes,
        row_len: width * n,
        is_rgb: layout.photometric == Photometric::YCbCr,
    })
}

fn webp(layout: &Layout, bytes: &[u8]) -> Result<Chunk, TiffError> {
    let failed = |error: ::image::ImageError| TiffError::Decode(error.to_string());
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let n = usize::from(decoder.color_type().channel_count());
    let (width, height) = decoder.dimensions();
    let is_too_large = !fits(layout, width as usize, height as usize);
    if n != layout.chunk_samples() || width < layout.chunk.0 || is_too_large {
        return Err(TiffError::Invalid(
            "a WebP that does not match its strip or tile",
        ));
    }
    let mut bytes = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut bytes).map_err(failed)?;
    Ok(Chunk {
        bytes,
        row_len: width as usize * n,
        is_rgb: false,
    })
}

/// Whether an embedded picture is at most as large as its tile or the whole picture, plus padding to whole blocks.
/// Without this check, a few bytes could declare a picture of a gigabyte.
fn fits(layout: &Layout, width: usize, height: usize) -> bool {
    const PADDING: usize = 64;
    width <= layout.chunk.0.max(layout.width) as usize + PADDING
        && height <= layout.chunk.1.max(layout.height) as usize + PADDING
}
