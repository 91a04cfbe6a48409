//! A share of the pictures, for one of several machines.

use std::{path::Path, str::FromStr};

/// The `index`-th of `count` shares, from 1.
///
/// A picture belongs to a share by the BLAKE3 hash of its name, not by its place in the list: it
/// stays there when others are added, on every machine, wherever the folder is mounted. Shares are
/// about as large as each other, not exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// Whether this share has the picture of that name.
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
    fn every_name_is_in_one_share() {
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
    fn a_name_stays_where_it_is() {
        // Files of earlier runs rely on it.
        let shard: Shard = "2/3".parse().unwrap();
        let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"];
        let own: Vec<_> = names
            .into_iter()
            .filter(|n| shard.has(n.as_ref()))
            .collect();
        assert_eq!(own, ["a.jpg", "c.jpg"]);
    }

    #[test]
    fn what_is_no_share_is_told() {
        for text in ["0/4", "5/4", "1", "1/0", "a/b", "/", "-1/4"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
