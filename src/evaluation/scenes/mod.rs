//! Drawn scenes: what the model in `models/xc2-scenes` was trained to see.
//!
//! ```text
//! seed ─Task─┐
//! line of heldout.jsonl ──Paper──▶ Request (question, form of the prompt)
//!                          └─ Scene ──render──▶ picture [S, S, 3] ──▶ its pictures
//! seed ─────────────────────▶ Scene ──Truth──▶ what the picture shows, in words
//! ```
//!
//! A scene is a handful of whole numbers and its picture is made of whole numbers alone. Scenes,
//! words and pictures here equal those of the training (`models/train`) to the bit.

mod composition_case;
mod draw;
mod eval_case;
mod outlines;
mod palette;
mod question;
mod random;
mod render;
mod scene;
mod task;
mod truth;
mod wording;

pub use composition_case::CompositionCase;
pub use draw::Draw;
pub use eval_case::{BosHabit, EvalCase, PicturePlace, SystemText, Unaskable};
pub use palette::{Color, Ground};
pub use render::{MAX_SIDE, render};
pub use scene::{Kind, MAX_THINGS, Scene, SceneError, Size, Thing};
pub use task::{FIRST_TRAINED, REPORTED, TUNED, Task};
pub use truth::{NamedThing, Truth};
