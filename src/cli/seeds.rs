//! A range of seeds, as typed.

use std::{ops::Range, str::FromStr};

/// The most seeds of one range.
const MOST: u64 = 1_000_000;

/// `FIRST..END`, END not included.
#[derive(Clone, Debug)]
pub struct Seeds(pub Range<u64>);

impl Seeds {
    /// How many there are.
    pub fn len(&self) -> usize {
        (self.0.end - self.0.start) as usize
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected FIRST..END, for example 0..100 for the seeds 0 to 99";
        let (first, end) = text.split_once("..").ok_or(EXPECTED)?;
        let number = |text: &str| {
            let found = |e| format!("{EXPECTED}; `{text}`: {e}");
            text.parse::<u64>().map_err(found)
        };
        let range = number(first)?..number(end)?;
        if range.is_empty() {
            return Err(format!(
                "there is no seed from {first} up to, but not, {end}"
            ));
        }
        match range.end - range.start {
            n if n > MOST => Err(format!("{n} seeds; expected at most {MOST}")),
            _ => Ok(Self(range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_before_their_end() {
        let seeds: Seeds = "7..10".parse().unwrap();
        assert_eq!((seeds.0.clone(), seeds.len()), (7..10, 3));
    }

    #[test]
    fn what_is_no_range_is_told() {
        for (text, naming) in [
            ("7", "expected FIRST..END"),
            ("7-9", "expected FIRST..END"),
            ("a..9", "`a`: invalid digit"),
            ("7..", "``: cannot parse"),
            ("7..=9", "`=9`"),
            ("-1..9", "`-1`"),
            ("9..9", "no seed from 9"),
            ("10..9", "no seed from 10"),
            ("0..1000001", "1000001 seeds"),
        ] {
            let message = text.parse::<Seeds>().unwrap_err();
            assert!(message.contains(naming), "{text}: {message}");
        }
    }
}
