//! From prompts to what is put to the model.

use super::{ArticlePrompt, CaptionPrompt, PlainPrompt, PositionsPrompt, Row, SelectionPrompt};
use crate::tasks::compose::{body::Body, pattern::Pattern};

/// What is put to the model in a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The user's turn.
    pub user: Body,
    /// How the answer begins.
    pub assistant: String,
}

impl Row {
    fn of(&self, pictures: &[usize]) -> Body {
        let mut body = Body::default();
        for (i, picture) in pictures.iter().enumerate() {
            body.push_text(if i > 0 { &self.between } else { "" });
            body.push(&self.slot.fill(&[], &[*picture]));
        }
        body.push_text(if pictures.is_empty() { "" } else { &self.after });
        body
    }
}

impl ArticlePrompt {
    /// Asks for an article.
    pub fn ask(&self, pictures: &[usize], instruction: &str) -> Ask {
        let values = [
            ("pictures", &self.row.of(pictures)),
            ("instruction", &instruction.into()),
        ];
        Ask {
            user: self.user.fill(&values, &[]),
            assistant: String::new(),
        }
    }
}

impl PositionsPrompt {
    /// Asks for `count` sections that want a picture; `None` leaves the number to the model.
    pub fn ask(&self, pictures: &[usize], sections: &[String], count: Option<usize>) -> Ask {
        let count = count.map_or_else(String::new, |n| n.to_string());
        let values = [
            ("pictures", &self.row.of(pictures)),
            ("article", &numbered(&self.section, sections)),
            ("count", &count.as_str().into()),
        ];
        Ask {
            user: self.user.fill(&values, &[]),
            assistant: self.assistant.clone(),
        }
    }
}

impl CaptionPrompt {
    /// Asks for the caption of a picture after section `n`, given those after `earlier` sections.
    pub fn ask(&self, sections: &[String], n: usize, earlier: &[(usize, String)]) -> Ask {
        let shown = &sections[..sections.len().min(n + 2)];
        let number = n.to_string();
        let values = [
            ("article", &numbered(&self.section, shown)),
            ("earlier", &self.earlier(earlier)),
            ("n", &number.as_str().into()),
        ];
        Ask {
            user: self.user.fill(&values, &[]),
            assistant: self.assistant.clone(),
        }
    }

    fn earlier(&self, captions: &[(usize, String)]) -> Body {
        let mut body = Body::default();
        for (i, (n, caption)) in captions.iter().enumerate() {
            body.push_text(if i > 0 { &self.between } else { &self.before });
            let values = [("n", n.to_string()), ("caption", caption.clone())];
            body.push(
                &self
                    .earlier
                    .fill_text(&values.each_ref().map(|(k, v)| (*k, v.as_str()))),
            );
        }
        body.push_text(if captions.is_empty() { "" } else { &self.after });
        body
    }
}

impl SelectionPrompt {
    /// Asks which of `candidates` belongs after the last of `sections`; `placed` are the earlier
    /// sections that have a picture, in order.
    pub fn ask(&self, sections: &[String], placed: &[(usize, usize)], candidates: &[usize]) -> Ask {
        let mut context = Body::default();
        for (n, text) in sections.iter().enumerate() {
            context.push(&self.section.fill_text(&[("text", text)]));
            for (_, picture) in placed.iter().filter(|(section, _)| *section == n) {
                context.push(&self.slot.fill(&[], &[*picture]));
            }
        }
        let mut letters = Body::default();
        for (i, picture) in candidates.iter().enumerate() {
            letters.push_text(if i > 0 { &self.between } else { "" });
            let letter = letter(i).to_string();
            letters.push(
                &self
                    .candidate
                    .fill(&[("letter", &letter.as_str().into())], &[*picture]),
            );
        }
        let values = [("context", &context), ("candidates", &letters)];
        Ask {
            user: self.user.fill(&values, &[]),
            assistant: self.assistant.clone(),
        }
    }
}

impl PlainPrompt {
    /// Asks with `values` in their places.
    pub fn ask(&self, values: &[(&str, &str)], pictures: &[usize]) -> Ask {
        let bodies: Vec<_> = values
            .iter()
            .map(|(name, text)| (*name, Body::from(*text)))
            .collect();
        let values: Vec<_> = bodies.iter().map(|(name, body)| (*name, body)).collect();
        Ask {
            user: self.user.fill(&values, pictures),
            assistant: self.assistant.clone(),
        }
    }
}

/// `A` for 0, and so on to `Z`.
pub fn letter(index: usize) -> char {
    char::from(b'A' + index.min(25) as u8)
}

fn numbered(section: &Pattern, sections: &[String]) -> Body {
    let mut body = Body::default();
    for (n, text) in sections.iter().enumerate() {
        body.push(&section.fill_text(&[("n", &n.to_string()), ("text", text)]));
    }
    body
}
