//! Whether a JPEG is complete.
//!
//! The decoder fills what is missing with grey and says nothing; the model would then describe half
//! a picture as if it were whole. Pillow, hence the reference, refuses such a file, and so do we.

/// End of image.
const EOI: u8 = 0xd9;
/// Start of scan: its header is followed by entropy-coded data.
const SOS: u8 = 0xda;

/// Whether the markers of `bytes` lead to an end-of-image marker.
///
/// A segment is skipped by its length, so the end of an embedded thumbnail does not count.
pub fn is_complete(bytes: &[u8]) -> bool {
    let mut pos = 2; // after the start-of-image marker
    loop {
        let Some(marker) = next_marker(bytes, &mut pos) else {
            return false;
        };
        match marker {
            EOI => return true,
            // Markers without a segment: TEM, restarts, a second start of image.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(pos..pos + 2) else {
                    return false;
                };
                pos += usize::from(u16::from_be_bytes([high, low])).max(2);
                if marker == SOS {
                    skip_scan(bytes, &mut pos);
                }
            }
        }
    }
}

/// Reads the next marker, skipping what is none: decoders tolerate stray bytes between segments.
fn next_marker(bytes: &[u8], pos: &mut usize) -> Option<u8> {
    let rest = bytes.get(*pos..)?;
    let at = rest
        .windows(2)
        .position(|w| w[0] == 0xff && w[1] != 0xff && w[1] != 0)?;
    *pos += at + 2;
    Some(rest[at + 1])
}

/// Moves to the marker that ends the entropy-coded data: not a stuffed zero, not a restart.
fn skip_scan(bytes: &[u8], pos: &mut usize) {
    let rest = bytes.get(*pos..).unwrap_or_default();
    let end = rest
        .windows(2)
        .position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff | 0xd0..=0xd7));
    *pos += end.unwrap_or(rest.len());
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
}
