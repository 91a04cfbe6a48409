//! Templates for captions.

use std::str::FromStr;

/// The placeholder for the caption.
const PLACEHOLDER: &str = "{caption}";

/// Text with a placeholder for the caption: `a photo of sks, {caption}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Inserts the caption.
    pub fn apply(&self, caption: &str) -> String {
        self.0.replace(PLACEHOLDER, caption)
    }

    /// The template as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.matches(PLACEHOLDER).count() {
            1 => Ok(Self(text.to_owned())),
            n => Err(format!("expected `{PLACEHOLDER}` once, found it {n} times")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caption_is_inserted_verbatim() {
        let template: Template = "sks, {caption}, {best} quality".parse().unwrap();
        assert_eq!(
            template.apply("{caption} a cat"),
            "sks, {caption} a cat, {best} quality"
        );
    }

    #[test]
    fn a_template_needs_exactly_one_placeholder() {
        for (text, naming) in [("a photo", "0 times"), ("{caption} {caption}", "2 times")] {
            let message = text.parse::<Template>().unwrap_err();
            assert!(message.contains(naming), "{message}");
        }
    }
}
