//! The recorded size and time of a picture, possibly reformatted by a spreadsheet.
//!
//! Rounded values are compared with their remaining precision. A time in an unknown format is ignored, and the
//! size decides. Otherwise opening the records in a spreadsheet would cause pictures to be captioned again, and
//! captions edited by users to be replaced.

use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::{Identity, missing::is_missing};

/// The recorded [`Identity`] of a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fingerprint {
    /// Bytes; a range if the number was rounded, `None` if unknown.
    size: Option<RangeInclusive<u64>>,
    modified: Option<RecordedTime>,
}

/// A time with its precision.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RecordedTime {
    at: Timestamp,
    /// The precision in nanoseconds.
    unit: i64,
}

impl Fingerprint {
    /// Parses two fields of a record.
    ///
    /// # Errors
    /// If `size` is present but not a number: the fields may be in the wrong columns.
    pub fn new(size: Option<&str>, modified: Option<&str>) -> Result<Self, String> {
        let size = match size.filter(|text| !is_missing(text)) {
            Some(text) => Some(parse_size(text.trim()).ok_or_else(|| text.to_owned())?),
            None => None,
        };
        let modified = modified.and_then(|text| parse_time(text.trim()));
        Ok(Self { size, modified })
    }

    /// Whether the picture with the identity `now` can be the recorded one.
    pub fn matches(&self, now: Identity) -> bool {
        let is_size = |size: &RangeInclusive<u64>| size.contains(&now.size);
        let is_time = |time: RecordedTime| now.modified.is_none_or(|now| time.is(now));
        self.size.as_ref().is_none_or(is_size) && self.modified.is_none_or(is_time)
    }
}

impl From<Identity> for Fingerprint {
    fn from(identity: Identity) -> Self {
        let exact = |at| RecordedTime { at, unit: 1 };
        Self {
            size: Some(identity.size..=identity.size),
            modified: identity.modified.map(exact),
        }
    }
}

impl RecordedTime {
    fn is(&self, time: Timestamp) -> bool {
        (time.as_nanosecond() - self.at.as_nanosecond()).abs() < i128::from(self.unit)
    }
}

/// Bytes of a file: `183204`, `183204.0` (pandas), `1.83E+05`, `183,204`, `183.204` or `183 204` (spreadsheets).
fn parse_size(text: &str) -> Option<RangeInclusive<u64>> {
    if let Some(grouped) = remove_separators(text) {
        return grouped.parse().ok().map(|size: u64| size..=size);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let mantissa = mantissa.replace(',', ".");
    if !mantissa.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let value: f64 = mantissa.parse::<f64>().ok()? * 10_f64.powi(exponent);
    let n_decimals = mantissa
        .split_once('.')
        .map_or(0, |(_, decimals)| decimals.len());
    // Half a unit of the last digit.
    let spread = 10_f64.powi(exponent.checked_sub(i32::try_from(n_decimals).ok()?)?) / 2.0;
    let is_whole = exponent == 0 && value.fract() == 0.0;
    let spread = if is_whole { 0.0 } else { spread };
    (value < u64::MAX as f64)
        .then(|| (value - spread).floor() as u64..=(value + spread).ceil() as u64)
}

/// The digits of an integer, without separators between groups of three.
fn remove_separators(text: &str) -> Option<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    let separator = text.chars().find(|c| !c.is_ascii_digit())?;
    let is_known = [',', '.', ' ', '\'', '’', '_', '\u{a0}', '\u{202f}'].contains(&separator);
    let mut groups = text.split(separator);
    let is_group = |group: &str, lens: RangeInclusive<usize>| {
        lens.contains(&group.len()) && group.bytes().all(|b| b.is_ascii_digit())
    };
    let is_first = groups.next().is_some_and(|group| is_group(group, 1..=3));
    let is_grouped = is_known && is_first && groups.all(|group| is_group(group, 3..=3));
    is_grouped.then(|| text.replace(separator, ""))
}

