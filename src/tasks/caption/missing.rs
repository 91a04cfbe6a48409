//! Words by which programs say that a cell of a table has no value.
//!
//! A table has no `null`. pandas and R write a word in its place, and pandas reads all of these as missing.

const WORDS: [&str; 20] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null",
];

/// Whether a text says that there is no value, spaces around it aside.
pub fn is_missing(text: &str) -> bool {
    WORDS.contains(&text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_nothing_are_known_and_others_are_words() {
        for word in ["", " ", "NaN", "nan", "NA", "None", "<NA>", " NULL ", "NaT"] {
            assert!(is_missing(word), "{word:?}");
        }
        for word in ["none of them", "Nan", "NAN bread", "0", "-", "{caption}"] {
            assert!(!is_missing(word), "{word:?}");
        }
    }
}
