//! The chunks of a PNG.

use std::ops::Range;

pub const SIGNATURE_LEN: usize = 8;
/// Length of a chunk's head: content length and type.
const HEAD_LEN: usize = 8;
const CHECKSUM_LEN: usize = 4;

/// The chunks of a file up to and including `IEND` or the first incomplete one.
pub fn chunks(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut at = Some(SIGNATURE_LEN);
    std::iter::from_fn(move || {
        let chunk = Chunk::at(file, at?)?;
        at = (chunk.is_whole() && !chunk.is(b"IEND")).then_some(chunk.whole.end);
        Some(chunk)
    })
}

/// A chunk that may be incomplete after its head.
#[derive(Clone, Debug)]
pub struct Chunk<'f> {
    pub kind: [u8; 4],
    /// Its range in the file, with head and checksum, as far as available.
    pub whole: Range<usize>,
    /// The available content.
    pub content: &'f [u8],
    /// Whether the content is complete; the checksum may be missing.
    pub has_content: bool,
    checksum: Option<u32>,
}

impl<'f> Chunk<'f> {
    fn at(file: &'f [u8], at: usize) -> Option<Self> {
        let (length, rest) = file.get(at..)?.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (kind, rest) = rest.split_first_chunk()?;
        let (content, after) = rest.split_at(length.min(rest.len()));
        let has_content = content.len() == length;
        let checksum = after.first_chunk().filter(|_| has_content);
        Some(Self {
            kind: *kind,
            whole: at..file.len().min(at + HEAD_LEN + content.len() + CHECKSUM_LEN),
            content,
            has_content,
            checksum: checksum.map(|bytes| u32::from_be_bytes(*bytes)),
        })
    }

    pub fn is(&self, kind: &[u8; 4]) -> bool {
        self.kind == *kind
    }

    /// Whether the chunk is complete, with its checksum.
    pub fn is_whole(&self) -> bool {
        self.checksum.is_some()
    }

    /// Whether the checksum is correct.
    pub fn is_sound(&self) -> bool {
        self.checksum == Some(checksum(self.kind, self.content))
    }
}

/// Encodes a chunk; its content must be shorter than 2 GiB.
pub fn encode_chunk(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    let checksum = checksum(kind, content).to_be_bytes();
    [&length[..], &kind, content, &checksum].concat()
}

fn checksum(kind: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&kind);
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let signature = b"\x89PNG\r\n\x1a\n".to_vec();
        let parts = [
            encode_chunk(*b"IHDR", &[7; 13]),
            encode_chunk(*b"tEXt", b"a\0b"),
        ];
        [signature, parts.concat(), encode_chunk(*b"IEND", b"")].concat()
    }

    #[test]
    fn chunks_are_found_up_to_the_end_of_the_image() {
        let after = [file(), encode_chunk(*b"tEXt", b"behind")].concat();
        let found: Vec<_> = chunks(&after).collect();
        assert_eq!(
            found.iter().map(|c| c.kind).collect::<Vec<_>>(),
            [*b"IHDR", *b"tEXt", *b"IEND"]
        );
        assert!(found.iter().all(|c| c.is_whole() && c.is_sound()));
        assert_eq!(found[1].content, b"a\0b");
        assert_eq!(
            after[found[1].whole.clone()],
            encode_chunk(*b"tEXt", b"a\0b")
        );
    }

    #[test]
    fn the_last_chunk_of_a_truncated_file_is_partial() {
        let file = file();
        let text = SIGNATURE_LEN + 25; // its start
        for (len, n_content, has_content) in
            [(8, 0, false), (10, 2, false), (11, 3, true), (13, 3, true)]
        {
            let last = chunks(&file[..text + len]).last().unwrap();
            assert!(last.is(b"tEXt") && !last.is_whole() && !last.is_sound());
            assert_eq!(
                (last.content.len(), last.has_content),
                (n_content, has_content)
            );
            assert_eq!(last.whole, text..text + len);
        }
        assert_eq!(chunks(&file[..text + 7]).count(), 1);
        assert_eq!(chunks(b"\x89PNG").count(), 0);
    }

    #[test]
    fn a_wrong_checksum_is_detected() {
        let mut file = file();
        file[SIGNATURE_LEN + 8] ^= 1;
        assert!(!chunks(&file).next().unwrap().is_sound());
    }
}
