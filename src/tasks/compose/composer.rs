//! Runs the stages of a composition.

use std::path::PathBuf;

use super::{
    ComposeError,
    brief::Brief,
    chat_model::ChatModel,
    composition::{Candidate, Composition, FORMAT, Placed, Stage, StageRecord},
    fit::{beginning, fits, largest},
    library::Library,
    prompts::{Language, Prompts, RenderedPrompt},
    repetition::Repetition,
    reply,
    watch::{Listener, Watch},
};
use crate::engine::{Picture, StopReason};

/// Default maximum number of tokens of an article: the demo's limit.
pub const DEFAULT_N_PREDICT: usize = 4096;
/// Maximum number of tokens of a description, and of the demo's other stages except the selection.
pub(super) const SHORT_ANSWER: usize = 200;
/// Context positions reserved for the article; a quarter of the context if that is less.
const ARTICLE_RESERVE: usize = 512;

/// How many pictures an article gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// All user pictures; with a library, as many as the model chooses.
    #[default]
    Auto,
    /// That many, or all if there are fewer.
    Exactly(usize),
}

/// How an article is composed.
#[derive(Clone, Copy, Debug)]
pub struct ComposeOptions {
    /// Maximum number of tokens of the article.
    pub n_predict: usize,
    /// How many pictures the article gets.
    pub count: Count,
    /// Whether the model describes the user pictures (alternative text). Otherwise the file names are used.
    pub describe: bool,
}

impl Default for ComposeOptions {
    fn default() -> Self {
        Self {
            n_predict: DEFAULT_N_PREDICT,
            count: Count::default(),
            describe: true,
        }
    }
}

/// A picture that prompts can contain.
#[derive(Clone, Debug)]
pub(super) struct AlbumPicture {
    pub file: PathBuf,
    pub picture: Picture,
    /// Its caption, if known.
    pub caption: Option<String>,
}

/// Composes an article: prompts a model stage by stage and records its answers.
pub struct Composer<'a> {
    pub(super) model: &'a mut dyn ChatModel,
    pub(super) prompts: &'a Prompts,
    pub(super) options: ComposeOptions,
    pub(super) watch: &'a mut dyn Watch,
    /// All pictures by index: first those of the user, then those found in the library.
    pub(super) album: Vec<AlbumPicture>,
    pub(super) n_given: usize,
    pub(super) stages: Vec<StageRecord>,
    pub(super) notes: Vec<String>,
}

