//! Embeds captions in PNG: metadata chunks.

use std::io::{Read, Write};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};

use super::{Caption, EmbedError, edits::Edits};
use crate::vision::image::png::{self, Chunk};

/// The keyword of an XMP chunk with its terminator.
const XMP: &[u8] = b"XML:com.adobe.xmp\0";
/// ImageMagick's keyword for XMP in hexadecimal digits.
const RAW_XMP: &[u8] = b"Raw profile type xmp\0";
/// ImageMagick's keyword for EXIF; its content starts with [`JPEG_EXIF`].
const RAW_EXIF: &[u8] = b"Raw profile type exif\0";
const JPEG_EXIF: &[u8] = b"Exif\0\0";

/// Maximum size in bytes of an inflated packet.
const MAX_PACKET: u64 = 64 << 20;

/// `file` with `caption` embedded.
///
/// # Errors
/// If the file is damaged before the image data, or metadata could be lost.
pub fn embed(file: &[u8], caption: Caption<'_>) -> Result<Vec<u8>, EmbedError> {
    let chunks: Vec<_> = png::chunks(file).filter(Chunk::is_whole).collect();
    let header = chunks.first().filter(|c| c.is(b"IHDR"));
    header.ok_or(EmbedError::Structure("expected an IHDR chunk"))?;
    let image = chunks.iter().find(|c| c.is(b"IDAT"));
    let image = image.ok_or(EmbedError::Structure("expected an IDAT chunk"))?;
    let mut edits = Edits::default();

    let old: Vec<_> = chunks.iter().filter(|c| holds_xmp(c)).collect();
    let texts = old.iter().map(|c| Text::of(c, RAW_XMP));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let existing: Vec<_> = texts.iter().map(|text| &*text.packet).collect();
    let (packet, previous) = caption.packet(&existing)?;

    let block = chunks.iter().find(|c| c.is(b"eXIf"));
    // A second block would hide the raw one's values, such as the orientation.
    let raw = chunks
        .iter()
        .filter(|_| block.is_none())
        .find(|c| holds_raw(c, RAW_EXIF));
    let raw = raw.and_then(|c| Some((c, Text::of(c, RAW_EXIF).ok()?)));
    let raw_block = raw.as_ref().map(|(_, text)| &*text.packet);
    let begin = raw_block.filter(|block| block.starts_with(JPEG_EXIF));
    let begin = begin.map_or(&[][..], |_| JPEG_EXIF);
    let raw_block = raw_block.map(|block| &block[begin.len()..]);
    let contents = block.map(checked_content).transpose()?.or(raw_block);
    if let Some(new) = caption.exif_block(contents, previous.as_deref())? {
        match (block, &raw) {
            (Some(old), _) => edits.replace(old.whole.clone(), chunk(*b"eXIf", &new)?),
            (None, Some((old, text))) => {
                let new = text.with(&[begin, &new].concat());
                edits.replace(old.whole.clone(), chunk(old.kind, &new)?);
            }
            (None, None) => edits.insert(image.whole.start, chunk(*b"eXIf", &new)?),
        }
    }
    match (old.first(), texts.first()) {
        (Some(old), Some(text)) => {
            edits.replace(old.whole.clone(), chunk(old.kind, &text.with(&packet))?);
        }
        // Before the image data, so that readers find it early.
        _ => {
            // Uncompressed, without language and translated keyword.
            let contents = [XMP, &[0, 0, 0, 0], &packet].concat();
            edits.insert(image.whole.start, chunk(*b"iTXt", &contents)?);
        }
    }
    Ok(edits.apply(file))
}

fn holds_xmp(chunk: &Chunk<'_>) -> bool {
    chunk.is(b"iTXt") && chunk.content.starts_with(XMP) || holds_raw(chunk, RAW_XMP)
}

/// Whether the chunk is a raw profile with this keyword.
fn holds_raw(chunk: &Chunk<'_>, keyword: &[u8]) -> bool {
    let is_raw = chunk.is(b"tEXt") || chunk.is(b"zTXt");
    is_raw && chunk.content.starts_with(keyword)
}

/// The content, if the checksum is correct.
fn checked_content<'f>(chunk: &Chunk<'f>) -> Result<&'f [u8], EmbedError> {
    let content = chunk.is_sound().then_some(chunk.content);
    content.ok_or(EmbedError::Structure(
        "the checksum of its metadata is wrong",
    ))
}

