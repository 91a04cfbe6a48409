//! The text of a prompt with pictures between the words.

use std::fmt::{self, Display, Formatter};

/// Text, or the index of a picture in the composer's list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Picture(usize),
}

/// Text with pictures in it. `Display` writes a picture as `<image>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    parts: Vec<Part>,
}

impl Body {
    /// Appends text. A picture marker in it stays text.
    pub fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// Appends a picture.
    pub fn push_picture(&mut self, picture: usize) {
        self.parts.push(Part::Picture(picture));
    }

    /// Appends all of `other`.
    pub fn push(&mut self, other: &Self) {
        for part in &other.parts {
            match part {
                Part::Text(text) => self.push_text(text),
                Part::Picture(picture) => self.push_picture(*picture),
            }
        }
    }

    /// The pictures, in order.
    pub fn pictures(&self) -> Vec<usize> {
        let picture = |part: &Part| match part {
            Part::Picture(picture) => Some(*picture),
            Part::Text(_) => None,
        };
        self.parts.iter().filter_map(picture).collect()
    }

    /// The query for a model whose prompts mark pictures with `marker`. A marker inside the text loses its
    /// angle brackets, so that it stays text.
    pub fn query(&self, marker: &str) -> String {
        let bare = marker.trim_matches(['<', '>']);
        let show = |part: &Part| match part {
            Part::Text(text) if bare != marker => text.replace(marker, bare),
            Part::Text(text) => text.replace(marker, ""),
            Part::Picture(_) => marker.to_owned(),
        };
        self.parts.iter().map(show).collect()
    }
}

impl Display for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Picture(_) => f.write_str("<image>"),
        })
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        let mut body = Self::default();
        body.push_text(text);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_markers_stay_text() {
        let mut body = Body::from("a <ImageHere> and <image> ");
        body.push_picture(4);
        assert_eq!(
            body.query("<ImageHere>"),
            "a ImageHere and <image> <ImageHere>"
        );
        assert_eq!(body.pictures(), [4]);
        assert_eq!(body.query("@"), "a <ImageHere> and <image> @");
        assert_eq!(Body::from("a@b").query("@"), "ab");
    }
}
