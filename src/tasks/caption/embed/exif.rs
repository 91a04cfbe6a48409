//! Sets `ImageDescription` in EXIF.
//!
//! Offsets in a TIFF block count from its start, and the format of offsets in maker notes is unknown. So existing
//! data is never moved: a new text, and a new directory if the first one has no such entry, are appended, and the
//! entry or the header refers to them.

use std::ops::Range;

/// The EXIF block is damaged and cannot be edited.
#[derive(Debug, thiserror::Error)]
#[error("its EXIF block is damaged")]
pub struct DamagedExif;

/// When the caption is also written to EXIF, which many programs prefer to XMP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExifRule {
    /// If the existing description would hide the caption and is not a user's: it is blank, a camera's default
    /// text, or equal to the replaced XMP description.
    #[default]
    Filler,
    /// In every picture.
    Always,
    /// In no picture.
    Never,
}

const MAKE: u16 = 0x010f;
const MODEL: u16 = 0x0110;
const IMAGE_DESCRIPTION: u16 = 0x010e;
/// The type of text: bytes terminated by a zero.
const ASCII: u16 = 2;
const ENTRY_LEN: usize = 12;

/// `block` with `caption` as its `ImageDescription`, or `None` if `rule` leaves it unchanged. `in_xmp` is the
/// previous XMP description.
///
/// # Errors
/// If the caption should be written, but the block is damaged.
pub fn with_caption(
    block: Option<&[u8]>,
    caption: &str,
    in_xmp: Option<&str>,
    rule: ExifRule,
) -> Result<Option<Vec<u8>>, DamagedExif> {
    match (rule, block) {
        (ExifRule::Never, _) | (ExifRule::Filler, None) => Ok(None),
        (ExifRule::Always, None) => Ok(Some(new_block(caption))),
        (ExifRule::Always, Some(block)) => with_description(block, caption).map(Some),
        (ExifRule::Filler, Some(block)) => {
            // Programs show no description of a block that cannot be read.
            let Some(texts) = Tiff::of(block).and_then(|tiff| tiff.texts()) else {
                return Ok(None);
            };
            if texts.is_filler(in_xmp) {
                with_description(block, caption).map(Some)
            } else {
                Ok(None)
            }
        }
    }
}

/// A new block with only `caption`.
fn new_block(caption: &str) -> Vec<u8> {
    let empty = *b"II*\0\x08\0\0\0\0\0\0\0\0\0";
    with_description(&empty, caption).expect("an empty directory is whole")
}

fn with_description(block: &[u8], caption: &str) -> Result<Vec<u8>, DamagedExif> {
    let tiff = Tiff::of(block).ok_or(DamagedExif)?;
    let mut text: Vec<u8> = caption.bytes().filter(|byte| *byte != 0).collect();
    text.push(0);
    let mut new = block.to_vec();
    pad(&mut new);
    let entry = tiff.text_entry(&text, new.len()).ok_or(DamagedExif)?;
    new.extend_from_slice(&text);
    let old: Vec<usize> = tiff.entries_of(IMAGE_DESCRIPTION).collect();
    for at in &old {
        new[*at..at + ENTRY_LEN].copy_from_slice(&entry);
    }
    if old.is_empty() {
        pad(&mut new);
        let at = u32::try_from(new.len()).map_err(|_| DamagedExif)?;
        new[4..8].copy_from_slice(&tiff.u32_bytes(at));
        new.extend(tiff.directory_with(&entry).ok_or(DamagedExif)?);
    }
    Ok(new)
}

/// Pads to an even length: values and directories start at even offsets.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(2), 0);
}

/// A TIFF block with a complete first directory.
struct Tiff<'b> {
    block: &'b [u8],
    big_endian: bool,
    /// Byte range of the entries of the first directory.
    entries: Range<usize>,
}

/// Texts of the first directory.
struct Texts {
    description: String,
    make: String,
    model: String,
}

impl<'b> Tiff<'b> {
    fn of(block: &'b [u8]) -> Option<Self> {
        let big_endian = match block.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        let mut tiff = Self {
            block,
            big_endian,
            entries: 0..0,
        };
        let directory = tiff.u32_at(4)? as usize;
        let first = directory.checked_add(2)?;
        let len = usize::from(tiff.u16_at(directory)?) * ENTRY_LEN;
        tiff.entries = first..first.checked_add(len)?;
        block.get(tiff.entries.clone())?;
        Some(tiff)
    }

    /// Offsets of the entries of `tag`; normally at most one.
    fn entries_of(&self, tag: u16) -> impl Iterator<Item = usize> {
        let all = self.entries.clone().step_by(ENTRY_LEN);
        all.filter(move |at| self.u16_at(*at) == Some(tag))
    }

