//! What stands at each position of a sequence, so that two sequences can be compared.
//!
//! The keys and values of a position depend on everything up to it and on nothing after it, so two
//! sequences with a common prefix share its part of the KV cache. Ids tell tokens apart, digests
//! pictures; the mask bit belongs to it, because the adapter changes keys and values.

use super::{PloraMask, Run, Sequence};
use crate::system::digest;

/// Tells pictures apart by their content: those of equal identity have equal embeddings, as long as
/// tower and preprocessing are the same.
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

/// What stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Token(i32),
    /// A row of a picture's embeddings.
    Row {
        picture: PictureId,
        row: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    what: What,
    plora: bool,
}

/// What decides the keys and values of a sequence, position by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptKey {
    places: Vec<Place>,
}

impl PromptKey {
    /// The trace of a sequence under a mask; `pictures[i]` is the identity of picture `i`.
    ///
    /// # Panics
    /// If the mask has another length, or a picture has no identity.
    pub fn new(sequence: &Sequence, mask: &PloraMask, pictures: &[PictureId]) -> Self {
        assert_eq!(mask.len(), sequence.len(), "the mask covers the sequence");
        let bits = mask
            .runs()
            .iter()
            .flat_map(|&(n, bit)| std::iter::repeat_n(bit, n));
        let whats = sequence.runs().iter().flat_map(|run| match run {
            Run::Tokens(ids) => ids.iter().map(|id| What::Token(*id)).collect::<Vec<_>>(),
            Run::Image { index, n_tokens } => {
                let picture = pictures[*index];
                let rows = 0..*n_tokens as u32;
                rows.map(|row| What::Row { picture, row }).collect()
            }
        });
        let places = whats.zip(bits).map(|(what, plora)| Place { what, plora });
        Self {
            places: places.collect(),
        }
    }

    /// Appends a token.
    pub fn push(&mut self, id: i32, plora: bool) {
        let what = What::Token(id);
        self.places.push(Place { what, plora });
    }

    /// Appends the positions `from..to` of `other`.
    pub fn extend_from(&mut self, other: &Self, from: usize, to: usize) {
        self.places.extend_from_slice(&other.places[from..to]);
    }

    /// Forgets everything from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.places.truncate(position);
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many positions from the begin on are the same in both.
    pub fn common_prefix(&self, other: &Self) -> usize {
        let pairs = self.places.iter().zip(&other.places);
        pairs.take_while(|(a, b)| a == b).count()
    }

    /// The positions after the last row of each picture.
    pub fn picture_ends(&self) -> Vec<usize> {
        let goes_on = |at: usize| match (self.places[at].what, self.places.get(at + 1)) {
            (What::Row { row, .. }, Some(next)) => {
                matches!(next.what, What::Row { row: r, .. } if r == row + 1)
            }
            (What::Row { .. }, None) => false,
            (What::Token(_), _) => true,
        };
        let lasts = (0..self.places.len()).filter(|at| !goes_on(*at));
        lasts.map(|at| at + 1).collect()
    }

    /// The first `n` positions as bytes, which are the same just if the positions are: for each
    /// position its kind, what stands there and its mask bit.
    pub fn encode(&self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for place in &self.places[..n] {
            match place.what {
                What::Token(id) => {
                    bytes.push(0);
                    bytes.extend(id.to_le_bytes());
                }
                What::Row { picture, row } => {
                    bytes.push(1);
                    bytes.extend(picture.0);
                    bytes.extend(row.to_le_bytes());
                }
            }
            bytes.push(u8::from(place.plora));
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
    fn traces_part_where_token_picture_or_mask_differs() {
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
    fn bytes_are_equal_just_where_prefixes_are() {
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
    fn files_and_pixels_of_equal_bytes_are_not_the_same_picture() {
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
