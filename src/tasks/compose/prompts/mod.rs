//! The prompt templates of all stages: `LANG/STAGE.toml`, built in or from a directory of the user.

mod files;
mod render;

use std::path::Path;

pub use files::PromptsError;
pub use render::RenderedPrompt;
pub(super) use render::letter;
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
    /// The code, as in directory names and HTML.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }
}

/// The prompt templates of all stages.
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

/// A list of pictures: `<image> <image> `.
#[derive(Clone, Debug, Deserialize)]
struct PictureList {
    slot: Pattern,
    between: String,
    after: String,
    /// Whether several pictures are numbered instead: `Image1 <image>; Image2 <image>; `.
    #[serde(skip)]
    numbered: bool,
}

/// `article.toml`
#[derive(Clone, Debug, Deserialize)]
pub struct ArticlePrompt {
    #[serde(flatten)]
    pictures: PictureList,
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
    pictures: PictureList,
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

/// The template of a stage with a single text: `rewrite.toml`, for example.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainPrompt {
    user: Pattern,
    #[serde(default)]
    assistant: String,
}

impl Prompts {
    /// The prompts for articles in `language`. Files of the directory `own` replace the built-in ones.
    ///
    /// # Errors
    /// If a file cannot be read or has other keys or placeholders than the built-in one.
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

    /// The same with several pictures of an article numbered, as the 2.5 models expect.
    pub fn with_numbered_pictures(mut self) -> Self {
        self.article.pictures.numbered = true;
        self
    }
}
