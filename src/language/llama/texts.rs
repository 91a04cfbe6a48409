//! Texts tokenized lately: the system text and earlier turns come again with every question.

use std::sync::{Mutex, PoisonError};

/// Bytes of text that are kept: a long conversation.
const MAX_BYTES: usize = 64 << 10;

/// Shorter texts are tokenized sooner than looked for.
const MIN_BYTES: usize = 32;

/// Some texts and their ids; the one used last stands last.
#[derive(Debug, Default)]
pub(super) struct KnownTexts(Mutex<Vec<(String, Vec<i32>)>>);

impl KnownTexts {
    /// The ids of `text`, from `tokenize` if they are not known.
    pub fn ids(&self, text: &str, tokenize: impl FnOnce() -> Vec<i32>) -> Vec<i32> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&text.len()) {
            return tokenize();
        }
        if let Some(ids) = self.get(text) {
            return ids;
        }
        let ids = tokenize();
        self.put(text, &ids);
        ids
    }

    fn get(&self, text: &str) -> Option<Vec<i32>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|(other, _)| other == text)?;
        known[at..].rotate_left(1);
        known.last().map(|(_, ids)| ids.clone())
    }

    fn put(&self, text: &str, ids: &[i32]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| other != text); // another thread may have been faster
        let mut n_bytes = text.len() + known.iter().map(|(text, _)| text.len()).sum::<usize>();
        while n_bytes > MAX_BYTES {
            n_bytes -= known.remove(0).0.len();
        }
        known.push((text.to_owned(), ids.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_used_longest_ago_go_first() {
        let known = KnownTexts::default();
        let text = |i: usize| char::from(b'a' + i as u8).to_string().repeat(MAX_BYTES / 3);
        let is_known = |i: usize| {
            let mut is_known = true;
            let ids = known.ids(&text(i), || {
                is_known = false;
                vec![i as i32]
            });
            assert_eq!(ids, [i as i32]);
            is_known
        };
        assert_eq!([0, 1, 2].map(is_known), [false; 3]);
        assert!(is_known(0)); // 1 is the oldest now
        assert!(!is_known(3));
        assert!(!is_known(1)); // and 2 goes
        assert_eq!([0, 3, 1].map(is_known), [true; 3]);
    }

    #[test]
    fn short_and_huge_texts_are_not_kept() {
        let known = KnownTexts::default();
        for n in [1, MIN_BYTES - 1, MAX_BYTES + 1] {
            known.ids(&"x".repeat(n), || vec![7]);
        }
        assert!(known.0.lock().unwrap().is_empty());
    }
}
