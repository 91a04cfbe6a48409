//! A description written into the bytes of a picture file, without touching the picture.
//!
//! JPEG, PNG and WebP keep an XMP packet in a segment of its own. That segment is replaced or
//! added; the compressed image, EXIF, colour profile and all the rest stay the bytes that they are.

use bytes::Bytes;
use img_parts::{
    jpeg::{Jpeg, JpegSegment, markers},
    png::{Png, PngChunk},
    riff::{RiffChunk, RiffContent},
    webp::{CHUNK_ALPH, CHUNK_VP8L, CHUNK_VP8X, CHUNK_XMP, WebP},
};

use super::xmp::{self, DamagedPacket};

/// A picture that a description cannot be written into.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EmbedError {
    #[error("a description can be written into JPEG, PNG and WebP files, and this is none")]
    Format,
    #[error("the file's structure is damaged")]
    Structure(#[from] img_parts::Error),
    #[error(transparent)]
    Packet(#[from] DamagedPacket),
    #[error("its XMP packet is compressed, which cannot be kept")]
    Compressed,
    #[error("a JPEG holds {MAX_JPEG_PACKET} bytes of XMP, and this would be {found}")]
    TooLong { found: usize },
}

/// What begins the XMP segment of a JPEG.
const JPEG_XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// What begins the EXIF segment of a JPEG.
const JPEG_EXIF: &[u8] = b"Exif\0\0";
/// A segment has 65535 bytes, two of them its length.
const MAX_JPEG_PACKET: usize = 65_533 - JPEG_XMP.len();
/// What begins the chunk of a PNG: keyword, not compressed, no language, no translated keyword.
const PNG_XMP: &[u8] = b"XML:com.adobe.xmp\0\0\0\0\0";
/// Where the keyword ends, and the flag that says whether the text is compressed.
const PNG_XMP_KEYWORD: usize = 18;

/// `file` with `caption` as its description.
///
/// # Errors
/// If the format has no place for one, the file is damaged, or the existing XMP cannot be kept.
pub fn embed(file: &Bytes, caption: &str) -> Result<Bytes, EmbedError> {
    match ::image::guess_format(file) {
        Ok(::image::ImageFormat::Jpeg) => embed_jpeg(file, caption),
        Ok(::image::ImageFormat::Png) => embed_png(file, caption),
        Ok(::image::ImageFormat::WebP) => embed_webp(file, caption),
        _ => Err(EmbedError::Format),
    }
}

/// The new packet: the existing one with its description replaced, or one of its own.
fn packet(existing: Option<&[u8]>, caption: &str) -> Result<Vec<u8>, EmbedError> {
    let packet = match existing {
        None => xmp::packet(caption),
        Some(existing) => {
            let existing = std::str::from_utf8(existing).map_err(|_| DamagedPacket::not_text())?;
            xmp::with_description(existing, caption)?
        }
    };
    Ok(packet.into_bytes())
}

fn embed_jpeg(file: &Bytes, caption: &str) -> Result<Bytes, EmbedError> {
    let mut jpeg = Jpeg::from_bytes(file.clone())?;
    let segments = jpeg.segments_mut();
    let begins = |segment: &JpegSegment, with: &[u8]| {
        segment.marker() == markers::APP1 && segment.contents().starts_with(with)
    };
    let old = segments.iter().position(|s| begins(s, JPEG_XMP));
    let existing = old.map(|at| &segments[at].contents()[JPEG_XMP.len()..]);
    let packet = packet(existing, caption)?;
    if packet.len() > MAX_JPEG_PACKET {
        return Err(EmbedError::TooLong {
            found: packet.len(),
        });
    }
    let contents = Bytes::from([JPEG_XMP, &packet].concat());
    let segment = JpegSegment::new_with_contents(markers::APP1, contents);
    match old {
        Some(at) => segments[at] = segment,
        None => {
            // After JFIF and EXIF, which want to be first, and before everything else: offsets in
            // the index of further images (APP2) count from that segment on.
            let first = |s: &JpegSegment| s.marker() == markers::APP0 || begins(s, JPEG_EXIF);
            let at = segments.iter().position(|s| !first(s)).unwrap_or(0);
            segments.insert(at, segment);
        }
    }
    Ok(jpeg.encoder().bytes())
}

fn embed_png(file: &Bytes, caption: &str) -> Result<Bytes, EmbedError> {
    let mut png = Png::from_bytes(file.clone())?;
    let chunks = png.chunks_mut();
    let is_xmp = |c: &PngChunk| {
        c.kind() == *b"iTXt" && c.contents().starts_with(&PNG_XMP[..PNG_XMP_KEYWORD])
    };
    let old = chunks.iter().position(is_xmp);
    let existing = old
        .map(|at| text_of_png(chunks[at].contents()))
        .transpose()?;
    let contents = [PNG_XMP, &packet(existing, caption)?].concat();
    let chunk = PngChunk::new(*b"iTXt", contents.into());
    match old {
        Some(at) => chunks[at] = chunk,
        // Before the image, so that a reader need not pass it; after the header in any case.
        None => {
            let image = chunks.iter().position(|c| c.kind() == *b"IDAT");
            let at = image.unwrap_or(1).min(chunks.len());
            chunks.insert(at, chunk);
        }
    }
    Ok(png.encoder().bytes())
}

/// The text of an iTXt chunk: behind the keyword come two flags, a language and a translation.
fn text_of_png(contents: &[u8]) -> Result<&[u8], EmbedError> {
    let damaged = || EmbedError::Packet(DamagedPacket::not_text());
    let rest = &contents[PNG_XMP_KEYWORD..];
    let (flags, rest) = rest.split_at_checked(2).ok_or_else(damaged)?;
    if flags[0] != 0 {
        return Err(EmbedError::Compressed);
    }
    let mut parts = rest.splitn(3, |b| *b == 0);
    parts.nth(2).ok_or_else(damaged)
}

fn embed_webp(file: &Bytes, caption: &str) -> Result<Bytes, EmbedError> {
    /// The flag of the extended header that says that there is XMP; likewise for transparency.
    const XMP: u8 = 0b0000_0100;
    const ALPHA: u8 = 0b0001_0000;

    let mut webp = WebP::from_bytes(file.clone())?;
    let old = webp
        .chunk_by_id(CHUNK_XMP)
        .and_then(|c| c.content().data())
        .cloned();
    let packet = packet(old.as_deref(), caption)?;
    if !webp.has_chunk(CHUNK_VP8X) {
        // The simple form has no place for metadata: it gets the extended form's header.
        let (width, height) = webp.dimensions().ok_or(img_parts::Error::Truncated)?;
        let alpha = webp.has_chunk(CHUNK_ALPH) || is_transparent(&webp);
        let mut header = vec![if alpha { ALPHA } else { 0 }, 0, 0, 0];
        header.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
        header.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
        let chunk = RiffChunk::new(CHUNK_VP8X, RiffContent::Data(header.into()));
        webp.chunks_mut().insert(0, chunk);
    }
    let chunks = webp.chunks_mut();
    let header = chunks.iter_mut().find(|c| c.id() == CHUNK_VP8X);
    if let Some(RiffContent::Data(header)) = header.map(RiffChunk::content_mut) {
        let mut flags = header.to_vec();
        *flags.first_mut().ok_or(img_parts::Error::Truncated)? |= XMP;
        *header = flags.into();
    }
    chunks.retain(|c| c.id() != CHUNK_XMP);
    chunks.push(RiffChunk::new(CHUNK_XMP, RiffContent::Data(packet.into())));
    Ok(webp.encoder().bytes())
}

/// Whether a lossless image says that it has transparency: a bit behind its two sizes.
fn is_transparent(webp: &WebP) -> bool {
    let lossless = webp
        .chunk_by_id(CHUNK_VP8L)
        .and_then(|c| c.content().data());
    lossless
        .and_then(|data| data.get(4))
        .is_some_and(|byte| byte & 0x10 != 0)
}

#[cfg(test)]
mod tests {
    use ::image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

    use super::*;

    const JPEG: &[u8] = include_bytes!("../../tests/reference/images/photo.jpg");
    const EXIF: &[u8] = include_bytes!("../../tests/reference/images/exif6.jpg");
    const PNG: &[u8] = include_bytes!("../../tests/reference/images/palette.png");
    const LOSSY: &[u8] = include_bytes!("../../tests/reference/images/lossy.webp");

    fn transparent_webp() -> Vec<u8> {
        let picture = RgbaImage::from_fn(9, 7, |x, y| Rgba([x as u8, y as u8, 3, 100]));
        let mut file = std::io::Cursor::new(Vec::new());
        DynamicImage::from(picture)
            .write_to(&mut file, ImageFormat::WebP)
            .unwrap();
        file.into_inner()
    }

    /// `long` is `short` with one piece put in, which is returned.
    fn inserted<'a>(long: &'a [u8], short: &[u8]) -> &'a [u8] {
        let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
        let more = long.len() - short.len();
        assert!(
            long[same + more..] == short[same..],
            "more than one place differs"
        );
        &long[same..same + more]
    }

    #[test]
    fn a_jpeg_or_png_gets_one_segment_and_every_other_byte_is_kept() {
        let trailing = [JPEG, b"motion picture"].concat(); // as phones append it
        for file in [JPEG, EXIF, PNG, &trailing] {
            let copy = embed(&Bytes::copy_from_slice(file), "a < b\nü").unwrap();
            let piece = inserted(&copy, file);
            assert!(String::from_utf8_lossy(piece).contains("a &lt; b\nü</rdf:li>"));
            let pixels = |bytes| ::image::load_from_memory(bytes).unwrap();
            assert!(pixels(&copy) == pixels(file));
        }
    }

    #[test]
    fn the_image_in_a_webp_keeps_its_bytes() {
        let transparent = transparent_webp();
        for file in [LOSSY, &transparent] {
            let file = Bytes::copy_from_slice(file);
            let copy = embed(&file, "caption").unwrap();
            let (before, after) = (
                WebP::from_bytes(file.clone()).unwrap(),
                WebP::from_bytes(copy.clone()).unwrap(),
            );
            for chunk in before.chunks().iter().filter(|c| c.id() != CHUNK_VP8X) {
                assert_eq!(after.chunk_by_id(chunk.id()), Some(chunk));
            }
            let xmp = after
                .chunk_by_id(CHUNK_XMP)
                .unwrap()
                .content()
                .data()
                .unwrap();
            assert!(String::from_utf8_lossy(xmp).contains(">caption<"));
            let (before, after) = (
                ::image::load_from_memory(&file).unwrap(),
                ::image::load_from_memory(&copy).unwrap(),
            );
            assert!(before == after && before.color() == after.color());
        }
    }

    #[test]
    fn writing_again_replaces_the_description() {
        for file in [JPEG, PNG, LOSSY] {
            let once = embed(&Bytes::copy_from_slice(file), "second").unwrap();
            let other = embed(&Bytes::copy_from_slice(file), "a first, longer one").unwrap();
            let twice = embed(&other, "second").unwrap();
            assert!(twice == once);
        }
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        let long = "x".repeat(70_000);
        let cut = &PNG[..PNG.len() - 20];
        let cases: [(&[u8], &str, &str); 3] = [
            (b"GIF89a", "x", "JPEG, PNG and WebP"),
            (JPEG, &long, "65504 bytes"),
            (cut, "x", "damaged"),
        ];
        for (file, caption, naming) in cases {
            let error = embed(&Bytes::copy_from_slice(file), caption)
                .unwrap_err()
                .to_string();
            assert!(error.contains(naming), "{error}");
        }
    }
}
