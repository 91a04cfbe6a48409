//! PNG: chunks, and completion of files that end early.

mod chunks;

use std::{
    borrow::Cow,
    io::{Read, Write},
};

#[cfg(feature = "caption")]
pub use chunks::Chunk;
pub use chunks::{SIGNATURE_LEN, chunks, encode_chunk};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};

/// With at least this many trailing zeros, a chunk with a wrong checksum is taken for an interrupted copy.
const MIN_ZEROS: usize = 16;

/// Completes a PNG file: the available data of its last chunk, and an IEND chunk. The decoder finds out whether all
/// rows are there. A complete file is returned unchanged.
pub fn prepare(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut end = bytes.len().min(SIGNATURE_LEN);
    let mut idat_chunks = Vec::new();
    for chunk in chunks(bytes) {
        // A wrong checksum of the last chunk, zeros or a trailer after the last row are tolerated.
        let is_kind = chunk.kind.iter().all(u8::is_ascii_alphabetic);
        if chunk.is_whole() && chunk.is(b"IEND") {
            return Cow::Borrowed(bytes);
        } else if chunk.is_whole() && is_kind {
            end = chunk.whole.end;
            idat_chunks.extend(chunk.is(b"IDAT").then_some(chunk));
        } else if chunk.is(b"IDAT") || chunk.is(b"fdAT") {
            return Cow::Owned(with_end(&bytes[..chunk.whole.start], Some(chunk.content)));
        } else {
            break;
        }
    }
    let Some(damaged) = idat_chunks.iter().find(|chunk| !chunk.is_sound()) else {
        return Cow::Owned(with_end(&bytes[..end], None));
    };
    // Zeros are valid compressed data: the decoder would decode rows from them before it checks the checksum.
    let data = damaged.content;
    let n_zeros = data.iter().rev().take_while(|byte| **byte == 0).count();
    let is_cut = n_zeros >= MIN_ZEROS || bytes[..damaged.whole.end].ends_with(&[0; 4]);
    match is_cut {
        true => Cow::Owned(with_end(
            &bytes[..damaged.whole.start],
            Some(&data[..data.len() - n_zeros]),
        )),
        false => Cow::Borrowed(bytes), // the decoder reports the wrong checksum
    }
}

fn with_end(whole: &[u8], data: Option<&[u8]>) -> Vec<u8> {
    let data = data
        .map(|data| encode_chunk(*b"IDAT", data))
        .unwrap_or_default();
    [whole, &data, &encode_chunk(*b"IEND", &[])].concat()
}

/// The file with its samples (those that can be decompressed, up to `max_bytes`) in a complete stream. From an
/// incomplete stream the decoder withholds up to 64 KiB of rows.
pub fn recompress(bytes: &[u8], max_bytes: u64) -> Option<Vec<u8>> {
    let data: Vec<_> = chunks(bytes).filter(|chunk| chunk.is(b"IDAT")).collect();
    let first = data.first()?.whole.start;
    let compressed = data.iter().map(|chunk| chunk.content);
    let compressed = compressed.collect::<Vec<_>>().concat();
    let mut rows = Vec::new();
    // Decompress as much as possible; the caller already has the error.
    let _ = ZlibDecoder::new(&*compressed)
        .take(max_bytes)
        .read_to_end(&mut rows);
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::fast());
    stream.write_all(&rows).ok()?;
    Some(with_end(&bytes[..first], Some(&stream.finish().ok()?)))
}