    /// The bytes of a value of a text or byte type.
    fn text(&self, tag: u16) -> Option<&'b [u8]> {
        let at = self.entries_of(tag).next()?;
        let is_bytes = matches!(self.u16_at(at + 2)?, 1 | ASCII | 7 | 129);
        let len = self.u32_at(at + 4)? as usize;
        let from = if len <= 4 {
            at + 8
        } else {
            self.u32_at(at + 8)? as usize
        };
        self.block
            .get(from..from.checked_add(len)?)
            .filter(|_| is_bytes)
    }

    /// `None` if there is no description, or it is not text.
    fn texts(&self) -> Option<Texts> {
        let texts = |tag| self.text(tag).map(normalize);
        Some(Texts {
            description: texts(IMAGE_DESCRIPTION)?,
            make: texts(MAKE).unwrap_or_default(),
            model: texts(MODEL).unwrap_or_default(),
        })
    }

    /// The entry of `ImageDescription` for a text at offset `at`.
    fn text_entry(&self, text: &[u8], at: usize) -> Option<[u8; ENTRY_LEN]> {
        let mut entry = [0; ENTRY_LEN];
        entry[..2].copy_from_slice(&self.u16_bytes(IMAGE_DESCRIPTION));
        entry[2..4].copy_from_slice(&self.u16_bytes(ASCII));
        entry[4..8].copy_from_slice(&self.u32_bytes(u32::try_from(text.len()).ok()?));
        match text.len() {
            len @ ..=4 => entry[8..8 + len].copy_from_slice(text), // in the entry itself
            _ => entry[8..].copy_from_slice(&self.u32_bytes(u32::try_from(at).ok()?)),
        }
        Some(entry)
    }

    /// The first directory with one more entry; entries are sorted by tag.
    fn directory_with(&self, entry: &[u8; ENTRY_LEN]) -> Option<Vec<u8>> {
        let n_entries = self.entries.len() / ENTRY_LEN;
        let is_later = |at: &usize| self.u16_at(*at) > Some(IMAGE_DESCRIPTION);
        let mut all = self.entries.clone().step_by(ENTRY_LEN);
        let split = all.find(is_later).unwrap_or(self.entries.end);
        let next = self.u32_at(self.entries.end).unwrap_or(0);
        Some(
            [
                &self.u16_bytes(u16::try_from(n_entries + 1).ok()?)[..],
                &self.block[self.entries.start..split],
                entry,
                &self.block[split..self.entries.end],
                &self.u32_bytes(next),
            ]
            .concat(),
        )
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        let bytes = self.block.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.block.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn u16_bytes(&self, value: u16) -> [u8; 2] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u32_bytes(&self, value: u32) -> [u8; 4] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

/// A text without zeros and with single spaces between words.
fn normalize(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace('\0', " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Default texts of cameras and programs in upper or lower case, as collected by photo libraries (PhotoPrism,
/// iNaturalist).
const PHRASES: [&str; 17] = [
    "binary comment",
    "charset=ascii",
    "created by imlib",
    "created with gimp",
    "dcf 1.0",
    "dvc 10.1 hdmi",
    "exif_jpeg_picture",
    "hellomoto",
    "iclarified",
    "lead technologies inc. v1.01",
    "minolta dsc",
    "my beautiful picture",
    "olympus digital camera",
    "samsung camera pictures",
    "sony dsc",
    "kodak digital still camera",
    "konica minolta digital camera",
];
/// Camera modes that phones write as description. Case-sensitive, since a user would write these words differently.
const MODES: [&str; 39] = [
    "Scanner",
    "_cuva",
    "bsh",
    "btf",
    "btfhdr",
    "btfmdn",
    "btr",
    "burst",
    "cof",
    "dav",
    "default",
    "edf",
    "fbt",
    "fbthdr",
    "frem",
    "frontbhdp",
    "fshbty",
    "hdr",
    "hdrpl",
    "mde",
    "mde_soft",
    "mon",
    "nor",
    "oznor",
    "oznorWO",
    "ptr",
    "qrf",
    "rbt",
    "rhdr",
    "rpt",
    "sdr",
    "sdr_HDRB",
    "smart",
    "ASCII",
    "DCIM",
    "DSC",
    "IMAGE",
    "JPEG",
    "UNICODE",
];
/// Makers whose cameras write only their name, in capitals.
const MAKERS: [&str; 21] = [
    "AGFA",
    "CANON",
    "CASIO",
    "EPSON",
    "FUJIFILM",
    "HASSELBLAD",
    "KODAK",
    "KONICA",
    "LEICA",
    "MAMIYA",
    "MEDION",
    "MINOLTA",
    "NIKON",
    "OLYMPUS",
    "PANASONIC",
    "PENTAX",
    "RICOH",
    "ROLLEI",
    "SAMSUNG",
    "SANYO",
    "SONY",
];
const BRACKET_MAKERS: [&str; 3] = ["samsung", "digimax", "kenox"];

impl Texts {
    /// Whether the description is a default text or equal to that in XMP.
    fn is_filler(&self, in_xmp: Option<&str>) -> bool {
        let description = &*self.description;
        let lower = description.to_lowercase();
        let both = format!("{} {}", self.make, self.model);
        let is_blank = !description.chars().any(char::is_alphanumeric);
        let is_camera = [&*self.make, &self.model, &both]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(description));
        is_blank
            || is_camera
            || PHRASES.contains(&&*lower)
            || MODES.contains(&description)
            || is_trade_name(description)
            || in_xmp.is_some_and(|text| normalize(text.as_bytes()) == description)
    }
}

/// Matches `ACME DIGITAL CAMERA`, `MOULTRIE DIGITAL GAME CAMERA`, `MAMIYA`, `<Digimax i5, Samsung #1>`, and paths
/// on a memory card such as `DCIM\100GOPRO\GOPR0482.JPG`.
fn is_trade_name(description: &str) -> bool {
    let is_upper_case =
        !description.chars().any(char::is_lowercase) && description.split(' ').count() <= 5;
    let is_named = |end: &str| is_upper_case && description.ends_with(end);
    let bracketed = description
        .strip_prefix('<')
        .and_then(|s| s.strip_suffix('>'));
    let bracketed = bracketed.map(str::to_lowercase);
    is_named("DIGITAL CAMERA")
        || is_named("DIGITAL STILL CAMERA")
        || is_named("DIGITAL GAME CAMERA")
        || is_named(" DSC")
        || MAKERS.contains(&description)
        || description.starts_with("DCIM\\")
        || description.starts_with("DCIM/")
        || bracketed.is_some_and(|s| BRACKET_MAKERS.iter().any(|maker| s.contains(maker)))
}
