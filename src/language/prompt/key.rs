//! The key of a prompt: the content of each position, so that two sequences can be compared.
//!
//! The keys and values of a position depend only on the positions up to it, so sequences with a common prefix can share
//! its part of the KV cache. Tokens are identified by their ids, pictures by their digests. The mask bit is part of the
//! key, because the adapter changes keys and values.

use super::{PloraMask, Run, Sequence};
use crate::{model::TileGrid, system::digest};

/// Identifies a picture by the digest of its content. With the same tower and preprocessing, equal identities mean
/// equal embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PictureId([u8; 32]);

impl PictureId {
    /// The identity of a picture file.
    pub fn of_file(bytes: &[u8]) -> Self {
        Self::of("file", bytes)
    }

    /// The identity of 8-bit RGB samples, `[height, width, 3]`.
    pub fn of_pixels(width: u32, height: u32, samples: &[u8]) -> Self {
        Self::of(&format!("rgb {width} x {height}"), samples)
    }

    /// The identity of a strip of frames.
    pub fn of_frames(frames: &[Self], labels: bool) -> Self {
        let ids: Vec<u8> = frames.iter().flat_map(|id| id.0).collect();
        Self::of(if labels { "labelled frames" } else { "frames" }, &ids)
    }

    /// The identity of this picture when it is cut into `grid`.
    pub fn in_tiles(self, grid: TileGrid) -> Self {
        let kind = format!("tiles {} x {}", grid.rows, grid.cols);
        Self::of(&kind, &self.0)
    }

    fn of(kind: &str, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("xc2-edge picture identity 1");
        hasher.update(&(kind.len() as u64).to_le_bytes());
        hasher.update(kind.as_bytes());
        digest::update(&mut hasher, bytes);
        Self(hasher.finalize().into())
    }

    /// The identity as bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The content of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Token(i32),
    /// A row of a picture's embeddings.
    Row {
        picture: PictureId,
        row: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    content: Content,
    plora: bool,
}

/// Everything that decides the keys and values of a sequence, position by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptKey {
    positions: Vec<Position>,
}

impl PromptKey {
    /// The key of a sequence with a mask; `pictures[i]` is the identity of picture `i`.
    ///
    /// # Panics
    /// If mask and sequence differ in length, or a picture has no identity.
    pub fn new(sequence: &Sequence, mask: &PloraMask, pictures: &[PictureId]) -> Self {
        assert_eq!(mask.len(), sequence.len(), "the mask covers the sequence");
        let bits = mask
            .runs()
            .iter()
            .flat_map(|&(n, bit)| std::iter::repeat_n(bit, n));
        let contents = sequence.runs().iter().flat_map(|run| match run {
            Run::Tokens(ids) => ids.iter().map(|id| Content::Token(*id)).collect::<Vec<_>>(),
            Run::Image { index, n_tokens } => {
                let picture = pictures[*index];
                let rows = 0..*n_tokens as u32;
                rows.map(|row| Content::Row { picture, row }).collect()
            }
        });
        let positions = contents
            .zip(bits)
            .map(|(content, plora)| Position { content, plora });
        Self {
            positions: positions.collect(),
        }
    }

    /// Appends a token.
    pub fn push(&mut self, id: i32, plora: bool) {
        let content = Content::Token(id);
        self.positions.push(Position { content, plora });
    }

    /// Appends the positions `from..to` of `other`.
    pub fn extend_from(&mut self, other: &Self, from: usize, to: usize) {
        self.positions.extend_from_slice(&other.positions[from..to]);
    }

    /// Removes the positions from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.positions.truncate(position);
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The length of the common prefix.
    pub fn common_prefix(&self, other: &Self) -> usize {
        let pairs = self.positions.iter().zip(&other.positions);
        pairs.take_while(|(a, b)| a == b).count()
    }