impl<'a> Composer<'a> {
    /// A composer without pictures.
    pub fn new(
        model: &'a mut dyn ChatModel,
        prompts: &'a Prompts,
        options: ComposeOptions,
        watch: &'a mut dyn Watch,
    ) -> Self {
        Self {
            model,
            prompts,
            options,
            watch,
            album: Vec::new(),
            n_given: 0,
            stages: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a picture of the user: the article is about it and, without a library, contains it. `file` is its
    /// name in the result.
    pub fn add_picture(&mut self, file: PathBuf, picture: Picture) {
        debug_assert_eq!(
            self.album.len(),
            self.n_given,
            "user pictures come before library pictures"
        );
        self.album.push(AlbumPicture {
            file,
            picture,
            caption: None,
        });
        self.n_given += 1;
    }

    /// Writes an article and places pictures in it.
    ///
    /// # Errors
    /// If the model or the library fails, or the model writes nothing.
    pub fn compose(
        mut self,
        language: Language,
        brief: &Brief,
        library: Option<&Library>,
    ) -> Result<Composition, ComposeError> {
        let sections = self.article(brief)?;
        self.illustrate(language, brief, sections, library)
    }

    /// Places pictures in an existing article.
    ///
    /// # Errors
    /// If the model or the library fails, or the article is empty.
    pub fn illustrate(
        mut self,
        language: Language,
        brief: &Brief,
        sections: Vec<String>,
        library: Option<&Library>,
    ) -> Result<Composition, ComposeError> {
        if sections.is_empty() {
            return Err(ComposeError::Nothing);
        }
        let mut pictures = match library {
            Some(library) => self.place_found(&sections, library)?,
            None => self.place_given(&sections)?,
        };
        self.describe(&mut pictures)?;
        let given = self.album[..self.n_given]
            .iter()
            .map(|e| e.file.clone())
            .collect();
        Ok(Composition {
            format: FORMAT,
            language,
            brief: brief.clone(),
            sections,
            pictures,
            given,
            library: library.map(|library| library.dir().to_owned()),
            notes: self.notes,
            stages: self.stages,
        })
    }

    /// Writes the article.
    fn article(&mut self, brief: &Brief) -> Result<Vec<String>, ComposeError> {
        let ask = self.article_ask(brief)?;
        let text = self.ask(Stage::Article, None, &ask, self.options.n_predict)?;
        let (sections, n_more) = reply::sections(&text);
        if n_more > 0 {
            self.note(format!(
                "the article has {} lines; the last {n_more} are left out",
                sections.len() + n_more
            ));
        }
        self.decide(format!("{} sections", sections.len()));
        if sections.is_empty() {
            return Err(ComposeError::Nothing);
        }
        Ok(sections)
    }

    /// The prompt for the article. If it does not fit the context, the material is cut, or else the instruction.
    fn article_ask(&mut self, brief: &Brief) -> Result<RenderedPrompt, ComposeError> {
        let given: Vec<usize> = (0..self.n_given).collect();
        let reserve = (self.model.n_ctx() / 4)
            .min(ARTICLE_RESERVE)
            .min(self.options.n_predict)
            .max(1);
        let prompt = &self.prompts.article;
        let instruction = |brief: &Brief| brief.instruction(prompt, !given.is_empty());
        let ask = |brief: &Brief| prompt.render(&given, &instruction(brief));
        let model = &*self.model;
        if fits(model, &ask(brief), reserve)? {
            return Ok(ask(brief));
        }
        let with_material = |n| Brief {
            material: beginning(&brief.material, n),
            ..brief.clone()
        };
        let n_material = brief.material.chars().count();
        if let Some(n) = largest(1, n_material, |n| {
            fits(model, &ask(&with_material(n)), reserve)
        })? {
            self.note(format!(
                "the source text does not fit the context of {} tokens; the model was shown the \
                 first {n} of its {n_material} characters",
                self.model.n_ctx()
            ));
            return Ok(ask(&with_material(n)));
        }
        let whole = instruction(brief);
        let n_whole = whole.chars().count();
        let cut = |n| prompt.render(&given, &beginning(&whole, n));
        if let Some(n) = largest(1, n_whole, |n| fits(model, &cut(n), reserve))? {
            self.note(format!(
                "the instruction does not fit the context of {} tokens; the model was shown the \
                 first {n} of its {n_whole} characters",
                self.model.n_ctx()
            ));
            return Ok(cut(n));
        }
        Ok(ask(brief)) // the pictures alone are too large: the engine reports it
    }

    /// Prompts the model and records its answer, without repetitions.
    pub(super) fn ask(
        &mut self,
        stage: Stage,
        section: Option<usize>,
        ask: &RenderedPrompt,
        n_predict: usize,
    ) -> Result<String, ComposeError> {
        self.watch.begin(stage, section);
        let numbers = ask.user.pictures();
        let shown: Vec<_> = numbers
            .iter()
            .map(|i| self.album[*i].picture.clone())
            .collect();
        let mut listener = Listener {
            watch: &mut *self.watch,
            is_article: stage == Stage::Article,
            repetition: Repetition::default(),
            kept: None,
        };
        let answer = self.model.respond(ask, &shown, n_predict, &mut listener)?;
        let kept = listener.kept;
        if answer.stop == StopReason::Interrupted && kept.is_none() {
            return Err(ComposeError::Interrupted);
        }
        self.stages.push(StageRecord {
            prompt: ask.user.to_string(),
            pictures: numbers
                .iter()
                .map(|i| self.album[*i].file.clone())
                .collect(),
            begins: ask.assistant.clone(),
            ..StageRecord::new(stage, section, &answer)
        });
        let place = section.map_or_else(String::new, |n| format!(" of section {n}"));
        let name = format!("{}{place}", stage.name());
        if let Some(kept) = kept {
            self.note(format!(
                "{name}: the model repeated itself and was stopped; one copy is kept"
            ));
            return Ok(answer.text[..kept].to_owned());
        }
        if stage == Stage::Article && answer.stop != StopReason::Stop {
            self.note(format!(
                "{name}: the text was cut after {} tokens",
                answer.ids.len()
            ));
        }
        Ok(answer.text)
    }

    /// Records what was decided from the last answer.
    pub(super) fn decide(&mut self, choice: String) {
        if let Some(record) = self.stages.last_mut() {
            record.choice = choice;
            self.watch.end(record);
        }
    }

    /// Records a deviation from the normal course.
    pub(super) fn note(&mut self, note: String) {
        self.watch.note(&note);
        self.notes.push(note);
    }

    /// The alternative text of a picture: its caption in the library, the model's description, or the file name.
    fn alt(&mut self, picture: usize) -> Result<String, ComposeError> {
        if let Some(caption) = &self.album[picture].caption {
            return Ok(caption.clone());
        }
        let mut alt = String::new();
        if self.options.describe {
            let ask = self.prompts.description.render(&[], &[picture]);
            let answer = self.ask(Stage::Description, None, &ask, SHORT_ANSWER)?;
            alt = reply::caption(&answer, "");
            self.decide(alt.clone());
        }
        if alt.is_empty() {
            let stem = self.album[picture].file.file_stem().unwrap_or_default();
            alt = stem.to_string_lossy().into_owned();
        }
        self.album[picture].caption = Some(alt.clone());
        Ok(alt)
    }

    /// Adds alternative texts to the pictures. Runs last, so that the earlier stages can reuse their common
    /// prompt prefix.
    pub(super) fn describe(&mut self, pictures: &mut [Placed]) -> Result<(), ComposeError> {
        for placed in pictures {
            let is_it = |entry: &AlbumPicture| entry.file == placed.file;
            if let Some(picture) = self.album.iter().position(is_it) {
                placed.alt = self.alt(picture)?;
            }
        }
        Ok(())
    }

    /// A placed picture, not yet described.
    pub(super) fn placed(
        &self,
        section: usize,
        picture: usize,
        wanted: Option<String>,
        candidates: Vec<Candidate>,
    ) -> Placed {
        Placed {
            section,
            file: self.album[picture].file.clone(),
            alt: String::new(),
            wanted,
            candidates,
        }
    }
}
