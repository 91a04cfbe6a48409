//! Distributes pictures over several machines.

use std::{path::Path, str::FromStr};

/// Shard `index` of `count`, from 1.
///
/// The BLAKE3 hash of a picture's name determines its shard, not its position in the list. So it stays in its
/// shard when pictures are added, and on every machine, wherever the folder is mounted. Shards have about the
/// same size, not exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// Whether the picture with this name belongs to the shard.
    pub fn has(self, name: &Path) -> bool {
        let hash = blake3::hash(name.as_os_str().as_encoded_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
        u64::from_le_bytes(*first) % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err("expected I/N with I from 1 to N, for example 2/8".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_shard() {
        let shards: Vec<Shard> = (1..=4).map(|i| format!("{i}/4").parse().unwrap()).collect();
        let mut sizes = [0; 4];
        for i in 0..1000 {
            let name = format!("folder/{i}.jpg");
            let owners: Vec<usize> = (0..4).filter(|s| shards[*s].has(name.as_ref())).collect();
            assert_eq!(owners.len(), 1, "{name}");
            sizes[owners[0]] += 1;
        }
        assert!(sizes.iter().all(|n| (200..300).contains(n)), "{sizes:?}");
    }

    #[test]
    fn the_shard_of_a_name_never_changes() {
        // Outputs of earlier runs depend on it.
        let shard: Shard = "2/3".parse().unwrap();
        let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"];
        let own: Vec<_> = names
            .into_iter()
            .filter(|n| shard.has(n.as_ref()))
            .collect();
        assert_eq!(own, ["a.jpg", "c.jpg"]);
    }

    #[test]
    fn invalid_shards_are_errors() {
        for text in ["0/4", "5/4", "1", "1/0", "a/b", "/", "-1/4"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
