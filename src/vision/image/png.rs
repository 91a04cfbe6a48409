//! PNG: its chunks, and files that end early, to which is supplied what is missing behind the rows.

mod chunks;

use std::{
    borrow::Cow,
    io::{Read, Write},
};

pub use chunks::{Chunk, SIGNATURE_LEN, chunk, chunks};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};

/// From so many zeros on, the end of a chunk whose checksum is wrong is what a copy that broke off left.
const MIN_ZEROS: usize = 16;

/// Makes a PNG file into one that ends as it should: with an IEND chunk, and before that the data that are
/// there of the last chunk. Whether these are all rows the decoder finds. A whole file stays as it is.
pub fn prepare(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut end = bytes.len().min(SIGNATURE_LEN);
    let mut data_chunks = Vec::new();
    for chunk in chunks(bytes) {
        // The checksum of the last chunk is nobody's business, nor are zeros or a trailer behind the last row.
        let is_kind = chunk.kind.iter().all(u8::is_ascii_alphabetic);
        if chunk.is_whole() && chunk.is(b"IEND") {
            return Cow::Borrowed(bytes);
        } else if chunk.is_whole() && is_kind {
            end = chunk.whole.end;
            data_chunks.extend(chunk.is(b"IDAT").then_some(chunk));
        } else if chunk.is(b"IDAT") || chunk.is(b"fdAT") {
            return Cow::Owned(ended(&bytes[..chunk.whole.start], Some(chunk.content)));
        } else {
            break;
        }
    }
    let Some(damaged) = data_chunks.iter().find(|chunk| !chunk.is_sound()) else {
        return Cow::Owned(ended(&bytes[..end], None));
    };
    // Zeros are codes of the samples, too: the decoder would read rows from them before it finds the checksum.
    let data = damaged.content;
    let n_zeros = data.iter().rev().take_while(|byte| **byte == 0).count();
    let is_cut = n_zeros >= MIN_ZEROS || bytes[..damaged.whole.end].ends_with(&[0; 4]);
    match is_cut {
        true => Cow::Owned(ended(
            &bytes[..damaged.whole.start],
            Some(&data[..data.len() - n_zeros]),
        )),
        false => Cow::Borrowed(bytes), // its decoder finds the checksum wrong
    }
}

fn ended(whole: &[u8], data: Option<&[u8]>) -> Vec<u8> {
    let data = data.map(|data| chunk(*b"IDAT", data)).unwrap_or_default();
    [whole, &data, &chunk(*b"IEND", &[])].concat()
}

/// The file with those of its samples that can be unpacked, up to `max_bytes`, as a stream that ends. Of one that
/// breaks off the decoder keeps up to 64 KiB of rows to itself.
pub fn unpacked(bytes: &[u8], max_bytes: u64) -> Option<Vec<u8>> {
    let data: Vec<_> = chunks(bytes).filter(|chunk| chunk.is(b"IDAT")).collect();
    let first = data.first()?.whole.start;
    let packed = data.iter().map(|chunk| chunk.content);
    let packed = packed.collect::<Vec<_>>().concat();
    let mut rows = Vec::new();
    // As far as it goes: what is wrong behind is known.
    let _ = ZlibDecoder::new(&*packed)
        .take(max_bytes)
        .read_to_end(&mut rows);
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::fast());
    stream.write_all(&rows).ok()?;
    Some(ended(&bytes[..first], Some(&stream.finish().ok()?)))
}
