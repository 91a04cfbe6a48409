//! PNG files that end early: what is missing behind the rows is supplied.

use std::borrow::Cow;

const SIGNATURE_LEN: usize = 8;
/// Length, type and checksum of a chunk.
const FRAMING: usize = 12;
const END: [u8; 12] = *b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Makes a PNG file into one that ends as it should: with an IEND chunk, and before that the data that are
/// there of the last chunk. Whether these are all rows the decoder finds. A whole file stays as it is.
pub fn prepare(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut at = SIGNATURE_LEN;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = &head[4..];
        // The checksum of the last chunk is nobody's business, nor are zeros or a trailer behind the last row.
        let is_kind = kind.iter().all(u8::is_ascii_alphabetic);
        match bytes.get(at..at + FRAMING + length) {
            Some(_) if kind == b"IEND" => return Cow::Borrowed(bytes),
            Some(_) if is_kind => at += FRAMING + length,
            _ if kind == b"IDAT" || kind == b"fdAT" => {
                let data = &bytes[at + 8..bytes.len().min(at + 8 + length)];
                return Cow::Owned(ended(&bytes[..at], Some(data)));
            }
            _ => break,
        }
    }
    Cow::Owned(ended(&bytes[..at.min(bytes.len())], None))
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
