//! The prompts of all stages, as data: `prompts/LANG/STAGE.toml`, the built-in ones or a person's.

mod ask;
mod files;

use std::path::Path;

pub use ask::Ask;
pub(super) use ask::letter;
pub use files::PromptsError;
use serde::{Deserialize, Serialize};

use self::files::Files;
use super::pattern::Pattern;

/// Which language an article is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Language {
    /// As in a directory's name and in HTML.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }
}

/// The prompts of all stages.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Prompts {
    pub article: ArticlePrompt,
    pub positions: PositionsPrompt,
    pub caption: CaptionPrompt,
    pub selection: SelectionPrompt,
    pub description: PlainPrompt,
    pub rewrite: PlainPrompt,
    pub expand: PlainPrompt,
    pub shorten: PlainPrompt,
    pub insert: PlainPrompt,
}

/// Pictures in a row: `<image> <image> `.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    slot: Pattern,
    between: String,
    after: String,
}

/// `article.toml`
#[derive(Clone, Debug, Deserialize)]
pub struct ArticlePrompt {
    #[serde(flatten)]
    row: Row,
    user: Pattern,
    pub(super) instruction: InstructionPrompt,
}

/// `[instruction]` of `article.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstructionPrompt {
    pub outline: Pattern,
    pub title_and_pictures: Pattern,
    pub title: Pattern,
    pub pictures: Pattern,
    pub material: Pattern,
    pub add_title: Pattern,
    pub add_outline: Pattern,
    pub add_material: Pattern,
}

/// `positions.toml`
#[derive(Clone, Debug, Deserialize)]
pub struct PositionsPrompt {
    #[serde(flatten)]
    row: Row,
    section: Pattern,
    user: Pattern,
    assistant: String,
}

/// `caption.toml`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionPrompt {
    section: Pattern,
    before: String,
    earlier: Pattern,
    between: String,
    after: String,
    user: Pattern,
    assistant: String,
    pub(super) end: String,
}

/// `selection.toml`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionPrompt {
    section: Pattern,
    slot: Pattern,
    candidate: Pattern,
    between: String,
    user: Pattern,
    assistant: String,
}

/// A stage that asks one thing: `rewrite.toml` and the like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainPrompt {
    user: Pattern,
    #[serde(default)]
    assistant: String,
}

impl Prompts {
    /// The prompts for articles in `language`, with the files of `own` in place of the built-in
    /// ones.
    ///
    /// # Errors
    /// If a file cannot be read or does not have the form of the built-in one.
    pub fn load(language: Language, own: Option<&Path>) -> Result<Self, PromptsError> {
        let files = Files { language, own };
        if let Some(path) = own.filter(|_| !files.has_any()) {
            return Err(PromptsError::Nothing {
                path: path.to_owned(),
            });
        }
        let prompts = Self {
            article: files.read("article", ArticlePrompt::check)?,
            positions: files.read("positions", PositionsPrompt::check)?,
            caption: files.read("caption", CaptionPrompt::check)?,
            selection: files.read("selection", SelectionPrompt::check)?,
            description: files.read("description", PlainPrompt::check(&[], 1))?,
            rewrite: files.read("rewrite", PlainPrompt::check(&["text", "instruction"], 0))?,
            expand: files.read("expand", PlainPrompt::check(&["text", "instruction"], 0))?,
            shorten: files.read("shorten", PlainPrompt::check(&["text"], 0))?,
            insert: files.read(
                "insert",
                PlainPrompt::check(&["previous", "next", "instruction"], 0),
            )?,
        };
        Ok(prompts)
    }
}