/// Encodes a chunk.
fn chunk(kind: [u8; 4], content: &[u8]) -> Result<Vec<u8>, EmbedError> {
    let max = i32::MAX as usize;
    if content.len() > max {
        return Err(EmbedError::TooLong {
            format: "PNG",
            what: "metadata",
            max,
            found: content.len(),
        });
    }
    Ok(png::encode_chunk(kind, content))
}

/// A text chunk that contains an XMP packet or EXIF.
struct Text<'f> {
    /// The bytes before the text.
    header: &'f [u8],
    is_compressed: bool,
    is_raw_profile: bool,
    packet: Vec<u8>,
}

impl<'f> Text<'f> {
    /// Parses a chunk with the XMP keyword or, for a raw profile, `raw_keyword`.
    fn of(chunk: &Chunk<'f>, raw_keyword: &[u8]) -> Result<Self, EmbedError> {
        let malformed =
            || EmbedError::Structure("its XMP chunk is truncated or has an unknown form");
        let contents = checked_content(chunk)?;
        let is_raw_profile = !chunk.is(b"iTXt");
        let (header_len, is_compressed) = match &chunk.kind {
            b"iTXt" => international_header(contents),
            b"zTXt" => contents
                .get(raw_keyword.len())
                .filter(|method| **method == 0)
                .map(|_| (raw_keyword.len() + 1, true)),
            _ => Some((raw_keyword.len(), false)),
        }
        .ok_or_else(malformed)?;
        let (header, text) = contents.split_at(header_len);
        let mut packet = if is_compressed {
            inflate(text)?
        } else {
            text.to_vec()
        };
        if is_raw_profile {
            let damaged = EmbedError::Structure("its XMP in `Raw profile type xmp` is damaged");
            packet = raw_profile(&packet).ok_or(damaged)?;
        }
        Ok(Self {
            header,
            is_compressed,
            is_raw_profile,
            packet,
        })
    }

    /// The content of this chunk with another packet.
    fn with(&self, packet: &[u8]) -> Vec<u8> {
        let mut text = packet.to_vec();
        if self.is_raw_profile {
            let is_exif = self.header.starts_with(RAW_EXIF);
            text = encode_raw_profile(if is_exif { "exif" } else { "xmp" }, &text);
        }
        if self.is_compressed {
            text = deflate(&text);
        }
        [self.header, &text].concat()
    }
}

/// The length of the header of an `iTXt` chunk, and whether its text is compressed. After the keyword follow a
/// flag, a method, a language and a translated keyword.
fn international_header(contents: &[u8]) -> Option<(usize, bool)> {
    let (flags, rest) = contents[XMP.len()..].split_at_checked(2)?;
    let text = rest.splitn(3, |b| *b == 0).nth(2)?;
    let is_compressed = match flags {
        [0, _] => false,
        [1, 0] => true,
        _ => return None,
    };
    Some((contents.len() - text.len(), is_compressed))
}

/// Decodes a raw profile: a name, a length and hexadecimal digits, each on separate lines.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let _name = words.next()?;
    let len: usize = words.next()?.parse().ok()?;
    let digits: Vec<u8> = words.flat_map(str::bytes).collect();
    let (pairs, odd) = digits.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    (odd.is_empty() && bytes.len() == len).then_some(bytes)
}

fn encode_raw_profile(name: &str, bytes: &[u8]) -> Vec<u8> {
    const BYTES_A_LINE: usize = 36;
    let mut text = format!("\n{name}\n{:8}\n", bytes.len());
    for line in bytes.chunks(BYTES_A_LINE) {
        text.extend(line.iter().map(|byte| format!("{byte:02x}")));
        text.push('\n');
    }
    text.into_bytes()
}

fn inflate(text: &[u8]) -> Result<Vec<u8>, EmbedError> {
    let mut packet = Vec::new();
    let mut decoder = ZlibDecoder::new(text).take(MAX_PACKET + 1);
    let read = decoder.read_to_end(&mut packet);
    read.map_err(|_| EmbedError::Structure("its compressed XMP cannot be decompressed"))?;
    if packet.len() as u64 > MAX_PACKET {
        return Err(EmbedError::TooLong {
            format: "PNG",
            what: "compressed XMP",
            max: MAX_PACKET as usize,
            found: packet.len(),
        });
    }
    Ok(packet)
}

fn deflate(packet: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(packet).and_then(|()| encoder.finish());
    written.expect("memory takes all that is written")
}
