//! What a drawn picture shows: a line of `truth.jsonl`.

use serde::Serialize;

use super::{Scene, Thing};

/// A picture file and what is in it, as in `models/scenes`.
#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    /// Name of the picture.
    pub file: String,
    /// The seed that draws it.
    pub seed: u64,
    /// The expected answer to "Describe this image briefly."
    pub caption: String,
    /// To "Please describe this image in detail."
    pub detailed: String,
    /// To "请描述这张图片。"
    pub chinese: String,
    /// Colour of the ground.
    pub background: &'static str,
    /// In reading order.
    pub things: Vec<NamedThing>,
}

/// What a thing is called.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct NamedThing {
    pub size: &'static str,
    pub color: &'static str,
    pub shape: String,
    pub position: &'static str,
}

impl Truth {
    /// The truth of the picture `file` of `scene`, which `seed` draws.
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