    /// The positions after the last row of each picture.
    pub fn picture_ends(&self) -> Vec<usize> {
        let continues = |at: usize| match (self.positions[at].content, self.positions.get(at + 1)) {
            (Content::Row { row, .. }, Some(next)) => {
                matches!(next.content, Content::Row { row: r, .. } if r == row + 1)
            }
            (Content::Row { .. }, None) => false,
            (Content::Token(_), _) => true,
        };
        let lasts = (0..self.positions.len()).filter(|at| !continues(*at));
        lasts.map(|at| at + 1).collect()
    }

    /// An unambiguous encoding of the first `n` positions: for each its kind, its content and its mask bit.
    pub fn encode(&self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for position in &self.positions[..n] {
            match position.content {
                Content::Token(id) => {
                    bytes.push(0);
                    bytes.extend(id.to_le_bytes());
                }
                Content::Row { picture, row } => {
                    bytes.push(1);
                    bytes.extend(picture.0);
                    bytes.extend(row.to_le_bytes());
                }
            }
            bytes.push(u8::from(position.plora));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::prompt::PloraPolicy;

    fn prompt_key(ids: &[i32], picture: u8, policy: PloraPolicy) -> PromptKey {
        let mut sequence = Sequence::default();
        sequence.push_tokens(&[1, 2]);
        sequence.push_image(0, 3);
        sequence.push_tokens(ids);
        let picture = PictureId::of_file(&[picture]);
        PromptKey::new(&sequence, &sequence.plora_mask(policy), &[picture])
    }

    #[test]
    fn a_common_prefix_ends_where_token_picture_or_mask_differ() {
        let images = PloraPolicy::Images;
        let a = prompt_key(&[3, 4, 5], 0, images);
        assert_eq!(a.len(), 8);
        assert_eq!(a.common_prefix(&a.clone()), 8);
        assert_eq!(a.common_prefix(&prompt_key(&[3, 4], 0, images)), 7);
        assert_eq!(a.common_prefix(&prompt_key(&[3, 5, 5], 0, images)), 6);
        assert_eq!(a.common_prefix(&prompt_key(&[3, 4, 5], 1, images)), 2);
        let nowhere = prompt_key(&[3, 4, 5], 0, PloraPolicy::Nowhere);
        assert_eq!(a.common_prefix(&nowhere), 2);
        assert_eq!(a.common_prefix(&PromptKey::default()), 0);
    }

    #[test]
    fn encodings_are_equal_only_if_prefixes_are() {
        let images = PloraPolicy::Images;
        let (a, b) = (
            prompt_key(&[3, 4], 0, images),
            prompt_key(&[3, 9], 0, images),
        );
        assert_eq!(a.encode(6), b.encode(6));
        assert_ne!(a.encode(7), b.encode(7));
        assert_ne!(a.encode(5), prompt_key(&[3], 1, images).encode(5));
        assert_ne!(
            a.encode(5),
            prompt_key(&[3], 0, PloraPolicy::Nowhere).encode(5)
        );
    }

    #[test]
    fn pictures_end_after_their_last_row() {
        let mut sequence = Sequence::default();
        sequence.push_image(0, 3);
        sequence.push_image(0, 3);
        sequence.push_tokens(&[1, 2]);
        sequence.push_image(1, 2);
        let ids = [PictureId::of_file(b"a"), PictureId::of_file(b"b")];
        let mask = sequence.plora_mask(PloraPolicy::Images);
        assert_eq!(
            PromptKey::new(&sequence, &mask, &ids).picture_ends(),
            [3, 6, 10]
        );
        assert!(PromptKey::default().picture_ends().is_empty());
    }

    #[test]
    fn files_and_pixels_of_equal_bytes_are_different_pictures() {
        assert_ne!(
            PictureId::of_file(b"abc"),
            PictureId::of_pixels(1, 1, b"abc")
        );
        assert_ne!(
            PictureId::of_pixels(1, 2, b"abcdef"),
            PictureId::of_pixels(2, 1, b"abcdef")
        );
    }
}