/// Parses a time in ISO 8601 with an offset, or a Unix time in seconds, milli-, micro- or nanoseconds. Other
/// formats have no time zone, or an unknown order of day and month.
fn parse_time(text: &str) -> Option<RecordedTime> {
    if let Ok(at) = text.parse() {
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        let n_digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let unit = 10_i64.pow(9 - n_digits.min(9) as u32);
        return Some(RecordedTime { at, unit });
    }
    let count: f64 = text.parse().ok()?;
    let unit = match count {
        1e8..1e11 => 1_000_000_000, // smaller numbers are days, as in spreadsheets
        1e11..1e14 => 1_000_000,
        1e14..1e17 => 1000,
        1e17..9e18 => 1,
        _ => return None,
    };
    let nanoseconds = match text.parse::<i128>() {
        Ok(count) => count.checked_mul(i128::from(unit))?,
        Err(_) => (count * unit as f64) as i128,
    };
    let is_whole = text.bytes().all(|b| b.is_ascii_digit());
    // The precision of a float, about a microsecond for current dates.
    let unit = if is_whole { unit } else { 2000 };
    let at = Timestamp::from_nanosecond(nanoseconds).ok()?;
    Some(RecordedTime { at, unit })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tasks::caption::Fields;

    fn fingerprint(size: Value, modified: Value) -> Fingerprint {
        Fingerprint::new(text(&size).as_deref(), text(&modified).as_deref()).unwrap()
    }

    fn text(value: &Value) -> Option<String> {
        let line = json!({ "field": value }).to_string();
        serde_json::from_str::<Fields>(&line).unwrap().text("field")
    }

    fn now(size: u64) -> Identity {
        Identity {
            size,
            modified: Some("2026-05-01T10:02:11.678901234Z".parse().unwrap()),
        }
    }

    #[test]
    fn reformatted_sizes_and_times_match() {
        for size in [
            json!(183_204),
            json!(183_204.0),
            json!("183204"),
            json!("183,204"),
            json!("183.204"),
            json!("183 204"),
            json!("183\u{a0}204"),
            json!("183'204"),
            json!("1.83E+05"),
            json!("1,83E+05"),
            json!("1.83204e5"),
            json!("183204,0"),
            json!(""),
            json!("NaN"),
            json!(null),
        ] {
            assert!(
                fingerprint(size.clone(), json!(null)).matches(now(183_204)),
                "{size}"
            );
            let is_unknown = [json!(""), json!("NaN"), json!(null)].contains(&size);
            assert_eq!(
                fingerprint(size.clone(), json!(null)).matches(now(190_000)),
                is_unknown,
                "{size}"
            );
        }
        for modified in [
            json!("2026-05-01T10:02:11.678901234Z"),
            json!("2026-05-01T10:02:11.678Z"),
            json!("2026-05-01 10:02:11.678901+00:00"),
            json!("2026-05-01T12:02:11+02:00"),
            json!(1_777_629_731_678_u64),
            json!(1_777_629_731_u64),
            json!(1_777_629_731.678_901),
            json!(1_777_629_731_678_901_234_u64),
            json!("1777629731678"),
            json!("01.05.2026 10:02"),
            json!("5/1/2026 10:02"),
            json!("2026-05-01T10:02:11.678"),
            json!("46143.418"),
            json!("NaT"),
            json!("NaN"),
            json!(true),
            json!(null),
        ] {
            assert!(
                fingerprint(json!(5), modified.clone()).matches(now(5)),
                "{modified}"
            );
        }
    }

    #[test]
    fn a_changed_picture_does_not_match() {
        for modified in [
            json!("2026-05-01T10:02:11.678901233Z"),
            json!("2026-05-01T10:02:11.677Z"),
            json!("2026-05-01T10:02:10Z"),
            json!(1_777_629_731_676_u64),
            json!(1_777_629_729_u64),
        ] {
            assert!(
                !fingerprint(json!(5), modified.clone()).matches(now(5)),
                "{modified}"
            );
        }
        assert!(!Fingerprint::from(now(6)).matches(now(5)));
        assert!(Fingerprint::from(now(5)).matches(now(5)));
    }

    #[test]
    fn invalid_sizes_are_errors() {
        for size in [
            json!("2026-05-01T10:02:11Z"),
            json!("many"),
            json!(-1),
            json!("184 kB"),
            json!("1.5e-2147483648"),
            json!([1]),
        ] {
            assert!(
                Fingerprint::new(text(&size).as_deref(), None).is_err(),
                "{size}"
            );
        }
    }
}
