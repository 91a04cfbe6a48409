//! Prepares JPEG files of cameras and phones for the decoder.
//!
//! [`prepare`] checks that all rows are present ([`analyze`]) and adds what may be missing nevertheless: an
//! end-of-image marker, the standard Huffman tables, the height from a DNL segment; on request, grey in place of
//! missing rows and components ([`filler`]). [`Markers`] finds where one picture of a camera's stream ends and the
//! next starts.

mod analysis;
mod blocks;
mod entropy;
mod filler;
mod frame;
mod planar;
mod tables;

use std::{borrow::Cow, io::Cursor};

use ::image::{ImageDecoder, ImageResult, codecs::jpeg::JpegDecoder};
use analysis::{Analysis, Ending, analyze};
use planar::PlanarDecoder;

use super::ImageError;

/// Start of image.
const SOI: u8 = 0xd8;
/// End of image.
const EOI: u8 = 0xd9;
/// Start of scan; entropy-coded data follow its header.
const SOS: u8 = 0xda;
/// Huffman tables.
const DHT: u8 = 0xc4;
/// Number of lines, where the frame header does not declare it.
const DNL: u8 = 0xdc;
/// Quantization tables.
const DQT: u8 = 0xdb;
/// Restart interval.
const DRI: u8 = 0xdd;

const FORMAT: &str = "JPEG";

/// A JPEG that is ready for the decoder.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The completed file.
    pub bytes: Cow<'a, [u8]>,
    /// Whether rows are missing.
    pub truncated: bool,
    needs_planar_decoder: bool,
}

impl Prepared<'_> {
    /// The decoder for this file.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn decoder(&self) -> ImageResult<Box<dyn ImageDecoder + '_>> {
        let bytes = &*self.bytes;
        Ok(match self.needs_planar_decoder {
            true => Box::new(PlanarDecoder::new(bytes)?),
            false => Box::new(JpegDecoder::new(Cursor::new(bytes))?),
        })
    }
}

/// Completes a JPEG file for the decoder. Complete files are returned unchanged.
///
/// # Errors
/// [`ImageError::Truncated`] if rows are missing, unless `allow_truncated`; [`ImageError::Variety`] for unsupported
/// variants of JPEG.
pub fn prepare(bytes: &[u8], allow_truncated: bool) -> Result<Prepared<'_>, ImageError> {
    let found = analyze(bytes);
    if let Some(variety) = found.unsupported {
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
    let is_filled = found.ending == Ending::Short && !found.missing_components.is_empty();
    let rest = match is_filled {
        true => Some(filler::rest(bytes, &found).ok_or(ImageError::Truncated { format: FORMAT })?),
        false => None,
    };
    Ok(Prepared {
        needs_planar_decoder: found.needs_planar_decoder
            || is_filled && planar::filled_needs_planar_decoder(&found),
        bytes: complete(bytes, &found, truncated, rest),
        truncated,
    })
}

/// Whether all rows of the JPEG are present, with or without an end marker.
#[cfg(feature = "caption")]
pub fn is_whole(bytes: &[u8]) -> bool {
    prepare(bytes, false).is_ok()
}

/// Whether following the markers leads to an end-of-image marker.
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

/// Adds missing markers and segments; `rest` replaces everything after the last complete segment or scan.
fn complete<'a>(
    bytes: &'a [u8],
    found: &Analysis,
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
        let range = payload + 1..payload + 3;
        if bytes[range.clone()] != height {
            splices.push((range, height.to_vec()));
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
    splices.sort_by_key(|(range, _)| range.start);
    let mut whole = Vec::with_capacity(bytes.len() + 1024);
    let mut at = 0;
    for (range, replacement) in splices {
        if range.start < at {
            continue; // after the end
        }
        whole.extend_from_slice(&bytes[at..range.start]);
        whole.extend(replacement);
        at = range.end;
    }
    whole.extend_from_slice(&bytes[at..]);
    Cow::Owned(whole)
}

/// An offset, in bytes, at which a picture ends or starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// After an end-of-image marker.
    End(usize),
    /// Before a start-of-image marker that is neither the first nor within a segment: the previous picture is
    /// incomplete.
    Start(usize),
}

/// An incremental scanner of a JPEG's markers.
///
/// Segments are skipped by their length, so the edges of an embedded thumbnail do not count.
#[derive(Clone, Copy, Debug)]
pub struct Markers {
    /// The next position; may lie after the available bytes.
    pos: usize,
    /// Whether it is within entropy-coded data.
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
    /// Finds the next edge in `bytes`, which start with the picture. `None` if there is none yet; a later call with
    /// more bytes appended resumes the scan.
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
                0x01 | 0xd0..=0xd7 => self.pos = at + 2, // without a segment: TEM, restart markers
                marker => {
                    let length = bytes.get(at + 2..at + 4)?;
                    let length = u16::from_be_bytes([length[0], length[1]]);
                    self.pos = at + 2 + usize::from(length).max(2);
                    self.in_scan = marker == SOS;
                }
            }
        }
    }

    /// Moves to the next marker. Other bytes are skipped: decoders tolerate stray bytes between segments, and in a
    /// scan a zero is stuffed after each 0xff.
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
                self.pos += rest.len().saturating_sub(1); // the last byte may be half a marker
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
    fn truncated_scans_are_not_whole() {
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
    fn scanning_in_pieces_finds_the_same_edge() {
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
    fn an_incomplete_picture_is_detected_by_the_start_of_the_next() {
        let half = &PHOTO[..PHOTO.len() / 2];
        let bytes = [half, PHOTO].concat();
        let edge = Markers::default().advance(&bytes);
        assert_eq!(edge, Some(Edge::Start(half.len())));
    }
}
