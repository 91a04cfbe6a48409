//! The way through the stages.

use std::path::PathBuf;

use super::{
    ComposeError,
    brief::Brief,
    chat_model::ChatModel,
    composition::{Candidate, Composition, FORMAT, Placed, Stage, StageRecord},
    fit::{beginning, fits, largest},
    library::Library,
    prompts::{Ask, Language, Prompts},
    repetition::Repetition,
    reply,
    watch::{Listener, Watch},
};
use crate::engine::{Picture, StopReason};

/// The most tokens of an article where nothing else is asked for: the demo's limit.
pub const DEFAULT_N_PREDICT: usize = 4096;
/// The most tokens of a description, and of the demo's other stages but the choice.
pub(super) const SHORT_ANSWER: usize = 200;
/// The least room in the context for an article: that, or a quarter of the context.
const ARTICLE_ROOM: usize = 512;

/// How many pictures an article gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// All that were given; otherwise as the model sees fit.
    #[default]
    Auto,
    /// That many, or as many as there are.
    Exactly(usize),
}

/// How an article is composed.
#[derive(Clone, Copy, Debug)]
pub struct ComposeOptions {
    /// The most tokens of the article.
    pub n_predict: usize,
    /// How many pictures it gets.
    pub count: Count,
    /// Whether the model tells what the given pictures show, for readers who cannot see them;
    /// otherwise the names of the files have to do.
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

/// A picture that prompts can show.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub file: PathBuf,
    pub picture: Picture,
    /// What it shows, if that is known.
    pub caption: Option<String>,
}

/// Composes an article: asks a model, stage by stage, and keeps what it said.
pub struct Composer<'a> {
    pub(super) model: &'a mut dyn ChatModel,
    pub(super) prompts: &'a Prompts,
    pub(super) options: ComposeOptions,
    pub(super) watch: &'a mut dyn Watch,
    /// All pictures by number: first the given ones, then those found.
    pub(super) album: Vec<Entry>,
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

    /// Gives a picture: to write about, and to be placed where there is no library. `file` is its
    /// name in the result.
    pub fn give(&mut self, file: PathBuf, picture: Picture) {
        debug_assert_eq!(self.album.len(), self.n_given, "pictures are given first");
        self.album.push(Entry {
            file,
            picture,
            caption: None,
        });
        self.n_given += 1;
    }

    /// Writes an article and places pictures in it.
    ///
    /// # Errors
    /// If the model or the library cannot be asked, or the model writes nothing.
    pub fn compose(
        mut self,
        language: Language,
        brief: &Brief,
        library: Option<&Library>,
    ) -> Result<Composition, ComposeError> {
        let sections = self.article(brief)?;
        self.illustrate(language, brief, sections, library)
    }

    /// Places pictures in an article that there is.
    ///
    /// # Errors
    /// If the model or the library cannot be asked, or the article is empty.
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

    /// Asks for the article; where that does not fit the context, with less of the material, or of
    /// the instruction.
    fn article_ask(&mut self, brief: &Brief) -> Result<Ask, ComposeError> {
        let given: Vec<usize> = (0..self.n_given).collect();
        let room = (self.model.n_ctx() / 4)
            .min(ARTICLE_ROOM)
            .min(self.options.n_predict)
            .max(1);
        let prompt = &self.prompts.article;
        let instruction = |brief: &Brief| brief.instruction(prompt, !given.is_empty());
        let ask = |brief: &Brief| prompt.ask(&given, &instruction(brief));
        let model = &*self.model;
        if fits(model, &ask(brief), room)? {
            return Ok(ask(brief));
        }
        let with_material = |n| Brief {
            material: beginning(&brief.material, n),
            ..brief.clone()
        };
        let n_material = brief.material.chars().count();
        if let Some(n) = largest(1, n_material, |n| {
            fits(model, &ask(&with_material(n)), room)
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
        let cut = |n| prompt.ask(&given, &beginning(&whole, n));
        if let Some(n) = largest(1, n_whole, |n| fits(model, &cut(n), room))? {
            self.note(format!(
                "the instruction does not fit the context of {} tokens; the model was shown the \
                 first {n} of its {n_whole} characters",
                self.model.n_ctx()
            ));
            return Ok(cut(n));
        }
        Ok(ask(brief)) // the pictures alone are too much: the engine says so
    }

    /// Puts `ask` to the model and keeps what it said, without the repetitions.
    pub(super) fn ask(
        &mut self,
        stage: Stage,
        section: Option<usize>,
        ask: &Ask,
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

    /// Tells what was made of the last answer.
    pub(super) fn decide(&mut self, choice: String) {
        if let Some(record) = self.stages.last_mut() {
            record.choice = choice;
            self.watch.end(record);
        }
    }

    /// Tells that something went another way than it should.
    pub(super) fn note(&mut self, note: String) {
        self.watch.note(&note);
        self.notes.push(note);
    }

    /// What a picture shows: its caption in the library, the model's description, or the name of
    /// the file.
    fn alt(&mut self, picture: usize) -> Result<String, ComposeError> {
        if let Some(caption) = &self.album[picture].caption {
            return Ok(caption.clone());
        }
        let mut alt = String::new();
        if self.options.describe {
            let ask = self.prompts.description.ask(&[], &[picture]);
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

    /// Tells what the pictures show, for readers who cannot see them. Last of all, so that earlier
    /// stages find in the model what they have in common.
    pub(super) fn describe(&mut self, pictures: &mut [Placed]) -> Result<(), ComposeError> {
        for placed in pictures {
            let is_it = |entry: &Entry| entry.file == placed.file;
            if let Some(picture) = self.album.iter().position(is_it) {
                placed.alt = self.alt(picture)?;
            }
        }
        Ok(())
    }

    /// A picture in its place, not yet described.
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
