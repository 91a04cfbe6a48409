//! A cache of tokenized texts: the system text and earlier turns recur with every question.

use std::sync::{Mutex, PoisonError};

/// Maximum bytes of cached texts: a long conversation.
const MAX_BYTES: usize = 64 << 10;

/// Shorter texts are not cached: tokenizing them is faster than a lookup.
const MIN_BYTES: usize = 32;

/// An LRU cache of texts and their ids; the most recently used text is last.
#[derive(Debug, Default)]
pub(super) struct TokenCache(Mutex<Vec<(String, Vec<i32>)>>);

impl TokenCache {
    /// The ids of `text`, from `tokenize` if they are not cached.
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
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|(other, _)| other == text)?;
        cache[at..].rotate_left(1);
        cache.last().map(|(_, ids)| ids.clone())
    }

    fn put(&self, text: &str, ids: &[i32]) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(other, _)| other != text); // another thread may have added it
        let mut n_bytes = text.len() + cache.iter().map(|(text, _)| text.len()).sum::<usize>();
        while n_bytes > MAX_BYTES {
            n_bytes -= cache.remove(0).0.len();
        }
        cache.push((text.to_owned(), ids.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_texts_are_evicted() {
        let cache = TokenCache::default();
        let text = |i: usize| char::from(b'a' + i as u8).to_string().repeat(MAX_BYTES / 3);
        let is_cached = |i: usize| {
            let mut is_cached = true;
            let ids = cache.ids(&text(i), || {
                is_cached = false;
                vec![i as i32]
            });
            assert_eq!(ids, [i as i32]);
            is_cached
        };
        assert_eq!([0, 1, 2].map(is_cached), [false; 3]);
        assert!(is_cached(0)); // 1 is the oldest now
        assert!(!is_cached(3));
        assert!(!is_cached(1)); // and evicts 2
        assert_eq!([0, 3, 1].map(is_cached), [true; 3]);
    }

    #[test]
    fn short_and_huge_texts_are_not_cached() {
        let cache = TokenCache::default();
        for n in [1, MIN_BYTES - 1, MAX_BYTES + 1] {
            cache.ids(&"x".repeat(n), || vec![7]);
        }
        assert!(cache.0.lock().unwrap().is_empty());
    }
}
