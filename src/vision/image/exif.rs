//! Orientation of a picture, from its EXIF block.
//!
//! A file has several blocks if a program added its own and kept the old one. The first counts, as in Pillow, exiv2
//! and libvips. Pictures with damaged EXIF keep the stored orientation. `tiff:Orientation` in XMP is not used;
//! browsers and most viewers do not use it either.

use std::borrow::Cow;
use std::io::Read;

use ::image::{ImageFormat, metadata::Orientation as ExifOrientation};

use super::{
    ifd::{Directory, tag},
    png,
};

/// Prefix of an EXIF block in JPEG; some programs write it in WebP and PNG as well.
const PREFIX: &[u8] = b"Exif\0\0";
/// Maximum size of EXIF from a compressed text, in bytes: more than a JPEG segment holds.
const MAX_BLOCK_BYTES: u64 = 1 << 20;

/// The orientation that makes the picture in a file upright.
pub fn orientation(format: ImageFormat, file: &[u8]) -> ExifOrientation {
    let block = match format {
        ImageFormat::Jpeg => in_jpeg(file).map(Cow::Borrowed),
        ImageFormat::Png => in_png(file),
        ImageFormat::WebP => in_webp(file).map(Cow::Borrowed),
        ImageFormat::Tiff => Some(Cow::Borrowed(file)),
        _ => None,
    };
    block
        .and_then(|block| from_block(&block))
        .unwrap_or(ExifOrientation::NoTransforms)
}

fn from_block(block: &[u8]) -> Option<ExifOrientation> {
    let block = block.strip_prefix(PREFIX).unwrap_or(block);
    let value = Directory::first(block)?.value(tag::ORIENTATION)?;
    ExifOrientation::from_exif(u8::try_from(value).ok()?)
}

/// The first APP1 segment with EXIF before the first scan.
fn in_jpeg(file: &[u8]) -> Option<&[u8]> {
    const APP1: u8 = 0xe1;
    const SOS: u8 = 0xda;
    let mut rest = file.get(2..)?;
    loop {
        // Stray bytes are skipped, as decoders do; 0xff may be repeated before a marker.
        let at = rest
            .windows(2)
            .position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff))?;
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        match marker {
            SOS => return None,
            0x01 | 0xd0..=0xd8 => continue, // markers without a segment
            _ => {}
        }
        let len = usize::from(u16::from_be_bytes(*rest.first_chunk()?)).max(2);
        let segment = &rest[2..len.min(rest.len()).max(2)];
        if marker == APP1 && segment.starts_with(PREFIX) {
            return Some(segment);
        }
        rest = rest.get(len..)?;
    }
}

/// The first `eXIf` chunk, before or after the samples; without one, the first text in which ImageMagick stores EXIF.
fn in_png(file: &[u8]) -> Option<Cow<'_, [u8]>> {
    let chunks = || png::chunks(file).filter(|chunk| chunk.has_content);
    match chunks().find(|chunk| chunk.is(b"eXIf")) {
        Some(chunk) => Some(Cow::Borrowed(chunk.content)),
        None => chunks()
            .find_map(|chunk| raw_profile(&chunk.kind, chunk.content))
            .map(Cow::Owned),
    }
}

/// The block of a text chunk `Raw profile type exif` (or `APP1`): a name, a length, and hexadecimal digits.
fn raw_profile(kind: &[u8; 4], content: &[u8]) -> Option<Vec<u8>> {
    let end = content.iter().position(|byte| *byte == 0)?;
    if !matches!(
        &content[..end],
        b"Raw profile type exif" | b"Raw profile type APP1"
    ) {
        return None;
    }
    let text = &content[end + 1..];
    let text: Cow<'_, [u8]> = match kind {
        b"tEXt" => Cow::Borrowed(text),
        b"zTXt" => Cow::Owned(inflate(text.get(1..)?)),
        b"iTXt" => {
            let (is_compressed, text) = (*text.first()? == 1, text.get(2..)?);
            let text = text.splitn(3, |byte| *byte == 0).nth(2)?; // after language and translated keyword
            match is_compressed {
                true => Cow::Owned(inflate(text)),
                false => Cow::Borrowed(text),
            }
        }
        _ => return None,
    };
    let mut words = text
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    words.by_ref().nth(1)?; // name and length
    let digits: Vec<u8> = words.flatten().copied().collect();
    let pair = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_chunks().0.iter().map(pair).collect()
}

/// Decompresses as much as possible.
fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = flate2::read::ZlibDecoder::new(bytes)
        .take(MAX_BLOCK_BYTES)
        .read_to_end(&mut out);
    out
}

