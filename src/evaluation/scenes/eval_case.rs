//! One prompt: the question, its form, and the expected answer.

use serde::Deserialize;

use super::{Scene, SceneError, render};
use crate::{
    engine::{Picture, Request},
    language::prompt::{Chat, PromptLayout},
    model::container::{BosRule, PromptInfo},
};

/// One prompt: a line of a file of held-out prompts, as `models/train/greedy.py` writes it, or
/// drawn from a seed by [`super::Task::case`].
#[derive(Clone, Debug, Deserialize)]
pub struct EvalCase {
    /// The kind of task.
    pub task: String,
    /// The group of tasks.
    pub group: String,
    /// The system prompt.
    pub system: Option<SystemText>,
    /// Where `<s>` is placed.
    pub bos: BosHabit,
    /// Where pictures are placed.
    pub pictures: PicturePlace,
    /// Earlier turns.
    pub history: Vec<(String, String)>,
    /// The question, with a marker for each picture.
    pub query: String,
    /// Forced start of the answer.
    pub forced: String,
    /// The expected answer, without the forced start.
    pub expected: String,
    /// The model's answer in PyTorch, if recorded.
    #[serde(default)]
    pub greedy: Option<String>,
    /// The smallest difference between the first and the second logit while generating `greedy`.
    #[serde(default)]
    pub margin: Option<f64>,
    /// The pictures.
    pub scenes: Vec<Scene>,
}

/// A system prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemText {
    /// The model's default.
    Default,
}

/// Where `<s>` is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BosHabit {
    /// Before every text segment.
    Each,
    /// At the start.
    Once,
    /// Twice at the start.
    Double,
}

/// Where pictures are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PicturePlace {
    /// At their markers.
    Body,
    /// Right before the first user turn.
    Before,
    /// In front of everything.
    Front,
}

/// Why a model cannot be asked a case.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Unaskable {
    /// [`crate::language::prompt::Template`] does not support this form.
    #[error("no template has pictures `{pictures:?}` with `<s>` `{bos:?}`")]
    Form {
        pictures: PicturePlace,
        bos: BosHabit,
    },
    /// A scene cannot be drawn.
    #[error(transparent)]
    Scene(#[from] SceneError),
}

impl EvalCase {
    /// The greedy request of this case, for a model with this prompt format and pictures of `side` pixels.
    ///
    /// # Errors
    /// If the form is not supported, or a scene cannot be drawn.
    pub fn request(&self, prompt: &PromptInfo, side: usize) -> Result<Request, Unaskable> {
        let (layout, bos_rule) = self.form()?;
        let draw = |scene| Ok(Picture::Pixels(render(scene, side)?));
        let images: Result<_, SceneError> = self.scenes.iter().map(draw).collect();
        let mut chat = Chat {
            system: self
                .system
                .map_or_else(String::new, |_| prompt.system.clone()),
            history: self.history.clone(),
            query: self.query.clone(),
            answer_prefix: self.forced.clone(),
        };
        if layout == PromptLayout::Evaluation {
            let first = chat.history.first_mut().map(|turn| &mut turn.0);
            let query = first.unwrap_or(&mut chat.query);
            *query = query
                .replace(&prompt.image_marker, "")
                .trim_start()
                .to_owned();
        }
        Ok(Request {
            images: images?,
            chat,
            layout,
            bos_rule: Some(bos_rule),
            ..Request::default()
        })
    }

    /// Layout and BOS rule of the prompt.
    fn form(&self) -> Result<(PromptLayout, BosRule), Unaskable> {
        use {BosHabit as Bos, PicturePlace as Place};
        let has_pictures = !self.scenes.is_empty();
        match (self.pictures, self.bos, has_pictures) {
            (Place::Body, Bos::Each, true) | (Place::Body, Bos::Double, false) => {
                Ok((PromptLayout::Chat, BosRule::EverySegment))
            }
            // Without pictures there is one text segment.
            (Place::Body, Bos::Once, _) | (Place::Body, Bos::Each, false) => {
                Ok((PromptLayout::Chat, BosRule::Once))
            }
            (Place::Front, Bos::Once, _) => Ok((PromptLayout::Evaluation, BosRule::Once)),
            (pictures, bos, _) => Err(Unaskable::Form { pictures, bos }),
        }
    }
}
