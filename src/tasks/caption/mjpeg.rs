//! Splits a Motion JPEG stream of a camera or ffmpeg into frames.

use std::io::{self, Read};

use crate::vision::image::jpeg::{Edge, Markers, is_whole};

/// Maximum size of a frame; protects the memory from a stream of other data.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// The first bytes of a JPEG: the start-of-image marker and the first byte of the next marker.
const BEGINNING: [u8; 3] = [0xff, 0xd8, 0xff];

/// The frames of a stream. The end of a frame is found by walking its markers, so that embedded thumbnails are
/// not taken for frames; bytes between frames are skipped. A frame without an end marker ends where the next one
/// begins, and is kept if it has all its rows.
#[derive(Debug)]
pub struct Frames<R> {
    stream: R,
    /// The bytes from the start of a frame; before one is found, a possible prefix of [`BEGINNING`].
    buffer: Vec<u8>,
    markers: Option<Markers>,
    n_broken: usize,
}

impl<R: Read> Frames<R> {
    /// The frames of `stream`.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            markers: None,
            n_broken: 0,
        }
    }

    /// The number of truncated frames that were dropped.
    pub fn n_broken(&self) -> usize {
        self.n_broken
    }

    /// Removes the next complete frame from the buffer.
    fn cut(&mut self) -> Option<Vec<u8>> {
        loop {
            let markers = match &mut self.markers {
                Some(markers) => markers,
                None => {
                    self.seek_beginning()?;
                    self.markers.insert(Markers::default())
                }
            };
            match markers.advance(&self.buffer)? {
                Edge::End(end) => {
                    let rest = self.buffer.split_off(end);
                    self.markers = None;
                    return Some(std::mem::replace(&mut self.buffer, rest));
                }
                Edge::Start(start) => {
                    let rest = self.buffer.split_off(start);
                    let frame = std::mem::replace(&mut self.buffer, rest);
                    if let Some(frame) = self.unmarked(frame) {
                        return Some(frame);
                    }
                }
            }
        }
    }

    /// Drops the bytes before a frame.
    fn seek_beginning(&mut self) -> Option<()> {
        let at = self
            .buffer
            .windows(BEGINNING.len())
            .position(|w| w == BEGINNING);
        let before = at.unwrap_or(self.buffer.len().saturating_sub(BEGINNING.len() - 1));
        self.buffer.drain(..before);
        at.map(drop)
    }

    /// Ends a frame without an end marker: returns it if it is complete, otherwise counts it as broken.
    fn unmarked(&mut self, frame: Vec<u8>) -> Option<Vec<u8>> {
        if is_whole(&frame) {
            self.markers = None;
            return Some(frame);
        }
        self.drop_frame();
        None
    }

    fn drop_frame(&mut self) {
        self.n_broken += 1;
        self.markers = None;
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 1 << 16]; // the capacity of a pipe
        loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
            }
        }
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(frame) = self.cut() {
                return Some(Ok(frame));
            }
            if self.buffer.len() > MAX_FRAME_BYTES {
                self.buffer.clear();
                self.drop_frame();
            }
            match self.read_more() {
                Ok(0) => {
                    self.markers.as_ref()?;
                    let frame = std::mem::take(&mut self.buffer);
                    return self.unmarked(frame).map(Ok);
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &[u8] = include_bytes!("../../../tests/reference/images/photo.jpg");

    /// Returns a few bytes per read, like a slow pipe.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    /// The photo with the whole photo inside it, as the thumbnail of an APP1 segment.
    fn with_thumbnail() -> Vec<u8> {
        let thumbnail = &PHOTO[..PHOTO.len().min(60_000)];
        let thumbnail = [thumbnail, &[0xff, 0xd9]].concat();
        let length = (thumbnail.len() + 2) as u16;
        let segment = [&[0xff, 0xe1], &length.to_be_bytes()[..], &thumbnail].concat();
        [&PHOTO[..2], &segment, &PHOTO[2..]].concat()
    }

    fn frames(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, usize) {
        let mut frames = Frames::new(Drip(stream, step));
        let found = frames.by_ref().map(Result::unwrap).collect();
        (found, frames.n_broken())
    }

    #[test]
    fn frames_are_split_for_any_read_size() {
        let odd = with_thumbnail();
        let stream = [PHOTO, &odd, b"--boundary\r\n\r\n\xff", PHOTO, b"\xff"].concat();
        for step in [1, 5, 4096, 1 << 16] {
            let (found, n_broken) = frames(&stream, step);
            assert_eq!(found.len(), 3, "step {step}");
            assert!(found[0] == PHOTO && found[1] == odd && found[2] == PHOTO);
            assert_eq!(n_broken, 0);
        }
    }

    #[test]
    fn a_truncated_frame_is_dropped_and_counted() {
        let half = &PHOTO[..PHOTO.len() / 2];
        let (found, n_broken) = frames(&[half, PHOTO, half].concat(), 1000);
        assert_eq!((found.len(), n_broken), (1, 2));
        assert!(found[0] == PHOTO);
    }

    #[test]
    fn a_frame_without_end_marker_is_kept_if_it_has_all_rows() {
        let unmarked = &PHOTO[..PHOTO.len() - 2];
        let between: &[u8] = b"\r\n--boundary\r\nContent-Type: image/jpeg\r\n\r\n";
        let stream = [unmarked, between, unmarked, PHOTO, &[0; 40], unmarked].concat();
        for step in [1000, 1 << 16] {
            let (found, n_broken) = frames(&stream, step);
            assert_eq!((found.len(), n_broken), (4, 0), "step {step}");
            assert!(found[0] == [unmarked, between].concat() && found[1] == unmarked);
            assert!(found[3] == unmarked);
        }
    }

    #[test]
    fn other_data_gives_no_frames() {
        assert_eq!(frames(b"", 1).0.len(), 0);
        assert_eq!(frames(&[0xff; 200_000], 4096), (vec![], 0));
    }
}
