//! Embeds captions in JPEG: metadata segments.

use std::{collections::BTreeMap, ops::Range};

use super::{Caption, EmbedError, PacketError, edits::Edits, xmp};

/// Signatures at the beginning of a segment's content.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const EXTENDED_XMP: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
const EXIF: &[u8] = b"Exif\0\0";
const MPF: &[u8] = b"MPF\0";

const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;

/// A segment has at most 65535 bytes, including two for its length.
const MAX_CONTENTS: usize = 65_533;

/// `file` with `caption` embedded.
///
/// # Errors
/// If the file is damaged before the first scan, or metadata could be lost.
pub fn embed(file: &[u8], caption: Caption<'_>) -> Result<Vec<u8>, EmbedError> {
    let segments = Segments::of(file)?;
    segments.check_extended_xmp()?;
    let mut edits = Edits::default();

    let packets: Vec<_> = segments.beginning_with(APP1, XMP).collect();
    let existing: Vec<_> = packets
        .iter()
        .map(|s| &segments.contents(s)[XMP.len()..])
        .collect();
    let (mut packet, previous) = caption.packet(&existing)?;
    let index = segments.beginning_with(APP2, MPF).next();
    if let Some(old) = packets.first() {
        let max_len = MAX_CONTENTS - XMP.len();
        let is_after_index = index.is_some_and(|index| index.whole.start < old.whole.start);
        if is_after_index {
            packet = xmp::padded_to(existing[0].len(), packet);
        } else if packet.len() > max_len {
            packet = xmp::padded_to(max_len, packet);
        }
    }
    let segment = segment(XMP, &packet, "XMP")?;

    let block = segments.beginning_with(APP1, EXIF).next();
    let contents = block.map(|s| &segments.contents(s)[EXIF.len()..]);
    if let Some(new) = caption.exif_block(contents, previous.as_deref())? {
        let new = self::segment(EXIF, &new, "EXIF")?;
        match block {
            Some(old) => edits.replace(old.whole.clone(), new),
            None => edits.insert(segments.start_after(|s| s.marker == APP0), new),
        }
    }
    match packets.first() {
        Some(old) => edits.replace(old.whole.clone(), segment),
        // After JFIF and EXIF, which must come first, and before everything else.
        None => {
            let is_first = |s: &Segment| s.marker == APP0 || segments.begins(s, APP1, EXIF);
            edits.insert(segments.start_after(is_first), segment);
        }
    }
    // The offsets in the index count from there to images after this one.
    if let Some(index) = index
        && edits.growth_from(index.whole.end) != 0
    {
        return Err(EmbedError::BehindIndex("metadata"));
    }
    Ok(edits.apply(file))
}

/// Encodes an APP1 segment.
fn segment(signature: &[u8], rest: &[u8], what: &'static str) -> Result<Vec<u8>, EmbedError> {
    let too_long = EmbedError::TooLong {
        format: "JPEG",
        what,
        max: MAX_CONTENTS - signature.len(),
        found: rest.len(),
    };
    let len = u16::try_from(2 + signature.len() + rest.len()).map_err(|_| too_long)?;
    Ok([&[0xff, APP1], &len.to_be_bytes()[..], signature, rest].concat())
}

/// A segment and its position in the file.
struct Segment {
    marker: u8,
    /// From the marker to the end.
    whole: Range<usize>,
}

/// The segments before the first scan. Everything after that is copied.
struct Segments<'f> {
    file: &'f [u8],
    all: Vec<Segment>,
}

impl<'f> Segments<'f> {
    /// Finds the segments as decoders do: bytes outside segments are skipped.
    fn of(file: &'f [u8]) -> Result<Self, EmbedError> {
        const SCAN: u8 = 0xda;
        const END: u8 = 0xd9;
        let damaged = EmbedError::Structure("expected a scan, found the end of the file");
        let mut all = Vec::new();
        let mut at = 2;
        loop {
            let Some(skipped) = file[at..].windows(2).position(is_marker) else {
                return Err(damaged);
            };
            let from = at + skipped;
            match file[from + 1] {
                SCAN => return Ok(Self { file, all }),
                END => return Err(damaged),
                0x01 | 0xd0..=0xd8 => at = from + 2, // no length and content
                marker => {
                    let Some(len) = file.get(from + 2..from + 4) else {
                        return Err(damaged);
                    };
                    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
                    at = from + 2 + len;
                    if len < 2 || at > file.len() {
                        return Err(damaged);
                    }
                    all.push(Segment {
                        marker,
                        whole: from..at,
                    });
                }
            }
        }
    }

    fn contents(&self, segment: &Segment) -> &'f [u8] {
        &self.file[segment.whole.start + 4..segment.whole.end]
    }

    fn begins(&self, segment: &Segment, marker: u8, with: &[u8]) -> bool {
        segment.marker == marker && self.contents(segment).starts_with(with)
    }

    fn beginning_with(&self, marker: u8, with: &'static [u8]) -> impl Iterator<Item = &Segment> {
        let all = self.all.iter();
        all.filter(move |segment| self.begins(segment, marker, with))
    }

    /// The position after the leading segments for which `first` is true.
    fn start_after(&self, first: impl Fn(&Segment) -> bool) -> usize {
        let n_first = self.all.iter().take_while(|s| first(s)).count();
        let previous = n_first.checked_sub(1).map(|i| &self.all[i]);
        previous.map_or(2, |segment| segment.whole.end)
    }

    /// Rejects a picture with a description in its extended XMP, the part that did not fit into one segment. That
    /// part cannot be edited: the main packet refers to it by checksum.
    fn check_extended_xmp(&self) -> Result<(), PacketError> {
        const GUID_LEN: usize = 32;
        let mut parts: BTreeMap<&[u8], BTreeMap<u32, &[u8]>> = BTreeMap::new();
        let mut lengths = BTreeMap::new();
        for segment in self.beginning_with(APP1, EXTENDED_XMP) {
            let contents = &self.contents(segment)[EXTENDED_XMP.len()..];
            let (guid, rest) = contents
                .split_at_checked(GUID_LEN)
                .ok_or(PacketError::Extension)?;
            let (numbers, part) = rest.split_at_checked(8).ok_or(PacketError::Extension)?;
            let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| numbers[at + i]));
            lengths.insert(guid, number(0));
            parts.entry(guid).or_default().insert(number(4), part);
        }
        for (guid, parts) in parts {
            let mut packet = Vec::new();
            for (offset, part) in parts {
                if offset as usize != packet.len() {
                    return Err(PacketError::Extension);
                }
                packet.extend_from_slice(part);
            }
            if packet.len() != lengths[guid] as usize {
                return Err(PacketError::Extension);
            }
            if xmp::read(&packet)?.has_any {
                return Err(PacketError::Several);
            }
        }
        Ok(())
    }
}

/// Whether two bytes are a marker; `ff ff` is a fill byte before a marker, `ff 00` is data.
fn is_marker(pair: &[u8]) -> bool {
    pair[0] == 0xff && !matches!(pair[1], 0 | 0xff)
}
