//! A text template with placeholders: `给定文章"{article}"`.

use serde::Deserialize;

use super::body::Body;

/// A text template with named placeholders and picture markers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{name}`
    Placeholder(String),
    /// `<image>`
    Picture,
}

impl Pattern {
    /// Fills the placeholders from `values` and the picture markers from `pictures`, in order.
    ///
    /// # Panics
    /// If a placeholder has no value: [`Self::placeholders`] are checked when prompts are loaded.
    pub fn fill(&self, values: &[(&str, &Body)], pictures: &[usize]) -> Body {
        let mut body = Body::default();
        let mut pictures = pictures.iter();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => body.push_text(text),
                Piece::Placeholder(name) => {
                    let value = values.iter().find(|(known, _)| known == name);
                    body.push(
                        value
                            .expect("placeholders are checked when prompts are loaded")
                            .1,
                    );
                }
                Piece::Picture => {
                    pictures
                        .next()
                        .into_iter()
                        .for_each(|p| body.push_picture(*p));
                }
            }
        }
        body
    }

    /// [`Self::fill`] with text values, for a template without pictures.
    pub fn fill_text(&self, values: &[(&str, &str)]) -> Body {
        let bodies: Vec<_> = values
            .iter()
            .map(|(name, text)| (*name, Body::from(*text)))
            .collect();
        let values: Vec<_> = bodies.iter().map(|(name, body)| (*name, body)).collect();
        self.fill(&values, &[])
    }

    /// The names of the placeholders.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The number of picture markers.
    pub fn n_pictures(&self) -> usize {
        self.pieces.iter().filter(|p| **p == Piece::Picture).count()
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        const PICTURE: &str = "<image>";
        let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), source.as_str());
        while let Some(c) = rest.chars().next() {
            let special = if rest.starts_with("{{") || rest.starts_with("}}") {
                text.push(c);
                rest = &rest[2..];
                continue;
            } else if rest.starts_with(PICTURE) {
                rest = &rest[PICTURE.len()..];
                Piece::Picture
            } else if c == '{' {
                let (name, after) = rest[1..].split_once('}').ok_or_else(|| {
                    format!("`{rest}`: expected `}}` after `{{`; a brace is `{{{{`")
                })?;
                rest = after;
                Piece::Placeholder(name.to_owned())
            } else if c == '}' {
                return Err(format!(
                    "`{rest}`: expected `{{` before `}}`; a brace is `}}}}`"
                ));
            } else {
                text.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(special);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self { pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn filled_values_are_not_parsed_again() {
        let p = pattern("{letter}.<image> {{{letter}}}");

        let body = p.fill(&[("letter", &"{x}<image>".into())], &[7]);
        assert_eq!(body.to_string(), "{x}<image>.<image> {{x}<image>}");
        assert_eq!(body.pictures(), [7]);
        assert_eq!(p.placeholders().collect::<Vec<_>>(), ["letter", "letter"]);
        assert_eq!(p.n_pictures(), 1);
    }

    #[test]
    fn unbalanced_braces_are_errors() {
        for (text, naming) in [("a {b", "expected `}`"), ("a b}", "expected `{`")] {
            let message = Pattern::try_from(text.to_owned()).unwrap_err();
            assert!(message.contains(naming), "{message}");
        }
    }
}
