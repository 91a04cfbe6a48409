//! The result: sections, pictures, and how each came about.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{brief::Brief, prompts::Language};
use crate::engine::{Answer, StopReason};

/// The form of the JSON; higher ones are not read.
pub const FORMAT: u32 = 1;

/// An article with pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Composition {
    /// [`FORMAT`].
    pub format: u32,
    /// The article's language.
    pub language: Language,
    /// What was asked for.
    pub brief: Brief,
    /// The article, a section a line. Their numbers are those of `<Seg0>`, `<Seg1>`, ….
    pub sections: Vec<String>,
    /// The pictures in it, in the order of the sections.
    pub pictures: Vec<Placed>,
    /// The pictures that were given.
    pub given: Vec<PathBuf>,
    /// Where pictures were looked for.
    pub library: Option<PathBuf>,
    /// What went another way than it should, and what was done about it.
    pub notes: Vec<String>,
    /// Every question to the model, in order.
    pub stages: Vec<StageRecord>,
}

/// A picture in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// The section that it follows.
    pub section: usize,
    /// The picture.
    pub file: PathBuf,
    /// What it shows, for readers who cannot see it.
    pub alt: String,
    /// The caption by which it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What it was chosen from, in the order of the letters.
    pub candidates: Vec<Candidate>,
}

/// A picture that could have been chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The picture.
    pub file: PathBuf,
    /// Its caption in the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// How well it fits what was looked for; more is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// What the model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Stage {
    Article,
    Positions,
    Caption,
    Selection,
    Description,
    Rewrite,
    Expand,
    Shorten,
    Insert,
}

impl Stage {
    /// As in the names of prompt files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Article => "article",
            Self::Positions => "positions",
            Self::Caption => "caption",
            Self::Selection => "selection",
            Self::Description => "description",
            Self::Rewrite => "rewrite",
            Self::Expand => "expand",
            Self::Shorten => "shorten",
            Self::Insert => "insert",
        }
    }
}

/// A question to the model and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Which stage.
    pub stage: Stage,
    /// The section that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<usize>,
    /// What was asked; `<image>` stands for each of `pictures`.
    pub prompt: String,
    /// The pictures in the prompt.
    pub pictures: Vec<PathBuf>,
    /// How the answer was made to begin.
    pub begins: String,
    /// The answer after that, as it came.
    pub answer: String,
    /// Why it ended.
    pub stop: String,
    /// What was made of it.
    pub choice: String,
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// Tokens of the answer.
    pub n_generated: usize,
    /// Pictures that went through the tower for this; the others were known.
    pub n_encoded: usize,
    /// Positions of the prompt that were computed for this; the others were known.
    pub n_prefill: usize,
    /// Seconds in the tower, in the prompt and in the answer.
    pub seconds: [f64; 3],
}

impl StageRecord {
    /// The record of an answer.
    pub(super) fn new(stage: Stage, section: Option<usize>, answer: &Answer) -> Self {
        let t = &answer.timings;
        Self {
            stage,
            section,
            prompt: String::new(),
            pictures: Vec::new(),
            begins: String::new(),
            answer: answer.text.clone(),
            stop: stop_name(answer.stop).to_owned(),
            choice: String::new(),
            n_prompt: answer.n_prompt,
            n_generated: answer.ids.len(),
            n_encoded: t.n_images,
            n_prefill: t.n_prefill,
            seconds: [t.encode, t.prefill, t.decode],
        }
    }
}

fn stop_name(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Stop => "stop",
        StopReason::Length => "length",
        StopReason::Context => "context",
        StopReason::Interrupted => "interrupted",
    }
}

/// What is wrong with a file of an article.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CompositionError {
    /// It is no JSON of ours.
    #[error("expected the JSON of an article, as `compose --out article.json` writes it")]
    Form(#[from] serde_json::Error),
    /// It is of a later version.
    #[error("expected format {FORMAT} or lower, found {found}")]
    Format { found: u32 },
    /// Its parts do not fit together.
    #[error("a picture stands after section {section}, expected one of 0 to {last}")]
    Section { section: usize, last: usize },
}

impl Composition {
    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// If it was not that, or parts of it do not fit together.
    pub fn from_json(text: &str) -> Result<Self, CompositionError> {
        let composition: Self = serde_json::from_str(text)?;
        if composition.format > FORMAT {
            return Err(CompositionError::Format {
                found: composition.format,
            });
        }
        let n = composition.sections.len();
        match composition.pictures.iter().find(|p| p.section >= n) {
            Some(picture) => Err(CompositionError::Section {
                section: picture.section,
                last: n.saturating_sub(1),
            }),
            None => Ok(composition),
        }
    }

    /// One JSON object, indented.
    ///
    /// # Panics
    /// Never: there are no keys that JSON does not have.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("all of it can be told in JSON") + "\n"
    }

    /// The pictures given that are not in the article.
    pub fn unused(&self) -> impl Iterator<Item = &PathBuf> {
        let is_used = |file: &PathBuf| self.pictures.iter().any(|p| p.file == *file);
        self.given.iter().filter(move |file| !is_used(file))
    }
}
