//! Byte-range edits of a text or file.

use std::ops::Range;

/// Replacements of disjoint ranges. An insertion replaces an empty range; insertions at the same position keep
/// their order.
#[derive(Debug, Default)]
pub struct Edits(Vec<(Range<usize>, Vec<u8>)>);

impl Edits {
    pub fn replace(&mut self, range: Range<usize>, by: impl Into<Vec<u8>>) {
        self.0.push((range, by.into()));
    }

    pub fn insert(&mut self, at: usize, new: impl Into<Vec<u8>>) {
        self.replace(at..at, new);
    }

    pub fn remove(&mut self, range: Range<usize>) {
        self.replace(range, []);
    }

    /// Growth in bytes of the part from `from` on.
    pub fn growth_from(&self, from: usize) -> i64 {
        let later = self.0.iter().filter(|(range, _)| range.start >= from);
        later
            .map(|(range, by)| by.len() as i64 - range.len() as i64)
            .sum()
    }

    /// Applies the edits to `original`.
    pub fn apply(mut self, original: &[u8]) -> Vec<u8> {
        self.0.sort_by_key(|(range, _)| (range.start, range.end));
        let mut edited = Vec::with_capacity(original.len() + 1024);
        let mut at = 0;
        for (range, by) in self.0 {
            debug_assert!(at <= range.start, "edits overlap");
            edited.extend_from_slice(&original[at..range.start]);
            edited.extend_from_slice(&by);
            at = range.end;
        }
        edited.extend_from_slice(&original[at..]);
        edited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unedited_bytes_are_copied() {
        let mut edits = Edits::default();
        edits.remove(4..5);
        edits.replace(0..1, *b"AA");
        edits.insert(2, *b"-");
        edits.insert(2, *b"+");
        assert_eq!(edits.growth_from(0), 2);
        assert_eq!(edits.growth_from(3), -1);
        assert_eq!(edits.apply(b"abcdef"), b"AAb-+cdf");
    }
}
