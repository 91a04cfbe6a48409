//! Drawn scenes, on which the model in `models/xc2-scenes` was trained.
//!
//! ```text
//! seed ─Task─┐
//! line of heldout.jsonl ──EvalCase──▶ Request (question, form of the prompt)
//!                          └─ Scene ──render──▶ picture [S, S, 3] ──▶ its pictures
//! seed ─────────────────────▶ Scene ──Truth──▶ description of the picture
//! ```
//!
//! A scene consists of a few integers, and its picture is computed with integers only. Scenes, texts and pictures
//! are bit-identical to those of the training (`models/train`).

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
