//! JPEG files as cameras and phones write them, made into what the decoder takes.
//!
//! [`prepare`] finds out whether all rows are there ([`survey()`]) and supplies what may be missing all the
//! same: an end-of-image marker, the standard Huffman tables, the height that a DNL segment declares; on demand
//! grey in place of missing rows and components ([`filler`]).
//! [`Markers`] tell where one picture of a camera's stream ends and the next begins.

mod blocks;
mod entropy;
mod filler;
mod frame;
mod planes;
mod survey;
mod tables;

use std::{borrow::Cow, io::Cursor};

use ::image::{ImageDecoder, ImageResult, codecs::jpeg::JpegDecoder};
use planes::Planes;
use survey::{Ending, Survey, survey};

use super::ImageError;

/// Start of image.
const SOI: u8 = 0xd8;
/// End of image.
const EOI: u8 = 0xd9;
/// Start of scan: its header is followed by entropy-coded data.
const SOS: u8 = 0xda;
/// Huffman tables.
const DHT: u8 = 0xc4;
/// Number of lines, where the frame header leaves it open.
const DNL: u8 = 0xdc;
/// Quantization tables.
const DQT: u8 = 0xdb;
/// Restart interval.
const DRI: u8 = 0xdd;

const FORMAT: &str = "JPEG";

/// A JPEG for the decoder.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The file, with what was missing.
    pub bytes: Cow<'a, [u8]>,
    /// Whether rows are missing.
    pub truncated: bool,
    by_planes: bool,
}

impl Prepared<'_> {
    /// Its decoder.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn decoder(&self) -> ImageResult<Box<dyn ImageDecoder + '_>> {
        let bytes = &*self.bytes;
        Ok(match self.by_planes {
            true => Box::new(Planes::new(bytes)?),
            false => Box::new(JpegDecoder::new(Cursor::new(bytes))?),
        })
    }
}

/// Makes a JPEG file into one that the decoder takes. Files with everything in its place stay the bytes
/// that they are.
///
/// # Errors
/// [`ImageError::Truncated`] if rows are missing, unless `allow_truncated`; [`ImageError::Variety`] for kinds
/// of JPEG that cannot be decoded.
pub fn prepare(bytes: &[u8], allow_truncated: bool) -> Result<Prepared<'_>, ImageError> {
    let found = survey(bytes);
    if let Some(variety) = found.refused {
        return Err(ImageError::Variety {
            format: FORMAT,
            variety: variety.to_owned(),
        });
    }
    let truncated = match found.ending {
        Ending::Short => true,
        Ending::Unknown => !has_end(bytes),
        Ending::Marked | Ending::Unmarked(_) => false,
    };
    if truncated && !allow_truncated {
        return Err(ImageError::Truncated { format: FORMAT });
    }
    let is_filled = found.ending == Ending::Short && !found.lacking.is_empty();
    let rest = match is_filled {
        true => Some(filler::rest(bytes, &found).ok_or(ImageError::Truncated { format: FORMAT })?),
        false => None,
    };
    Ok(Prepared {
        by_planes: found.by_planes || is_filled && planes::read_filled(&found),
        bytes: completed(bytes, &found, truncated, rest),
        truncated,
    })
}

/// Whether all rows of the JPEG are there, its end marked or not.
pub fn is_whole(bytes: &[u8]) -> bool {
    prepare(bytes, false).is_ok()
}

/// Whether the markers lead to an end-of-image marker.
fn has_end(bytes: &[u8]) -> bool {
    let mut markers = Markers::default();
    loop {
        match markers.advance(bytes) {
            Some(Edge::End(_)) => return true,
            Some(Edge::Start(_)) => {} // decoders tolerate a second one
            None => return false,
        }
    }
}

/// The file with the markers and segments that are missing; `rest` stands in place of all behind the last whole
/// segment or scan.
fn completed<'a>(
    bytes: &'a [u8],
    found: &Survey,
    truncated: bool,
    rest: Option<Vec<u8>>,
) -> Cow<'a, [u8]> {
    let mut splices: Vec<(std::ops::Range<usize>, Vec<u8>)> = Vec::new();
    for (before, table) in &found.missing_tables {
        let length = (table.len() as u16 + 2).to_be_bytes();
        let segment = [&[0xff, DHT], &length[..], table].concat();
        splices.push((*before..*before, segment));
    }
    if let Some((payload, frame)) = &found.frame {
        let height = (frame.height as u16).to_be_bytes();
        let place = payload + 1..payload + 3;
        if bytes[place.clone()] != height {
            splices.push((place, height.to_vec()));
        }
    }
    if let Some(segment) = &found.lines {
        splices.push((segment.clone(), Vec::new()));
    }
    match (found.ending, rest) {
        (_, Some(rest)) => splices.push((found.end..bytes.len(), rest)),
        (Ending::Unmarked(end), None) => splices.push((end..bytes.len(), vec![0xff, EOI])),
        _ if found.in_segment => splices.push((found.end..bytes.len(), vec![0xff, EOI])),
        _ if truncated => splices.push((bytes.len()..bytes.len(), vec![0xff, EOI])),
        _ => {}
    }
    if splices.is_empty() {
        return Cow::Borrowed(bytes);
    }
    splices.sort_by_key(|(place, _)| place.start);
    let mut whole = Vec::with_capacity(bytes.len() + 1024);
    let mut at = 0;
    for (place, with) in splices {
        if place.start < at {
            continue; // behind the end
        }
        whole.extend_from_slice(&bytes[at..place.start]);
        whole.extend(with);
        at = place.end;
    }
    whole.extend_from_slice(&bytes[at..]);
    Cow::Owned(whole)
}

