//! Embeds captions in WebP: metadata chunks.

use std::ops::Range;

use super::{Caption, EmbedError, edits::Edits};

/// `RIFF`, the length of the rest, `WEBP`.
const HEADER_LEN: usize = 12;

/// Flags of the extended header (VP8X).
const HAS_XMP: u8 = 0b0000_0100;
const HAS_EXIF: u8 = 0b0000_1000;
const HAS_ALPHA: u8 = 0b0001_0000;

/// The prefix of EXIF in JPEG, which some programs also write in WebP.
const JPEG_EXIF: &[u8] = b"Exif\0\0";

/// `file` with `caption` embedded.
///
/// # Errors
/// If the file is damaged, or metadata could be lost.
pub fn embed(file: &[u8], caption: Caption<'_>) -> Result<Vec<u8>, EmbedError> {
    let riff = Riff::of(file)?;
    if riff.lacks_padding {
        return embed(&riff.padded(file)?, caption);
    }
    let mut edits = Edits::default();
    let mut flags = HAS_XMP;

    let old: Vec<_> = riff.chunks.iter().filter(|c| c.is(b"XMP ")).collect();
    let existing: Vec<_> = old.iter().map(|c| c.contents).collect();
    let (packet, previous) = caption.packet(&existing)?;

    let block = riff.chunks.iter().find(|c| c.is(b"EXIF"));
    let prefix = block.filter(|c| c.contents.starts_with(JPEG_EXIF));
    let prefix = prefix.map_or(&[][..], |_| JPEG_EXIF);
    let contents = block.map(|c| &c.contents[prefix.len()..]);
    if let Some(new) = caption.exif_block(contents, previous.as_deref())? {
        flags |= HAS_EXIF;
        let new = chunk(b"EXIF", &[prefix, &new].concat());
        match block {
            Some(old) => edits.replace(old.whole.clone(), new),
            None => edits.insert(old.first().map_or(riff.end, |xmp| xmp.whole.start), new),
        }
    }
    let new = chunk(b"XMP ", &packet);
    match old.first() {
        Some(old) => edits.replace(old.whole.clone(), new),
        None => edits.insert(riff.end, new),
    }
    riff.set_flags(flags, &mut edits)?;
    riff.set_len(&mut edits)?;
    Ok(edits.apply(file))
}

/// A chunk and its position in the file.
struct Chunk<'f> {
    kind: [u8; 4],
    /// Header, content and padding, if present.
    whole: Range<usize>,
    contents: &'f [u8],
}

impl Chunk<'_> {
    fn is(&self, kind: &[u8; 4]) -> bool {
        self.kind == *kind
    }
}

/// The chunks of a file.
struct Riff<'f> {
    chunks: Vec<Chunk<'f>>,
    /// End of the last chunk; the bytes after it are not part of the picture.
    end: usize,
    /// Whether the last chunk has an odd length and no padding.
    lacks_padding: bool,
}

impl<'f> Riff<'f> {
    fn of(file: &'f [u8]) -> Result<Self, EmbedError> {
        let damaged = EmbedError::Structure("a chunk is longer than the file");
        let Some(len) = u32_at(file, 4) else {
            return Err(damaged);
        };
        let body = file.get(..8 + len as usize).unwrap_or(file);
        let mut chunks: Vec<Chunk<'f>> = Vec::new();
        let mut at = HEADER_LEN;
        // Fewer bytes than a chunk header are not a chunk.
        while let Some((kind, len)) = kind_at(body, at).zip(u32_at(body, at + 4)) {
            let contents = body.get(at + 8..at + 8 + len as usize);
            let Some(contents) = contents else {
                return Err(damaged);
            };
            let end = at + 8 + contents.len().next_multiple_of(2);
            let whole = at..end.min(body.len());
            at = end;
            chunks.push(Chunk {
                kind,
                whole,
                contents,
            });
        }
        let end = chunks.last().map_or(HEADER_LEN, |c| c.whole.end);
        Ok(Self {
            chunks,
            end,
            lacks_padding: at > end,
        })
    }

    /// `file` with the missing padding of its last chunk.
    fn padded(&self, file: &[u8]) -> Result<Vec<u8>, EmbedError> {
        let mut edits = Edits::default();
        edits.insert(self.end, [0]);
        self.set_len(&mut edits)?;
        Ok(edits.apply(file))
    }

    /// Sets flags in the extended header. A file in the simple format, which cannot have metadata, gets an
    /// extended header.
    fn set_flags(&self, flags: u8, edits: &mut Edits) -> Result<(), EmbedError> {
        if let Some(header) = self.chunks.iter().find(|c| c.is(b"VP8X")) {
            let old = header.contents.first();
            let old = old.ok_or(EmbedError::Structure("its VP8X chunk is empty"))?;
            let at = header.whole.start + 8;
            edits.replace(at..at + 1, [old | flags]);
            return Ok(());
        }
        let image = self.chunks.iter().find_map(Bitstream::of);
        let image = image.ok_or(EmbedError::Structure("expected a VP8 or VP8L chunk"))?;
        let has_alpha = image.has_alpha || self.chunks.iter().any(|c| c.is(b"ALPH"));
        let alpha = if has_alpha { HAS_ALPHA } else { 0 };
        let mut header = vec![flags | alpha, 0, 0, 0];
        header.extend_from_slice(&(image.width - 1).to_le_bytes()[..3]);
        header.extend_from_slice(&(image.height - 1).to_le_bytes()[..3]);
        edits.insert(HEADER_LEN, chunk(b"VP8X", &header));
        Ok(())
    }

    fn set_len(&self, edits: &mut Edits) -> Result<(), EmbedError> {
        let len = (self.end - 8) as i64 + edits.growth_from(0);
        let len = u32::try_from(len).map_err(|_| EmbedError::TooLong {
            format: "WebP",
            what: "everything",
            max: u32::MAX as usize,
            found: len as usize,
        })?;
        edits.replace(4..8, len.to_le_bytes());
        Ok(())
    }
}

/// Size and transparency from the image data.
struct Bitstream {
    width: u32,
    height: u32,
    has_alpha: bool,
}

impl Bitstream {
    fn of(chunk: &Chunk<'_>) -> Option<Self> {
        let size_bits = match &chunk.kind {
            // After the frame tag and a start code: two sizes of 14 bits, each with a scale.
            b"VP8 " => u32_at(chunk.contents, 6)?,
            // After a signature: two sizes of 14 bits minus one, then a bit for transparency.
            b"VP8L" => {
                let bits = u32_at(chunk.contents, 1)?;
                return Some(Self {
                    width: (bits & 0x3fff) + 1,
                    height: (bits >> 14 & 0x3fff) + 1,
                    has_alpha: bits >> 28 & 1 == 1,
                });
            }
            _ => return None,
        };
        let (width, height) = (size_bits & 0x3fff, size_bits >> 16 & 0x3fff);
        let is_picture = width > 0 && height > 0;
        is_picture.then_some(Self {
            width,
            height,
            has_alpha: false,
        })
    }
}

/// Encodes a chunk, padded to an even length.
fn chunk(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let len = contents.len() as u32; // `set_len` rejects longer files
    let padding = &[0][..contents.len() % 2];
    [kind, &len.to_le_bytes()[..], contents, padding].concat()
}

fn kind_at(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}
