//! The result: sections, pictures, and a record of each stage.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{brief::Brief, prompts::Language};
use crate::engine::{Answer, StopReason};

/// Version of the JSON format; higher versions are rejected.
pub const FORMAT: u32 = 1;

/// An article with pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Composition {
    /// [`FORMAT`].
    pub format: u32,
    /// The article's language.
    pub language: Language,
    /// The request.
    pub brief: Brief,
    /// The sections of the article, one line each. Section `n` is `<Segn>` in prompts.
    pub sections: Vec<String>,
    /// The pictures in the article, in the order of the sections.
    pub pictures: Vec<Placed>,
    /// The user's pictures.
    pub given: Vec<PathBuf>,
    /// The directory of the library that was searched.
    pub library: Option<PathBuf>,
    /// Deviations from the normal course, and how they were handled.
    pub notes: Vec<String>,
    /// Every prompt to the model with its answer, in order.
    pub stages: Vec<StageRecord>,
}

/// A picture placed in the article.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// The section that it follows.
    pub section: usize,
    /// The picture.
    pub file: PathBuf,
    /// Alternative text.
    pub alt: String,
    /// The caption that was searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// The candidates it was chosen from, in the order of their letters.
    pub candidates: Vec<Candidate>,
}

/// A picture that the model could choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The picture.
    pub file: PathBuf,
    /// Its caption in the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Relevance to the search; more is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// A stage of the composition.
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
    /// The name, as in the names of the prompt files.
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

/// A prompt to the model, its answer, and the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Which stage.
    pub stage: Stage,
    /// The section concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<usize>,
    /// The prompt; `<image>` stands for each of `pictures`.
    pub prompt: String,
    /// The pictures in the prompt.
    pub pictures: Vec<PathBuf>,
    /// The prefilled beginning of the answer.
    pub begins: String,
    /// The rest of the answer, verbatim.
    pub answer: String,
    /// Why it ended.
    pub stop: String,
    /// What was decided from it.
    pub choice: String,
    /// Number of positions of the prompt.
    pub n_prompt: usize,
    /// Number of tokens of the answer.
    pub n_generated: usize,
    /// Number of pictures encoded for this stage; the others were cached.
    pub n_encoded: usize,
    /// Number of prompt positions computed for this stage; the others were cached.
    pub n_prefill: usize,
    /// Seconds for encoding, prefill and decoding.
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

/// Why the file of an article was rejected.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CompositionError {
    /// Not the JSON of an article.
    #[error("expected the JSON of an article, as `compose --out article.json` writes it")]
    Form(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("expected format {FORMAT} or lower, found {found}")]
    Format { found: u32 },
    /// A picture refers to a section that does not exist.
    #[error("a picture stands after section {section}, expected one of 0 to {last}")]
    Section { section: usize, last: usize },
}

impl Composition {
    /// Parses the output of [`Self::to_json`].
    ///
    /// # Errors
    /// If the text has another format, or is inconsistent.
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
    /// Never: all keys are strings.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("all keys are strings") + "\n"
    }

    /// The user's pictures that are not in the article.
    pub fn unused(&self) -> impl Iterator<Item = &PathBuf> {
        let is_used = |file: &PathBuf| self.pictures.iter().any(|p| p.file == *file);
        self.given.iter().filter(move |file| !is_used(file))
    }
}