/// A place where a picture ends or begins, as an offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Just after the end-of-image marker.
    End(usize),
    /// Before a start-of-image marker that is not the first, where no segment holds it: the
    /// picture before it broke off.
    Start(usize),
}

/// A walk along the markers of a JPEG that may be there in part only.
///
/// A segment is skipped by its length, so the edges of an embedded thumbnail do not count.
#[derive(Clone, Copy, Debug)]
pub struct Markers {
    /// The next byte to look at; may lie beyond those that are there.
    pos: usize,
    /// Whether that is entropy-coded data.
    in_scan: bool,
}

impl Default for Markers {
    fn default() -> Self {
        Self {
            pos: 2, // after the start-of-image marker
            in_scan: false,
        }
    }
}

impl Markers {
    /// Walks to the next edge in `bytes`, which begin with the picture. `None` if there is none
    /// yet: called again with more bytes after the same ones, the walk goes on.
    pub fn advance(&mut self, bytes: &[u8]) -> Option<Edge> {
        loop {
            let at = self.next_marker(bytes)?;
            match bytes[at + 1] {
                EOI => {
                    self.pos = at + 2;
                    return Some(Edge::End(at + 2));
                }
                SOI => {
                    self.pos = at + 2;
                    return Some(Edge::Start(at));
                }
                0x01 | 0xd0..=0xd7 => self.pos = at + 2, // no segment: TEM, restarts
                marker => {
                    let length = bytes.get(at + 2..at + 4)?;
                    let length = u16::from_be_bytes([length[0], length[1]]);
                    self.pos = at + 2 + usize::from(length).max(2);
                    self.in_scan = marker == SOS;
                }
            }
        }
    }

    /// Moves to the next marker. What is none is skipped: decoders tolerate stray bytes between
    /// segments, and in a scan a zero is stuffed after each byte that looks like one.
    fn next_marker(&mut self, bytes: &[u8]) -> Option<usize> {
        let rest = bytes.get(self.pos..)?;
        let is_marker = |w: &[u8]| match (w[0], w[1]) {
            (0xff, 0 | 0xff) => false,
            (0xff, 0xd0..=0xd7) => !self.in_scan,
            (first, _) => first == 0xff,
        };
        match rest.windows(2).position(is_marker) {
            Some(at) => {
                self.pos += at;
                self.in_scan = false;
                Some(self.pos)
            }
            None => {
                self.pos += rest.len().saturating_sub(1); // the last may be half a marker
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &[u8] = include_bytes!("../../../tests/reference/images/photo.jpg");

    #[test]
    fn a_whole_file_is_complete_and_bytes_after_the_end_do_not_matter() {
        assert!(is_whole(PHOTO));
        assert!(is_whole(&[PHOTO, b"trailing"].concat()));
    }

    #[test]
    fn no_part_of_a_scan_is_whole() {
        let len = PHOTO.len();
        let cuts = (0..40)
            .chain((40..len).step_by(997))
            .chain(len - 40..len - 2); // the last two mark its end
        for cut in cuts {
            assert!(!is_whole(&PHOTO[..cut]), "first {cut} of {len} bytes");
        }
    }

    #[test]
    fn the_end_of_a_thumbnail_does_not_count() {
        // A COM segment whose payload is an end-of-image marker, then nothing.
        assert!(!is_whole(&[0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xd9, 0, 0]));
    }

    #[test]
    fn a_walk_in_pieces_ends_where_a_walk_in_one_does() {
        let two = [PHOTO, PHOTO].concat();
        for step in [1, 2, 3, 7, 1000] {
            let mut markers = Markers::default();
            let mut edge = None;
            for len in (0..two.len()).step_by(step) {
                edge = markers.advance(&two[..len]);
                if edge.is_some() {
                    break;
                }
            }
            assert_eq!(edge, Some(Edge::End(PHOTO.len())), "step {step}");
        }
    }

    #[test]
    fn a_picture_that_breaks_off_is_told_by_the_next_one() {
        let half = &PHOTO[..PHOTO.len() / 2];
        let bytes = [half, PHOTO].concat();
        let edge = Markers::default().advance(&bytes);
        assert_eq!(edge, Some(Edge::Start(half.len())));
    }
}
