//! Recognises files of unsupported formats by their content.
//!
//! Picture folders contain HEIC files named .jpg, raw photos, macOS sidecars, and login pages that were downloaded as
//! pictures. The error names the format and says what to do.

mod formats;

use std::fmt;
use std::io::Read;

use formats::{
    AGAIN, AVIF, CONVERT, DEVELOP, FRAME, HEIC, HEIF, JPEG_2000, JPEG_XL, LAYERS, MAGIC,
    NO_PICTURE, NOT_THE_PICTURE, PDF, QUICKTIME, SAVE, SVG, UNPACK, VIDEO, foreign_format,
};

use super::ifd::{Tiff, tag};

/// An unsupported kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Name with its article: `a HEIC picture`.
    name: &'static str,
    /// What to do.
    advice: &'static str,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {}; {}", self.name, self.advice)
    }
}

/// The format of `file`, if it is known but not supported. TIFF counts only if it is a raw photo.
pub fn foreign(file: &[u8]) -> Option<Foreign> {
    let magic = || MAGIC.iter().find(|(magic, _)| file.starts_with(magic));
    iso_media(file)
        .or_else(|| raw_photo(file))
        .or_else(|| magic().map(|(_, found)| *found))
        .or_else(|| riff_media(file))
        .or_else(|| format_by_header(file))
        .or_else(|| markup(file))
        .or_else(|| picture_after_other_bytes(file))
        .or_else(|| text(file))
}

/// Whether `file` is HEIC, or HEIF whose brands do not name the codec.
#[cfg(feature = "heic")]
pub fn is_heic(file: &[u8]) -> bool {
    iso_media(file).is_some_and(|found| found == HEIC || found == HEIF)
}

/// ISO base media files, by their brands: HEIC and related formats, raw photos of newer Canon cameras, videos.
fn iso_media(file: &[u8]) -> Option<Foreign> {
    match file.get(4..8)? {
        b"ftyp" => {}
        b"moov" | b"mdat" | b"wide" | b"pnot" => return Some(QUICKTIME),
        _ => return None,
    }
    // A size of 1 means a 64-bit size after the name; 0 means the rest of the file.
    let len = u32::from_be_bytes(*file.first_chunk()?) as usize;
    let begin = if len == 1 { 16 } else { 8 };
    let end = if len < 16 { begin + 64 } else { len };
    let content = file.get(begin..end.min(file.len()))?;
    let (brands, _) = content.as_chunks::<4>();
    let of_brand = |brand: &[u8; 4]| {
        Some(match brand {
            b"crx " => foreign_format("a raw photo (Canon CR3)", DEVELOP),
            b"avif" | b"avis" => AVIF,
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => HEIC,
            b"jxl " => JPEG_XL,
            b"jp2 " | b"jpx " | b"jpm " => JPEG_2000,
            b"qt  " => QUICKTIME,
            b"M4A " | b"M4B " => foreign_format("a sound file (MP4)", NO_PICTURE),
            _ => return None,
        })
    };
    // The major brand comes first; its version, the second entry, is skipped.
    let others = brands.iter().skip(2);
    let specific = brands.iter().take(1).chain(others).find_map(of_brand);
    specific.or_else(|| {
        let of_heif =
            |brand: &[u8; 4]| matches!(brand, b"mif1" | b"mif2" | b"msf1" | b"miaf" | b"heif");
        match brands.iter().any(of_heif) {
            true => Some(HEIF),
            false => Some(VIDEO),
        }
    })
}

/// Raw photos in TIFF containers. Their first directory is a thumbnail, which must not be taken for the photo.
pub fn raw_photo(file: &[u8]) -> Option<Foreign> {
    let tiff = Tiff::new(file)?;
    match file.get(8..12) {
        Some([b'C', b'R', ..]) => return Some(foreign_format("a raw photo (Canon CR2)", DEVELOP)),
        Some(b"IIII" | b"MMMM") => {
            return Some(foreign_format("a raw photo (Phase One IIQ)", DEVELOP));
        }
        _ => {}
    }
    let first = tiff.first()?;
    if first.has(tag::DNG_VERSION) {
        return Some(foreign_format("a raw photo (DNG)", DEVELOP));
    }
    // CFA or linear raw samples; compressions of Sony, Nikon, Samsung, Kodak and Pentax.
    let is_raw = |photometric| matches!(photometric, 32_803 | 34_892);
    let is_camera_compression = |compression| {
        matches!(
            compression,
            262 | 32_767 | 32_769..=32_770 | 32_772 | 34_713 | 65_000 | 65_535
        )
    };
    let holds_samples = tiff.directories().into_iter().any(|directory| {
        directory.value(tag::PHOTOMETRIC).is_some_and(is_raw)
            || directory
                .value(tag::COMPRESSION)
                .is_some_and(is_camera_compression)
    });
    let begins_with_thumbnail = first
        .value(tag::NEW_SUBFILE_TYPE)
        .is_some_and(|ty| ty & 1 == 1)
        && first.has(tag::SUB_IFDS);
    (holds_samples || begins_with_thumbnail).then_some(foreign_format(
        "a raw photo of a camera (such as NEF, ARW, PEF or SRW)",
        DEVELOP,
    ))
}

