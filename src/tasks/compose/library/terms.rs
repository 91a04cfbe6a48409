//! The terms of the full-text index.
//!
//! A word of an alphabet is a term (SQLite stems English words). Chinese is written without spaces, so every
//! character and every pair of adjacent characters (bigram) is a term: `红色的` gives `红 色 的 红色 色的`, and
//! the query is `红色 色的`.

/// The terms of a caption, separated by spaces.
pub fn of(caption: &str) -> String {
    let mut terms = Vec::new();
    for run in runs(caption) {
        match run {
            Run::Word(word) => terms.push(word),
            Run::Characters(characters) => {
                terms.extend(characters.iter().map(char::to_string));
                terms.extend(pairs(&characters));
            }
        }
    }
    terms.join(" ")
}

/// A SQLite full-text query that matches any term of `words`, and ranks adjacent pairs of words higher. `None`
/// if there is no term.
pub fn query(words: &str) -> Option<String> {
    let (mut terms, mut previous) = (Vec::new(), None);
    for run in runs(words) {
        let word = match run {
            Run::Word(word) => {
                terms.extend(previous.map(|previous| format!("{previous} {word}")));
                terms.push(word.clone());
                Some(word)
            }
            Run::Characters(characters) => {
                match characters[..] {
                    [one] => terms.push(one.to_string()),
                    _ => terms.extend(pairs(&characters)),
                }
                None
            }
        };
        previous = word;
    }
    terms.sort();
    terms.dedup();
    let quoted: Vec<_> = terms.iter().map(|term| format!("\"{term}\"")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

enum Run {
    Word(String),
    Characters(Vec<char>),
}

fn pairs(characters: &[char]) -> impl Iterator<Item = String> {
    characters.windows(2).map(|pair| pair.iter().collect())
}

/// Runs of letters and digits of one kind of script, in lower case; all other characters separate.
fn runs(text: &str) -> Vec<Run> {
    let mut runs = Vec::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        // An empty word marks a separator.
        match (runs.last_mut(), c.is_alphanumeric(), is_ideographic(c)) {
            (Some(Run::Word(word)), false, _) if word.is_empty() => {}
            (_, false, _) => runs.push(Run::Word(String::new())),
            (Some(Run::Characters(characters)), true, true) => characters.push(c),
            (Some(Run::Word(word)), true, false) => word.push(c),
            (_, true, true) => runs.push(Run::Characters(vec![c])),
            (_, true, false) => runs.push(Run::Word(c.to_string())),
        }
    }
    runs.retain(|run| !matches!(run, Run::Word(word) if word.is_empty()));
    runs
}

/// Whether the script of `c` has no spaces between words.
fn is_ideographic(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}'   // Hiragana, Katakana
        | '\u{3400}'..='\u{9fff}' // Chinese
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_is_split_into_bigrams() {
        assert_eq!(of("A red 圆形, No.7"), "a red 圆 形 圆形 no 7");
        assert_eq!(of("红色的"), "红 色 的 红色 色的");
        assert_eq!(query("红色的").unwrap(), r#""红色" OR "色的""#);
        assert_eq!(query("红 ab").unwrap(), r#""ab" OR "红""#);
        assert_eq!(of("3D图7"), "3d 图 7");
    }

    #[test]
    fn adjacent_words_are_also_searched_as_a_phrase() {
        assert_eq!(
            query("red circle").unwrap(),
            r#""circle" OR "red" OR "red circle""#
        );
        assert_eq!(
            query("red 图 circle").unwrap(),
            r#""circle" OR "red" OR "图""#
        );
    }

    #[test]
    fn query_operators_in_the_input_are_ordinary_words() {
        let query = query("\"a\" OR b*").unwrap();
        assert_eq!(query, r#""a" OR "a or" OR "b" OR "or" OR "or b""#);
        assert_eq!(super::query(" -- \"\" * "), None);
    }
}
