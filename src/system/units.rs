//! Human-readable sizes in bytes.

/// Parses a size: `1.9GB`, `500 MB`, `2GiB`, or a plain number of bytes.
///
/// # Errors
/// If the text is not a size.
pub fn parse(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 7] = [
        ("GiB", 1073741824.0),
        ("MiB", 1048576.0),
        ("GB", 1e9),
        ("MB", 1e6),
        ("G", 1e9),
        ("M", 1e6),
        ("B", 1.0),
    ];
    let text = text.trim();
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, size) = unit.map_or((text, 1.0), |(unit, size)| {
        (text.trim_end_matches(unit).trim_end(), *size)
    });
    let number = number
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n >= 0.0);
    let bytes = number.map(|n| (n * size) as u64);
    bytes.ok_or_else(|| "expected a size, for example 1.5GB or 800MB".to_owned())
}

/// Formats a size: `1.9 GB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let bytes = bytes as f64;
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes / size),
        None => format!("{bytes:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_formatted() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(2_048), "2.0 kB");
        assert_eq!(human(1_234_567_890), "1.2 GB");
    }

    #[test]
    fn sizes_are_parsed() {
        for (text, bytes) in [
            ("1.5GB", 1_500_000_000),
            ("800 MB", 800_000_000),
            ("2GiB", 2 << 30),
            ("3G", 3_000_000_000),
            ("512", 512),
            ("64B", 64),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1GB", "much", "1.5XB", "infGB"] {
            assert!(parse(text).unwrap_err().contains("1.5GB"), "{text}");
        }
    }
}
