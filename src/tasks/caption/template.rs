//! What stands around a caption.

use std::str::FromStr;

/// The words for the caption itself.
const PLACE: &str = "{caption}";

/// Text with a place for the caption: `a photo of sks, {caption}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// The caption with what stands around it.
    pub fn apply(&self, caption: &str) -> String {
        self.0.replace(PLACE, caption)
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.matches(PLACE).count() {
            1 => Ok(Self(text.to_owned())),
            n => Err(format!("expected `{PLACE}` once, found it {n} times")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caption_stands_at_its_place_as_it_is() {
        let template: Template = "sks, {caption}, {best} quality".parse().unwrap();
        assert_eq!(
            template.apply("{caption} a cat"),
            "sks, {caption} a cat, {best} quality"
        );
    }

    #[test]
    fn a_template_without_a_place_is_refused() {
        for (text, naming) in [("a photo", "0 times"), ("{caption} {caption}", "2 times")] {
            let message = text.parse::<Template>().unwrap_err();
            assert!(message.contains(naming), "{message}");
        }
    }
}
