//! Parsers of numeric arguments; their errors state the expected range.

use std::ops::{Bound, RangeBounds};

/// A parser of whole numbers in `range`.
pub fn whole<T: TryFrom<u64>>(
    range: impl RangeBounds<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    let least = match range.start_bound() {
        Bound::Included(least) => *least,
        Bound::Excluded(below) => below + 1,
        Bound::Unbounded => 0,
    };
    let most = match range.end_bound() {
        Bound::Included(most) => Some(*most),
        Bound::Excluded(above) => Some(above - 1),
        Bound::Unbounded => None,
    };
    move |text| {
        let number = text.parse().ok();
        let number = number.filter(|n| least <= *n && most.is_none_or(|most| *n <= most));
        let number = number.and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| match most {
            Some(most) => format!("expected a whole number, {least} to {most}"),
            None => format!("expected a whole number, {least} or more"),
        })
    }
}

/// Parses a finite number for which `ok` holds; the error says what is `expected`.
pub fn real(text: &str, expected: &str, ok: impl Fn(f32) -> bool) -> Result<f32, String> {
    let value = text.parse().ok().filter(|v: &f32| v.is_finite() && ok(*v));
    value.ok_or_else(|| format!("expected a number, {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_both_ends_and_errors_state_them() {
        let threads = whole::<u16>(1..=512);
        assert_eq!(
            ["1", "512"].map(&threads),
            [Ok(1), Ok(512)],
            "both ends are included"
        );
        for text in ["0", "513", "-1", "1.5", "", "many"] {
            let expected = Err("expected a whole number, 1 to 512".to_owned());
            assert_eq!(threads(text), expected, "{text}");
        }
        let count = whole::<usize>(1..);
        assert_eq!(count("7"), Ok(7));
        assert_eq!(
            count("0").unwrap_err(),
            "expected a whole number, 1 or more"
        );
        assert_eq!(
            whole::<u8>(..3)("3").unwrap_err(),
            "expected a whole number, 0 to 2"
        );
        assert!(whole::<u8>(..)("256").is_err(), "it must fit the type");
    }
}
