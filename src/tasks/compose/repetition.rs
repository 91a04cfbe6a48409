//! A text that goes round in circles.

/// Copies of a passage, one after another, that make a circle.
const COPIES: usize = 4;
/// Characters that the copies take together, at least: `……` and a row of dashes are no circle.
const LEAST: usize = 96;
/// Characters of the longest passage that is looked for.
const LONGEST: usize = 320;

/// Watches a text for circles: the text ends with the same passage of up to 320 characters four
/// times or more, together at least 96 characters long.
#[derive(Debug, Default)]
pub struct Repetition {
    text: Vec<char>,
}

impl Repetition {
    /// Takes more text. Once it goes in circles, returns how many bytes of all the text stand
    /// before the second copy.
    pub fn push(&mut self, more: &str) -> Option<usize> {
        more.chars().find_map(|c| {
            self.text.push(c);
            self.circle()
        })
    }

    fn circle(&self) -> Option<usize> {
        let n = self.text.len();
        let goes_round = |period: &usize| {
            let length = (COPIES * period).max(LEAST);
            length <= n && (n - length + period..n).all(|i| self.text[i] == self.text[i - period])
        };
        let period = (1..=LONGEST).find(goes_round)?;
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

    /// How much of `text` is kept when it is told in pieces.
    fn kept(text: &str) -> Option<&str> {
        let mut repetition = Repetition::default();
        let characters: Vec<String> = text.chars().map(String::from).collect();
        let bytes = characters
            .chunks(3)
            .find_map(|piece| repetition.push(&piece.concat()));
        bytes.map(|n| &text[..n])
    }

    #[test]
    fn one_copy_of_a_circle_is_kept() {
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
    fn what_only_looks_like_a_circle_is_left_alone() {
        assert_eq!(kept(&format!("{}\n| a | b |", "-".repeat(80))), None);
        assert_eq!(kept("He said no, no, no, no, no, and no."), None);
        let verse = "A red star is to the left of it. And then, ".repeat(3);
        assert_eq!(kept(&verse), None);
        let counted: String = (0..200).map(|n| format!("{n}. It is a star. ")).collect();
        assert_eq!(kept(&counted), None);
    }

    #[test]
    fn a_prefix_of_the_circle_before_it_is_not_kept_twice() {
        // The text may enter the circle in the middle of the passage.
        let text = format!("x{}", "abcdefgh".repeat(20));
        assert_eq!(kept(&text), Some("xabcdefgh"));
    }
}
