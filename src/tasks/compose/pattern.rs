//! A text with places to fill: `给定文章"{article}"`.

use serde::Deserialize;

use super::body::Body;

/// A text with named places and places for pictures.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{name}`
    Place(String),
    /// `<image>`
    Picture,
}

impl Pattern {
    /// The text with its places filled from `values` and its pictures from `pictures`, in order.
    ///
    /// # Panics
    /// If a place has no value: [`Self::places`] is checked when prompts are read.
    pub fn fill(&self, values: &[(&str, &Body)], pictures: &[usize]) -> Body {
        let mut body = Body::default();
        let mut pictures = pictures.iter();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => body.push_text(text),
                Piece::Place(name) => {
                    let value = values.iter().find(|(known, _)| known == name);
                    body.push(value.expect("places are checked when prompts are read").1);
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

    /// [`Self::fill`] with texts, for a pattern without pictures.
    pub fn fill_text(&self, values: &[(&str, &str)]) -> Body {
        let bodies: Vec<_> = values
            .iter()
            .map(|(name, text)| (*name, Body::from(*text)))
            .collect();
        let values: Vec<_> = bodies.iter().map(|(name, body)| (*name, body)).collect();
        self.fill(&values, &[])
    }

    /// The names of the places.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Place(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// How many pictures it takes.
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
                Piece::Place(name.to_owned())
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
    fn places_and_pictures_are_filled_once() {
        let p = pattern("{letter}.<image> {{{letter}}}");
        // What is filled in is not read again.
        let body = p.fill(&[("letter", &"{x}<image>".into())], &[7]);
        assert_eq!(body.to_string(), "{x}<image>.<image> {{x}<image>}");
        assert_eq!(body.pictures(), [7]);
        assert_eq!(p.places().collect::<Vec<_>>(), ["letter", "letter"]);
        assert_eq!(p.n_pictures(), 1);
    }

    #[test]
    fn braces_pair_up() {
        for (text, naming) in [("a {b", "expected `}`"), ("a b}", "expected `{`")] {
            let message = Pattern::try_from(text.to_owned()).unwrap_err();
            assert!(message.contains(naming), "{message}");
        }
    }
}
