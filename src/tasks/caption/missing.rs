//! Words that mark a missing value in a table.
//!
//! A table has no `null`. pandas and R write a word instead; pandas reads all of these as missing.

const WORDS: [&str; 20] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null",
];

/// Whether a text marks a missing value; surrounding spaces are ignored.
pub fn is_missing(text: &str) -> bool {
    WORDS.contains(&text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_missing_values_are_told_from_other_words() {
        for word in ["", " ", "NaN", "nan", "NA", "None", "<NA>", " NULL ", "NaT"] {
            assert!(is_missing(word), "{word:?}");
        }
        for word in ["none of them", "Nan", "NAN bread", "0", "-", "{caption}"] {
            assert!(!is_missing(word), "{word:?}");
        }
    }
}
