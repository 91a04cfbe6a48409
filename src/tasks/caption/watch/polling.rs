//! Finds new pictures by repeated scans, if the system does not report events.

use std::{collections::HashMap, path::PathBuf};

use crate::tasks::caption::Identity;

/// The pictures of a folder at the last scan.
#[derive(Debug, Default)]
pub struct PolledFolder {
    known: HashMap<PathBuf, Known>,
    /// Number of scans.
    round: usize,
}

#[derive(Debug)]
struct Known {
    identity: Identity,
    is_reported: bool,
    round: usize,
}

impl PolledFolder {
    /// Takes the result of a scan and returns the complete pictures that are new or changed. In the first scan
    /// every picture counts as complete, later those that did not change since the previous scan.
    pub fn update(&mut self, pictures: Vec<(PathBuf, Identity)>) -> Vec<PathBuf> {
        self.round += 1;
        let round = self.round;
        let mut ready = Vec::new();
        for (path, identity) in pictures {
            let known = self.known.get(&path);
            let is_same = known.is_some_and(|known| known.identity == identity);
            let was_reported = known.is_some_and(|known| known.is_reported);
            let is_whole = is_same || round == 1;
            if is_whole && !(is_same && was_reported) {
                ready.push(path.clone());
            }
            let is_reported = is_whole;
            let now = Known {
                identity,
                is_reported,
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
    fn a_picture_is_reported_once_it_stops_changing() {
        let picture = |name: &str, size| {
            let identity = Identity {
                size,
                modified: None,
            };
            (PathBuf::from(name), identity)
        };
        let mut folder = PolledFolder::default();
        let mut update = |pictures: &[(&str, u64)]| {
            let pictures = pictures.iter().map(|(name, size)| picture(name, *size));
            let ready = folder.update(pictures.collect());
            ready
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(update(&[("a", 1)]), ["a"]); // existed before
        assert!(update(&[("a", 1), ("b", 1)]).is_empty());
        assert!(update(&[("a", 1), ("b", 2)]).is_empty()); // still being written
        assert_eq!(update(&[("a", 1), ("b", 2)]), ["b"]);
        assert!(update(&[("a", 2), ("b", 2)]).is_empty());
        assert_eq!(update(&[("a", 2), ("b", 2)]), ["a"]); // changed
        assert!(update(&[("a", 2)]).is_empty());
        assert!(update(&[("a", 2), ("b", 2)]).is_empty()); // back again
        assert_eq!(update(&[("a", 2), ("b", 2)]), ["b"]);
    }
}
