//! Detects text that repeats itself endlessly.

/// Number of consecutive copies of a passage that make a loop.
const COPIES: usize = 4;
/// Minimum number of characters of all copies together: `……` and a row of dashes are not a loop.
const MIN_CHARACTERS: usize = 96;
/// Maximum number of characters of the passage.
const MAX_PERIOD: usize = 320;

/// Detects a loop in generated text: the text ends with four or more copies of a passage of up to 320
/// characters, together at least 96 characters long.
#[derive(Debug, Default)]
pub struct Repetition {
    text: Vec<char>,
}

impl Repetition {
    /// Appends text. Once it loops, returns the number of bytes of all text before the second copy.
    pub fn push(&mut self, more: &str) -> Option<usize> {
        more.chars().find_map(|c| {
            self.text.push(c);
            self.find_loop()
        })
    }

    fn find_loop(&self) -> Option<usize> {
        let n = self.text.len();
        let repeats = |period: &usize| {
            let length = (COPIES * period).max(MIN_CHARACTERS);
            length <= n && (n - length + period..n).all(|i| self.text[i] == self.text[i - period])
        };
        let period = (1..=MAX_PERIOD).find(repeats)?;
        let mut begin = n - period;
        while begin > 0 && self.text[begin - 1] == self.text[begin - 1 + period] {
            begin -= 1;
        }
        let kept = &self.text[..begin + period];
        Some(kept.iter().map(|c| c.len_utf8()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of `text` is kept if it arrives in pieces.
    fn kept(text: &str) -> Option<&str> {
        let mut repetition = Repetition::default();
        let characters: Vec<String> = text.chars().map(String::from).collect();
        let bytes = characters
            .chunks(3)
            .find_map(|piece| repetition.push(&piece.concat()));
        bytes.map(|n| &text[..n])
    }

    #[test]
    fn one_copy_of_a_loop_is_kept() {
        let sentence = "A red star is to the left of it. ";
        let text = format!("Once.\n{}", sentence.repeat(9));
        assert_eq!(kept(&text), Some(&text[.."Once.\n".len() + sentence.len()]));
        assert_eq!(kept(&"看".repeat(200)), Some("看"));
        let paragraph: String = ('a'..='z')
            .cycle()
            .step_by(7)
            .take(25)
            .chain(['\n'])
            .collect();
        assert!(kept(&paragraph.repeat(4)).is_some());
    }

    #[test]
    fn short_or_changing_repetitions_are_not_loops() {
        assert_eq!(kept(&format!("{}\n| a | b |", "-".repeat(80))), None);
        assert_eq!(kept("He said no, no, no, no, no, and no."), None);
        let verse = "A red star is to the left of it. And then, ".repeat(3);
        assert_eq!(kept(&verse), None);
        let counted: String = (0..200).map(|n| format!("{n}. It is a star. ")).collect();
        assert_eq!(kept(&counted), None);
    }

    #[test]
    fn a_loop_may_start_in_the_middle_of_the_passage() {
        let text = format!("x{}", "abcdefgh".repeat(20));
        assert_eq!(kept(&text), Some("xabcdefgh"));
    }
}
