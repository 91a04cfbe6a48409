//! PNG files that end early: what is missing behind the rows is supplied.

use std::{
    borrow::Cow,
    io::{Read, Write},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};

const SIGNATURE_LEN: usize = 8;
/// Length, type and checksum of a chunk.
const FRAMING: usize = 12;
const END: [u8; 12] = *b"\0\0\0\0IEND\xae\x42\x60\x82";

/// From so many zeros on, the end of a chunk whose checksum is wrong is what a copy that broke off left.
const MIN_ZEROS: usize = 16;

/// Makes a PNG file into one that ends as it should: with an IEND chunk, and before that the data that are
/// there of the last chunk. Whether these are all rows the decoder finds. A whole file stays as it is.
pub fn prepare(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut at = SIGNATURE_LEN;
    let mut data_chunks = Vec::new();
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = &head[4..];
        // The checksum of the last chunk is nobody's business, nor are zeros or a trailer behind the last row.
        let is_kind = kind.iter().all(u8::is_ascii_alphabetic);
        match bytes.get(at..at + FRAMING + length) {
            Some(_) if kind == b"IEND" => return Cow::Borrowed(bytes),
            Some(_) if is_kind => {
                data_chunks.extend((kind == b"IDAT").then_some(at..at + FRAMING + length));
                at += FRAMING + length;
            }
            _ if kind == b"IDAT" || kind == b"fdAT" => {
                let data = &bytes[at + 8..bytes.len().min(at + 8 + length)];
                return Cow::Owned(ended(&bytes[..at], Some(data)));
            }
            _ => break,
        }
    }
    let damaged = data_chunks
        .into_iter()
        .find(|place| !is_sound(&bytes[place.clone()]));
    let Some(damaged) = damaged else {
        return Cow::Owned(ended(&bytes[..at.min(bytes.len())], None));
    };
    // Zeros are codes of the samples, too: the decoder would read rows from them before it finds the checksum.
    let data = &bytes[damaged.start + 8..damaged.end - 4];
    let n_zeros = data.iter().rev().take_while(|byte| **byte == 0).count();
    let is_cut = n_zeros >= MIN_ZEROS || bytes[damaged.end - 4..damaged.end] == [0; 4];
    match is_cut {
        true => Cow::Owned(ended(
            &bytes[..damaged.start],
            Some(&data[..data.len() - n_zeros]),
        )),
        false => Cow::Borrowed(bytes), // its decoder finds the checksum wrong
    }
}

/// Whether the checksum of a whole chunk is right.
fn is_sound(chunk: &[u8]) -> bool {
    let (content, declared) = chunk.split_at(chunk.len() - 4);
    let mut checksum = flate2::Crc::new();
    checksum.update(&content[4..]);
    declared == checksum.sum().to_be_bytes()
}

fn ended(whole: &[u8], data: Option<&[u8]>) -> Vec<u8> {
    let mut file = whole.to_vec();
    if let Some(data) = data {
        let mut checksum = flate2::Crc::new();
        checksum.update(b"IDAT");
        checksum.update(data);
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(b"IDAT");
        file.extend(data);
        file.extend(checksum.sum().to_be_bytes());
    }
    file.extend(END);
    file
}

/// The file with those of its samples that can be unpacked, up to `max_bytes`, as a stream that ends. Of one that
/// breaks off the decoder keeps up to 64 KiB of rows to itself.
pub fn unpacked(bytes: &[u8], max_bytes: u64) -> Option<Vec<u8>> {
    let (mut first, mut packed) = (None, Vec::new());
    let mut at = SIGNATURE_LEN;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        match &head[4..] {
            b"IDAT" => {
                first.get_or_insert(at);
                packed.extend_from_slice(&bytes[at + 8..bytes.len().min(at + 8 + length)]);
            }
            b"IEND" => break,
            _ => {}
        }
        at += FRAMING + length;
    }
    let mut rows = Vec::new();
    // As far as it goes: what is wrong behind is known.
    let _ = ZlibDecoder::new(&*packed)
        .take(max_bytes)
        .read_to_end(&mut rows);
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::fast());
    stream.write_all(&rows).ok()?;
    Some(ended(&bytes[..first?], Some(&stream.finish().ok()?)))
}
