//! Drawn scenes: what the model in `models/xc2-scenes` was trained to see.
//!
//! ```text
//! line of heldout.jsonl ──Paper──▶ Request (question, form of the prompt)
//!                          └─ Scene ──render──▶ picture [S, S, 3] ──▶ its pictures
//! ```
//!
//! A scene is a handful of whole numbers and its picture is made of whole numbers alone, so the
//! pictures here equal those of the training (`models/train/renderer.py`) to the bit.

mod outlines;
mod paper;
mod render;
mod scene;

pub use paper::{BosHabit, Paper, PicturePlace, SystemText, Unaskable};
pub use render::{MAX_SIDE, render};
pub use scene::{Kind, MAX_THINGS, Scene, SceneError, Thing};