fn riff_media(file: &[u8]) -> Option<Foreign> {
    if !matches!(file.get(..4)?, b"RIFF" | b"RIFX" | b"RF64") {
        return None;
    }
    match file.get(8..12)? {
        b"AVI " => Some(foreign_format("a video (AVI)", FRAME)),
        b"WAVE" => Some(foreign_format("a sound file (WAV)", NO_PICTURE)),
        b"ACON" => Some(foreign_format("an animated cursor (ANI)", SAVE)),
        [b'C', b'D', b'R', _] => Some(foreign_format("a CorelDRAW document", LAYERS)),
        _ => None,
    }
}

/// Formats whose signature is short or not at the start, so that more of the header is checked.
fn format_by_header(file: &[u8]) -> Option<Foreign> {
    let at = |offset: usize, expected: &[u8]| {
        file.get(offset..)
            .is_some_and(|rest| rest.starts_with(expected))
    };
    let byte = |offset: usize| file.get(offset).copied().unwrap_or(0);
    let is_netpbm = byte(0) == b'P'
        && matches!(byte(1), b'1'..=b'7' | b'F' | b'f')
        && byte(2).is_ascii_whitespace();
    let is_transport_stream = byte(0) == 0x47 && byte(188) == 0x47 && byte(376) == 0x47;
    Some(match file.first_chunk()? {
        _ if file.len() >= 64 && file.iter().all(|byte| *byte == 0) => {
            foreign_format("a file of zeros, left by an interrupted copy", AGAIN)
        }
        [0, 0, 1, 0] if byte(4) > 0 && byte(9) == 0 => {
            foreign_format("a Windows icon (ICO)", CONVERT)
        }
        [0, 0, 2, 0]
            if byte(4) > 0 && byte(9) == 0 && file.len() > 22 && byte(5) == 0 && byte(21) == 0 =>
        {
            foreign_format("a Windows cursor (CUR)", CONVERT)
        }
        [0x1f, 0x8b, ..] => gzip_content(file),
        [0x0a, 0 | 2..=5, 0 | 1, 1 | 2 | 4 | 8] => foreign_format("a PCX picture", CONVERT),
        [1, 0, 0, 0] if at(40, b" EMF") => foreign_format("a Windows metafile (EMF)", CONVERT),
        [b'M', b'Z', ..] => foreign_format("a program", NO_PICTURE),
        _ if is_netpbm => foreign_format("a Netpbm picture (PNM)", CONVERT),
        _ if at(128, b"DICM") => foreign_format(
            "a DICOM file",
            "convert it first, for example with `dcm2img IN OUT.png` (Debian: dcmtk)",
        ),
        _ if at(257, b"ustar") => foreign_format("a tar archive", UNPACK),
        _ if is_transport_stream => foreign_format("a video (MPEG-TS)", FRAME),
        _ if is_targa(file) => foreign_format("a TGA picture", CONVERT),
        _ if file[..file.len().min(1024)]
            .windows(5)
            .any(|w| w == b"%PDF-") =>
        {
            PDF
        }
        _ => return None,
    })
}

/// TGA has no signature and its footer is optional, so all header fields are checked.
fn is_targa(file: &[u8]) -> bool {
    if file.ends_with(b"TRUEVISION-XFILE.\0") {
        return true;
    }
    let Some(
        &[
            _,
            has_map,
            kind,
            _,
            _,
            _,
            _,
            map_bits,
            _,
            _,
            _,
            _,
            w0,
            w1,
            h0,
            h1,
            bits,
            flags,
        ],
    ) = file.first_chunk()
    else {
        return false;
    };
    let map_fits = match has_map {
        0 => matches!(kind, 2 | 3 | 10 | 11) && map_bits == 0,
        1 => matches!(kind, 1 | 9) && matches!(map_bits, 15 | 16 | 24 | 32),
        _ => false,
    };
    let bits_fit = match kind {
        2 | 10 => matches!(bits, 15 | 16 | 24 | 32),
        _ => matches!(bits, 8 | 16),
    };
    let has_pixels = (w0, w1) != (0, 0) && (h0, h1) != (0, 0);
    map_fits && bits_fit && has_pixels && flags & 0b1100_0000 == 0
}

