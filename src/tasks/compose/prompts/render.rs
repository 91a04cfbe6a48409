//! Fills prompt templates.

use super::{
    ArticlePrompt, CaptionPrompt, PictureList, PlainPrompt, PositionsPrompt, SelectionPrompt,
};
use crate::tasks::compose::{body::Body, pattern::Pattern};

/// A filled prompt of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPrompt {
    /// The user's turn.
    pub user: Body,
    /// The prefilled beginning of the answer.
    pub assistant: String,
}

impl PictureList {
    fn render(&self, pictures: &[usize]) -> Body {
        let mut body = Body::default();
        if self.numbered && pictures.len() > 1 {
            for (i, picture) in (1..).zip(pictures) {
                body.push_text(&format!("Image{i} "));
                body.push(&self.slot.fill(&[], &[*picture]));
                body.push_text("; ");
            }
            return body;
        }
        for (i, picture) in pictures.iter().enumerate() {
            body.push_text(if i > 0 { &self.between } else { "" });
            body.push(&self.slot.fill(&[], &[*picture]));
        }
        body.push_text(if pictures.is_empty() { "" } else { &self.after });
        body
    }
}

impl ArticlePrompt {
    /// The prompt for an article.
    pub fn render(&self, pictures: &[usize], instruction: &str) -> RenderedPrompt {
        let values = [
            ("pictures", &self.pictures.render(pictures)),
            ("instruction", &instruction.into()),
        ];
        RenderedPrompt {
            user: self.user.fill(&values, &[]),
            assistant: String::new(),
        }
    }
}

impl PositionsPrompt {
    /// The prompt for `count` sections to illustrate; `None` leaves the number to the model.
    pub fn render(
        &self,
        pictures: &[usize],
        sections: &[String],
        count: Option<usize>,
    ) -> RenderedPrompt {
        let count = count.map_or_else(String::new, |n| n.to_string());
        let values = [
            ("pictures", &self.pictures.render(pictures)),
            ("article", &numbered(&self.section, sections)),
            ("count", &count.as_str().into()),
        ];
        RenderedPrompt {
            user: self.user.fill(&values, &[]),
            assistant: self.assistant.clone(),
        }
    }
}

impl CaptionPrompt {
    /// The prompt for the caption of a picture after section `n`, given the captions of `earlier` sections.
    pub fn render(
        &self,
        sections: &[String],
        n: usize,
        earlier: &[(usize, String)],
    ) -> RenderedPrompt {
        let shown = &sections[..sections.len().min(n + 2)];
        let number = n.to_string();
        let values = [
            ("article", &numbered(&self.section, shown)),
            ("earlier", &self.earlier(earlier)),
            ("n", &number.as_str().into()),
        ];
        RenderedPrompt {
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
    /// The prompt that asks which of `candidates` follows the last of `sections`; `placed` are the earlier
    /// choices as (section, picture), in order.
    pub fn render(
        &self,
        sections: &[String],
        placed: &[(usize, usize)],
        candidates: &[usize],
    ) -> RenderedPrompt {
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
        RenderedPrompt {
            user: self.user.fill(&values, &[]),
            assistant: self.assistant.clone(),
        }
    }
}

impl PlainPrompt {
    /// The prompt with its placeholders filled from `values`.
    pub fn render(&self, values: &[(&str, &str)], pictures: &[usize]) -> RenderedPrompt {
        let bodies: Vec<_> = values
            .iter()
            .map(|(name, text)| (*name, Body::from(*text)))
            .collect();
        let values: Vec<_> = bodies.iter().map(|(name, body)| (*name, body)).collect();
        RenderedPrompt {
            user: self.user.fill(&values, pictures),
            assistant: self.assistant.clone(),
        }
    }
}

/// `A` for 0, up to `Z`.
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
