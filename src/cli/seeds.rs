//! Parses a range of seeds.

use std::{ops::Range, str::FromStr};

/// Maximum number of seeds in a range.
const MAX_SEEDS: u64 = 1_000_000;

/// `FIRST..END`, END not included.
#[derive(Clone, Debug)]
pub struct Seeds(pub Range<u64>);

impl Seeds {
    /// Number of seeds.
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
                "expected FIRST < END, found {first} and {end} (END is not included)"
            ));
        }
        match range.end - range.start {
            n if n > MAX_SEEDS => Err(format!("expected at most {MAX_SEEDS} seeds, found {n}")),
            _ => Ok(Self(range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_included() {
        let seeds: Seeds = "7..10".parse().unwrap();
        assert_eq!((seeds.0.clone(), seeds.len()), (7..10, 3));
    }

    #[test]
    fn errors_say_what_is_wrong_with_a_range() {
        for (text, naming) in [
            ("7", "expected FIRST..END"),
            ("7-9", "expected FIRST..END"),
            ("a..9", "`a`: invalid digit"),
            ("7..", "``: cannot parse"),
            ("7..=9", "`=9`"),
            ("-1..9", "`-1`"),
            ("9..9", "found 9 and 9"),
            ("10..9", "found 10 and 9"),
            ("0..1000001", "found 1000001"),
        ] {
            let message = text.parse::<Seeds>().unwrap_err();
            assert!(message.contains(naming), "{text}: {message}");
        }
    }
}
