//! Finds, reads and checks prompt files.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{
    ArticlePrompt, CaptionPrompt, Language, PlainPrompt, PositionsPrompt, SelectionPrompt,
};
use crate::{
    system::text::{self, TextError},
    tasks::compose::pattern::Pattern,
};

/// Why prompts cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PromptsError {
    /// A file cannot be read, or is not UTF-8 text.
    #[error("{}", path.display())]
    Text { path: PathBuf, source: TextError },
    /// The file is not valid TOML, or its keys are wrong.
    #[error("{path}: {message}")]
    Form { path: String, message: String },
    /// The stage has no value for a placeholder.
    #[error("{path}: `{key}` has a placeholder `{{{found}}}`; expected {expected}")]
    Placeholder {
        path: String,
        key: &'static str,
        found: String,
        expected: String,
    },
    /// The number of picture markers is wrong.
    #[error("{path}: `{key}` has {found} `<image>`; expected {expected}")]
    Pictures {
        path: String,
        key: &'static str,
        found: usize,
        expected: usize,
    },
    /// The directory has no prompt file.
    #[error("{}: found no `LANG/STAGE.toml`, for example `zh/positions.toml`", path.display())]
    Nothing { path: PathBuf },
}

/// The built-in files: language, stage, text.
const BUILT_IN: [(&str, &str, &str); 11] = [
    ("zh", "article", include_str!("zh/article.toml")),
    ("en", "article", include_str!("en/article.toml")),
    ("zh", "positions", include_str!("zh/positions.toml")),
    ("zh", "caption", include_str!("zh/caption.toml")),
    ("zh", "selection", include_str!("zh/selection.toml")),
    ("zh", "description", include_str!("zh/description.toml")),
    ("en", "description", include_str!("en/description.toml")),
    ("zh", "rewrite", include_str!("zh/rewrite.toml")),
    ("zh", "expand", include_str!("zh/expand.toml")),
    ("zh", "shorten", include_str!("zh/shorten.toml")),
    ("zh", "insert", include_str!("zh/insert.toml")),
];

/// Finds the prompt files of a language.
pub(super) struct Files<'a> {
    pub language: Language,
    pub own: Option<&'a Path>,
}

impl Files<'_> {
    /// The stage's prompt, read and checked.
    pub fn read<T: DeserializeOwned>(
        &self,
        stage: &str,
        check: impl Fn(&T, &Check) -> Result<(), PromptsError>,
    ) -> Result<T, PromptsError> {
        let (path, text) = self.find(stage)?;
        let prompt = toml::from_str(&text).map_err(|error| PromptsError::Form {
            path: path.clone(),
            message: error.to_string(),
        })?;
        check(&prompt, &Check { path })?;
        Ok(prompt)
    }

    /// Name and text of the stage's file: the user's before the built-in one, the language before `zh`.
    fn find(&self, stage: &str) -> Result<(String, String), PromptsError> {
        for language in [self.language.code(), "zh"] {
            let relative = format!("{language}/{stage}.toml");
            if let Some(path) = self
                .own
                .map(|dir| dir.join(&relative))
                .filter(|p| p.exists())
            {
                let text = text::read(&path).map_err(|source| PromptsError::Text {
                    path: path.clone(),
                    source,
                })?;
                return Ok((path.display().to_string(), text));
            }
            let is_it =
                |built_in: &&(&str, &str, &str)| (built_in.0, built_in.1) == (language, stage);
            if let Some((.., text)) = BUILT_IN.iter().find(is_it) {
                return Ok((relative, (*text).to_owned()));
            }
        }
        unreachable!("every stage has a built-in file in `zh`")
    }

    pub fn has_any(&self) -> bool {
        BUILT_IN.iter().any(|(_, stage, _)| {
            let file = |language: &str| {
                self.own
                    .map(|dir| dir.join(format!("{language}/{stage}.toml")))
            };
            ["en", "zh"]
                .into_iter()
                .filter_map(file)
                .any(|path| path.exists())
        })
    }
}

/// Checks templates against the values that their stage provides.
pub(super) struct Check {
    path: String,
}

impl Check {
    fn pattern(
        &self,
        key: &'static str,
        pattern: &Pattern,
        known: &[&str],
        n_pictures: usize,
    ) -> Result<(), PromptsError> {
        if let Some(found) = pattern.placeholders().find(|name| !known.contains(name)) {
            let names: Vec<_> = known.iter().map(|name| format!("`{{{name}}}`")).collect();
            return Err(PromptsError::Placeholder {
                path: self.path.clone(),
                key,
                found: found.to_owned(),
                expected: match names.is_empty() {
                    true => "none".to_owned(),
                    false => names.join(", "),
                },
            });
        }
        match pattern.n_pictures() {
            found if found != n_pictures => Err(PromptsError::Pictures {
                path: self.path.clone(),
                key,
                found,
                expected: n_pictures,
            }),
            _ => Ok(()),
        }
    }
}

impl ArticlePrompt {
    pub(super) fn check(&self, check: &Check) -> Result<(), PromptsError> {
        check.pattern("slot", &self.pictures.slot, &[], 1)?;
        check.pattern("user", &self.user, &["pictures", "instruction"], 0)?;
        let i = &self.instruction;
        for (key, pattern, known) in [
            ("outline", &i.outline, &["outline"][..]),
            ("title_and_pictures", &i.title_and_pictures, &["title"]),
            ("title", &i.title, &["title"]),
            ("pictures", &i.pictures, &[]),
            ("material", &i.material, &[]),
            ("add_title", &i.add_title, &["title"]),
            ("add_outline", &i.add_outline, &["outline"]),
            ("add_material", &i.add_material, &["material"]),
        ] {
            check.pattern(key, pattern, known, 0)?;
        }
        Ok(())
    }
}

impl PositionsPrompt {
    pub(super) fn check(&self, check: &Check) -> Result<(), PromptsError> {
        check.pattern("slot", &self.pictures.slot, &[], 1)?;
        check.pattern("section", &self.section, &["n", "text"], 0)?;
        check.pattern("user", &self.user, &["pictures", "article", "count"], 0)
    }
}

impl CaptionPrompt {
    pub(super) fn check(&self, check: &Check) -> Result<(), PromptsError> {
        check.pattern("section", &self.section, &["n", "text"], 0)?;
        check.pattern("earlier", &self.earlier, &["n", "caption"], 0)?;
        check.pattern("user", &self.user, &["article", "earlier", "n"], 0)
    }
}

impl SelectionPrompt {
    pub(super) fn check(&self, check: &Check) -> Result<(), PromptsError> {
        check.pattern("section", &self.section, &["text"], 0)?;
        check.pattern("slot", &self.slot, &[], 1)?;
        check.pattern("candidate", &self.candidate, &["letter"], 1)?;
        check.pattern("user", &self.user, &["context", "candidates"], 0)
    }
}

impl PlainPrompt {
    pub(super) fn check(
        known: &'static [&'static str],
        n_pictures: usize,
    ) -> impl Fn(&Self, &Check) -> Result<(), PromptsError> {
        move |prompt, check| check.pattern("user", &prompt.user, known, n_pictures)
    }
}
