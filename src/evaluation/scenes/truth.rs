//! Description of a drawn picture: a line of `truth.jsonl`.

use serde::Serialize;

use super::{Scene, Thing};

/// A picture file and its content, as in `models/scenes`.
#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    /// Name of the picture.
    pub file: String,
    /// The seed of the scene.
    pub seed: u64,
    /// The expected answer to "Describe this image briefly."
    pub caption: String,
    /// The expected answer to "Please describe this image in detail."
    pub detailed: String,
    /// The expected answer to "请描述这张图片。"
    pub chinese: String,
    /// Colour of the background.
    pub background: &'static str,
    /// In reading order.
    pub things: Vec<NamedThing>,
}

/// Names of a thing's properties.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct NamedThing {
    pub size: &'static str,
    pub color: &'static str,
    pub shape: String,
    pub position: &'static str,
}

impl Truth {
    /// The description of the picture `file` of `scene`, drawn from `seed`.
    pub fn new(file: String, seed: u64, scene: &Scene) -> Self {
        Self {
            file,
            seed,
            caption: scene.brief(),
            detailed: scene.detailed(),
            chinese: scene.chinese(),
            background: scene.ground.name(),
            things: scene.things.iter().map(NamedThing::from).collect(),
        }
    }
}

impl From<&Thing> for NamedThing {
    fn from(thing: &Thing) -> Self {
        Self {
            size: thing.size.name(),
            color: thing.color.name(),
            shape: thing.noun(),
            position: thing.place(),
        }
    }
}