/// The content of a gzip file, by its first bytes.
fn gzip_content(file: &[u8]) -> Foreign {
    const HEAD: u64 = 16 << 10;
    let mut head = Vec::new();
    let _ = flate2::read::GzDecoder::new(file)
        .take(HEAD)
        .read_to_end(&mut head);
    match markup(&head) {
        Some(found) if found == SVG => foreign_format(
            "a packed SVG drawing (SVGZ)",
            "render it first, for example with `rsvg-convert -o OUT.png IN` (Debian: librsvg2-bin)",
        ),
        _ => foreign_format("a file packed by gzip", UNPACK),
    }
}

/// SVG, HTML and other XML, after a byte order mark, white space, a prolog and comments.
fn markup(file: &[u8]) -> Option<Foreign> {
    let head = decode_text(&file[..file.len().min(64 << 10)]);
    let mut rest = head.trim_start();
    let mut is_xml = false;
    loop {
        let lower = |n: usize| {
            rest.chars()
                .take(n)
                .collect::<String>()
                .to_ascii_lowercase()
        };
        let end = match &lower(9)[..] {
            start if start.starts_with("<?") => "?>",
            start if start.starts_with("<!--") => "-->",
            "<!doctype" => {
                match lower(14).split_whitespace().nth(1) {
                    Some("html") => {
                        return Some(foreign_format("a web page (HTML)", NOT_THE_PICTURE));
                    }
                    Some(name) if name.starts_with("svg") => return Some(SVG),
                    _ => {}
                }
                // An internal subset contains `>` itself.
                if rest
                    .find('[')
                    .is_some_and(|at| rest.find('>').is_none_or(|end| at < end))
                {
                    "]>"
                } else {
                    ">"
                }
            }
            _ => break,
        };
        is_xml = true;
        rest = rest
            .find(end)
            .map_or("", |at| &rest[at + end.len()..])
            .trim_start();
    }
    let element = rest.strip_prefix('<').unwrap_or_default();
    let name: String = element
        .chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, ':' | '-' | '_'))
        .take(64)
        .collect::<String>()
        .to_ascii_lowercase();
    match name.rsplit(':').next().unwrap_or_default() {
        "svg" => Some(SVG),
        "html" | "head" | "body" | "title" | "meta" | "script" | "div" | "p" | "h1" | "center" => {
            Some(foreign_format("a web page (HTML)", NOT_THE_PICTURE))
        }
        "" if !is_xml => None,
        _ => Some(foreign_format("an XML document", NOT_THE_PICTURE)),
    }
}

/// A picture after other bytes, such as output of a server's script.
fn picture_after_other_bytes(file: &[u8]) -> Option<Foreign> {
    const MAX_OFFSET: usize = 16;
    let advice = "remove the bytes before it, or download it again";
    let follows = |magic: &[u8]| {
        (1..=MAX_OFFSET).any(|at| file.get(at..).is_some_and(|rest| rest.starts_with(magic)))
    };
    if follows(b"\xff\xd8\xff") {
        return Some(foreign_format("a JPEG after other bytes", advice));
    }
    follows(b"\x89PNG\r\n\x1a\n").then_some(foreign_format("a PNG after other bytes", advice))
}

/// Any other text.
fn text(file: &[u8]) -> Option<Foreign> {
    let head = &file[..file.len().min(4096)];
    let text = decode_text(head);
    let is_text =
        |c: char| !c.is_control() && c != char::REPLACEMENT_CHARACTER || c.is_ascii_whitespace();
    let is_cut = file.len() > head.len(); // possibly within a character
    let whole = if is_cut {
        text.trim_end_matches(char::REPLACEMENT_CHARACTER)
    } else {
        &text
    };
    if !whole.chars().all(is_text) {
        return None;
    }
    let begin = text.trim_start();
    Some(if begin.starts_with(['{', '[']) {
        foreign_format("JSON", NOT_THE_PICTURE)
    } else if begin.starts_with("data:image/") {
        foreign_format(
            "the text of a data URL",
            "decode the part after its comma from base64 first",
        )
    } else if ["/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR"]
        .iter()
        .any(|start| begin.starts_with(start))
    {
        foreign_format(
            "a picture as base64 text",
            "decode it first: `base64 -d IN > OUT`",
        )
    } else if begin.is_empty() {
        foreign_format("only white space", AGAIN)
    } else {
        foreign_format("text", NO_PICTURE)
    })
}

/// Decodes UTF-8 or UTF-16, without the byte order mark.
fn decode_text(bytes: &[u8]) -> String {
    let wide = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].as_chunks().0.iter().map(|b| unit(*b)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests;