/// The first `EXIF` chunk.
fn in_webp(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.get(12..)?;
    loop {
        let kind: &[u8; 4] = rest.first_chunk()?;
        let len = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let content = rest.get(8..)?;
        if kind == b"EXIF" {
            return Some(&content[..len.min(content.len())]);
        }
        rest = content.get(len.checked_next_multiple_of(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::image::ifd::tests::with_tags;

    fn block(orientation: u32) -> Vec<u8> {
        with_tags(&[(tag::ORIENTATION, orientation)])
    }

    fn turn(format: ImageFormat, file: &[u8]) -> u8 {
        orientation(format, file).to_exif()
    }

    fn jpeg(segments: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        for (marker, content) in segments {
            file.extend([0xff, *marker]);
            file.extend((content.len() as u16 + 2).to_be_bytes());
            file.extend(content);
        }
        file
    }

    fn app1(orientation: u32) -> (u8, Vec<u8>) {
        (0xe1, [PREFIX, &block(orientation)].concat())
    }

    #[test]
    fn the_first_exif_block_of_a_jpeg_counts() {
        let xmp = (
            0xe1,
            b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation=\"3\"/>".to_vec(),
        );
        let jfif = (0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0".to_vec());
        let scan = (0xda, vec![0; 10]);
        let damaged = (0xe1, b"Exif\0\0II*\0\xff\xff\xff\xff".to_vec());
        let cases = [
            (vec![app1(6)], 6),
            (vec![app1(6), app1(8)], 6),
            (vec![app1(1), app1(8)], 1),
            (vec![jfif.clone(), xmp.clone(), app1(3), app1(6)], 3),
            (vec![xmp.clone()], 1),
            (vec![damaged, app1(6)], 1),
            (vec![scan, app1(6)], 1), // in the samples
            (vec![app1(0), app1(6)], 1),
            (vec![app1(9)], 1),
        ];
        for (i, (segments, expected)) in cases.into_iter().enumerate() {
            assert_eq!(
                turn(ImageFormat::Jpeg, &jpeg(&segments)),
                expected,
                "case {i}"
            );
        }
        let file = [&jpeg(&[])[..], &[0, 0xff, 0xff], &jpeg(&[app1(6)])[2..]].concat();
        assert_eq!(
            turn(ImageFormat::Jpeg, &file),
            6,
            "stray and repeated bytes"
        );
    }

    fn png(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, content) in chunks {
            file.extend((content.len() as u32).to_be_bytes());
            file.extend(*kind);
            file.extend(*content);
            file.extend([0; 4]);
        }
        file
    }

    fn profile_text(orientation: u32) -> Vec<u8> {
        let block = [PREFIX, &block(orientation)].concat();
        let mut text = format!("\nexif\n{:8}\n", block.len()).into_bytes();
        for (i, byte) in block.iter().enumerate() {
            text.extend(format!("{byte:02x}").bytes());
            text.extend((i % 36 == 35).then_some(b'\n'));
        }
        text
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn exif_of_a_png_is_found_in_chunks_and_texts() {
        let (six, eight) = (block(6), block(8));
        let prefixed = [PREFIX, &six].concat();
        let keyword = b"Raw profile type exif\0";
        let text = [&keyword[..], &profile_text(8)].concat();
        let ztxt = [&keyword[..], b"\0", &deflate(&profile_text(8))].concat();
        let itxt = [&keyword[..], b"\0\0en\0exif\0", &profile_text(8)].concat();
        let itxt_packed = [&keyword[..], b"\x01\0\0\0", &deflate(&profile_text(8))].concat();
        type Chunks<'a> = Vec<(&'a [u8; 4], &'a [u8])>;
        let cases: [(Chunks<'_>, u8); 10] = [
            (vec![(b"eXIf", &six), (b"IDAT", b"")], 6),
            (vec![(b"IDAT", b""), (b"eXIf", &six), (b"IEND", b"")], 6),
            (vec![(b"eXIf", &prefixed)], 6),
            (vec![(b"eXIf", &six), (b"eXIf", &eight)], 6),
            (vec![(b"tEXt", &text)], 8),
            (vec![(b"zTXt", &ztxt), (b"IDAT", b"")], 8),
            (vec![(b"iTXt", &itxt)], 8),
            (vec![(b"iTXt", &itxt_packed)], 8),
            (vec![(b"zTXt", &ztxt), (b"eXIf", &six)], 6),
            (vec![(b"eXIf", b"nonsense"), (b"IDAT", b"")], 1),
        ];
        for (i, (chunks, expected)) in cases.into_iter().enumerate() {
            assert_eq!(turn(ImageFormat::Png, &png(&chunks)), expected, "case {i}");
        }
    }

    #[test]
    fn exif_of_a_webp_is_found_with_and_without_prefix() {
        let webp = |chunks: &[&[u8]]| {
            let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
            file.extend(b"VP8X\x03\0\0\0abc\0"); // an odd length is padded
            for content in chunks {
                file.extend(b"EXIF");
                file.extend((content.len() as u32).to_le_bytes());
                file.extend(*content);
            }
            file
        };
        let (six, eight) = (block(6), block(8));
        let prefixed = [PREFIX, &six].concat();
        assert_eq!(turn(ImageFormat::WebP, &webp(&[&six])), 6);
        assert_eq!(turn(ImageFormat::WebP, &webp(&[&prefixed])), 6);
        assert_eq!(turn(ImageFormat::WebP, &webp(&[&six, &eight])), 6);
        assert_eq!(turn(ImageFormat::WebP, &webp(&[])), 1);
    }

    #[test]
    fn every_truncation_is_no_error() {
        let ztxt = [b"Raw profile type exif\0\0", &deflate(&profile_text(8))[..]].concat();
        let files = [
            (ImageFormat::Jpeg, jpeg(&[app1(6)])),
            (ImageFormat::Png, png(&[(b"eXIf", &block(6))])),
            (ImageFormat::Png, png(&[(b"zTXt", &ztxt)])),
            (ImageFormat::Tiff, block(6)),
        ];
        for (format, file) in files {
            for len in 0..file.len() {
                orientation(format, &file[..len]);
            }
        }
    }
}
