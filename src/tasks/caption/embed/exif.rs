//! `ImageDescription` in EXIF.
//!
//! Offsets in a TIFF block count from its begin, and those in a camera's own notes are known to the
//! camera alone. So nothing that is there is moved: a new text, and a new directory if the first one
//! has no such entry, go behind the end, and the entry or the header points at them.

use std::ops::Range;

/// An EXIF block that cannot be edited.
#[derive(Debug, thiserror::Error)]
#[error("its EXIF block is damaged")]
pub struct DamagedExif;

/// When the caption goes into EXIF as well, which many programs prefer to XMP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExifRule {
    /// Where what is there would hide the caption and no person wrote it: nothing but blanks, a
    /// camera's own words, or the same as the XMP description that is replaced.
    #[default]
    Filler,
    /// In every picture, whatever is there.
    Always,
    /// In none.
    Never,
}

const MAKE: u16 = 0x010f;
const MODEL: u16 = 0x0110;
const IMAGE_DESCRIPTION: u16 = 0x010e;
/// The type of text: bytes that end with a zero.
const ASCII: u16 = 2;
const ENTRY_LEN: usize = 12;

/// `block` with `caption` as its `ImageDescription`, if `rule` wants it; none if it stays as it is.
/// `in_xmp` is the description that the picture had in XMP.
///
/// # Errors
/// If the caption should go in, and the block is damaged.
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
            // Of a block that cannot be read no program shows a description.
            let Some(words) = Tiff::of(block).and_then(|tiff| tiff.words()) else {
                return Ok(None);
            };
            if words.are_filler(in_xmp) {
                with_description(block, caption).map(Some)
            } else {
                Ok(None)
            }
        }
    }
}

/// A block with nothing but `caption` in it.
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
    let old: Vec<usize> = tiff.places(IMAGE_DESCRIPTION).collect();
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

/// Values and directories begin at even offsets.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(2), 0);
}

/// A TIFF block whose first directory is whole.
struct Tiff<'b> {
    block: &'b [u8],
    big_endian: bool,
    /// Where the entries of the first directory stand.
    entries: Range<usize>,
}

/// What the first directory says in words.
struct Words {
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

    /// Where the entries of `tag` stand; there should be one at most.
    fn places(&self, tag: u16) -> impl Iterator<Item = usize> {
        let all = self.entries.clone().step_by(ENTRY_LEN);
        all.filter(move |at| self.u16_at(*at) == Some(tag))
    }

    /// The bytes of a text, or of something that is stored like one.
    fn text(&self, tag: u16) -> Option<&'b [u8]> {
        let at = self.places(tag).next()?;
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

    /// None if there is no description, or none that is text.
    fn words(&self) -> Option<Words> {
        let words = |tag| self.text(tag).map(plain_words);
        Some(Words {
            description: words(IMAGE_DESCRIPTION)?,
            make: words(MAKE).unwrap_or_default(),
            model: words(MODEL).unwrap_or_default(),
        })
    }

    /// The entry of `ImageDescription` for a text that stands at `at`.
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

    /// The first directory with one more entry; entries stand in the order of their tags.
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

/// A text without zeros, and with single spaces between its words.
fn plain_words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace('\0', " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What cameras and programs write where a person has said nothing, as photo libraries have
/// collected it (PhotoPrism, iNaturalist); in upper or lower case.
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
/// Likewise, by phones: the modes of their cameras. As words of a person these are written otherwise.
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
/// Makers whose cameras write no more than their name, in capitals.
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
const MAKERS_OF_BRACKETS: [&str; 3] = ["samsung", "digimax", "kenox"];

impl Words {
    /// Whether no person wrote the description, or XMP says the same.
    fn are_filler(&self, in_xmp: Option<&str>) -> bool {
        let said = &*self.description;
        let lower = said.to_lowercase();
        let both = format!("{} {}", self.make, self.model);
        let is_blank = !said.chars().any(char::is_alphanumeric);
        let is_camera = [&*self.make, &self.model, &both]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(said));
        is_blank
            || is_camera
            || PHRASES.contains(&&*lower)
            || MODES.contains(&said)
            || is_trade_name(said)
            || in_xmp.is_some_and(|text| plain_words(text.as_bytes()) == said)
    }
}

/// `ACME DIGITAL CAMERA`, `MOULTRIE DIGITAL GAME CAMERA`, `MAMIYA`, `<Digimax i5, Samsung #1>`, and the
/// file's own name on the card, `DCIM\100GOPRO\GOPR0482.JPG`.
fn is_trade_name(said: &str) -> bool {
    let is_shouted = !said.chars().any(char::is_lowercase) && said.split(' ').count() <= 5;
    let is_named = |end: &str| is_shouted && said.ends_with(end);
    let bracketed = said.strip_prefix('<').and_then(|s| s.strip_suffix('>'));
    let bracketed = bracketed.map(str::to_lowercase);
    is_named("DIGITAL CAMERA")
        || is_named("DIGITAL STILL CAMERA")
        || is_named("DIGITAL GAME CAMERA")
        || is_named(" DSC")
        || MAKERS.contains(&said)
        || said.starts_with("DCIM\\")
        || said.starts_with("DCIM/")
        || bracketed.is_some_and(|s| MAKERS_OF_BRACKETS.iter().any(|maker| s.contains(maker)))
}
