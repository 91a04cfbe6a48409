//! A folder that is looked through again and again, where the system does not say what happens in it.

use std::{collections::HashMap, path::PathBuf};

use crate::tasks::caption::Identity;

/// The pictures of a folder as they were when it was last looked through.
#[derive(Debug, Default)]
pub struct Polled {
    known: HashMap<PathBuf, Known>,
    /// How often it was looked through.
    round: usize,
}

#[derive(Debug)]
struct Known {
    identity: Identity,
    is_taken: bool,
    round: usize,
}

impl Polled {
    /// Looks at what is there now: the pictures that are whole and were not taken as they are, by name.
    /// In the first round every picture is taken for whole, later one that did not change from one round
    /// to the next.
    pub fn look(&mut self, pictures: Vec<(PathBuf, Identity)>) -> Vec<PathBuf> {
        self.round += 1;
        let round = self.round;
        let mut ready = Vec::new();
        for (path, identity) in pictures {
            let known = self.known.get(&path);
            let is_same = known.is_some_and(|known| known.identity == identity);
            let was_taken = known.is_some_and(|known| known.is_taken);
            let is_whole = is_same || round == 1;
            if is_whole && !(is_same && was_taken) {
                ready.push(path.clone());
            }
            let is_taken = is_whole;
            let now = Known {
                identity,
                is_taken,
                round,
            };
            self.known.insert(path, now);
        }
        self.known.retain(|_, known| known.round == round);
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_taken_once_it_stays_as_it_is() {
        let picture = |name: &str, size| {
            let identity = Identity {
                size,
                modified: None,
            };
            (PathBuf::from(name), identity)
        };
        let mut polled = Polled::default();
        let mut look = |pictures: &[(&str, u64)]| {
            let pictures = pictures.iter().map(|(name, size)| picture(name, *size));
            let ready = polled.look(pictures.collect());
            ready
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(look(&[("a", 1)]), ["a"]); // there before
        assert!(look(&[("a", 1), ("b", 1)]).is_empty());
        assert!(look(&[("a", 1), ("b", 2)]).is_empty()); // still being written
        assert_eq!(look(&[("a", 1), ("b", 2)]), ["b"]);
        assert!(look(&[("a", 2), ("b", 2)]).is_empty());
        assert_eq!(look(&[("a", 2), ("b", 2)]), ["a"]); // changed
        assert!(look(&[("a", 2)]).is_empty());
        assert!(look(&[("a", 2), ("b", 2)]).is_empty()); // back again
        assert_eq!(look(&[("a", 2), ("b", 2)]), ["b"]);
    }
}
