//! Outlines of shapes and digits: a table of integers, shared with the training.

use std::sync::LazyLock;

use serde::Deserialize;

use super::{Kind, Thing};

/// Index of the first digit's outline; before it, one outline per shape, in the order of [`Kind`].
const FIRST_DIGIT: usize = Kind::Number as usize;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let json = include_str!("../../../models/train/outlines.json");
    serde_json::from_str(json).expect("the table in the source is well-formed")
});

#[derive(Deserialize)]
struct Table {
    max_turn: i8,
    /// For -max_turn to max_turn degrees, in 1/16384.
    sine: Vec<i64>,
    cosine: Vec<i64>,
    outlines: Vec<Outline>,
}

/// One outline, in 1/1024 of the radius, y downwards.
#[derive(Deserialize)]
pub struct Outline {
    /// Whether it is filled (even-odd), or stroked with a round pen.
    pub filled: bool,
    /// Radius of the pen, in addition to the thing's.
    pub pen: i64,
    /// Edges: from x, y to x, y.
    pub edges: Vec<[i64; 4]>,
}

/// The outline of a thing whose numbers are in range.
pub fn outline(thing: &Thing) -> &'static Outline {
    let index = match thing.kind {
        Kind::Number => FIRST_DIGIT + 10 * usize::from(thing.face) + thing.digit as usize,
        shape => shape as usize,
    };
    &TABLE.outlines[index]
}

/// Sine and cosine of whole degrees, in 1/16384.
pub fn sine_cosine(degrees: i8) -> (i64, i64) {
    let index = (degrees + TABLE.max_turn) as usize;
    (TABLE.sine[index], TABLE.cosine[index])
}
