//! Where a JPEG ends.
//!
//! The decoder fills what is missing with grey and says nothing; the model would then describe half
//! a picture as if it were whole. Pillow, hence the reference, refuses such a file, and so do we.
//! The same markers tell where one picture of a camera's stream ends and the next begins.

/// Start of image.
const SOI: u8 = 0xd8;
/// End of image.
const EOI: u8 = 0xd9;
/// Start of scan: its header is followed by entropy-coded data.
const SOS: u8 = 0xda;

/// Whether the markers of `bytes` lead to an end-of-image marker.
pub fn is_complete(bytes: &[u8]) -> bool {
    let mut markers = Markers::default();
    loop {
        match markers.advance(bytes) {
            Some(Edge::End(_)) => return true,
            Some(Edge::Start(_)) => {} // decoders tolerate a second one
            None => return false,
        }
    }
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

    const PHOTO: &[u8] = include_bytes!("../../tests/reference/images/photo.jpg");

    #[test]
    fn a_whole_file_is_complete_and_bytes_after_the_end_do_not_matter() {
        assert!(is_complete(PHOTO));
        assert!(is_complete(&[PHOTO, b"trailing"].concat()));
    }

    #[test]
    fn no_proper_prefix_is_complete() {
        let len = PHOTO.len();
        let cuts = (0..40).chain((40..len).step_by(997)).chain(len - 40..len);
        for cut in cuts {
            assert!(!is_complete(&PHOTO[..cut]), "first {cut} of {len} bytes");
        }
    }

    #[test]
    fn the_end_of_a_thumbnail_does_not_count() {
        // A COM segment whose payload is an end-of-image marker, then nothing.
        assert!(!is_complete(&[
            0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xd9, 0, 0
        ]));
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
