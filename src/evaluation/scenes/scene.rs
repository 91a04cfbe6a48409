//! Content of a picture.

use serde::{Deserialize, Serialize};

use super::{Color, Ground};

/// Maximum number of things in a scene.
pub const MAX_THINGS: usize = 6;
/// Positions and radii are in 1/4096 of the picture's side.
pub(super) const UNIT: i16 = 4096;

/// Why a scene cannot be drawn.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SceneError {
    /// A number is out of range.
    #[error("scene: `{field}` is {value}, expected {min} to {max}")]
    Range {
        field: &'static str,
        value: i64,
        min: i64,
        max: i64,
    },
}

/// A background and the things on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Named colour of the background.
    pub ground: Ground,
    /// In reading order, which is also the drawing order, bottom first.
    pub things: Vec<Thing>,
    /// Background colour at one end of the gradient.
    pub near: [u8; 3],
    /// Background colour at the other end.
    pub far: [u8; 3],
    /// Direction of the gradient: x and y, -1 to 1 each.
    pub slope: [i8; 2],
    /// Amplitude of the noise, 0 to 26.
    pub noise: u8,
    /// Seed of the noise.
    pub noise_seed: u64,
    /// Weight of the 3x3 mean, 0 to 256.
    pub soften: u16,
}

/// One shape or digit, and how it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Named size.
    pub size: Size,
    /// Named colour.
    pub color: Color,
    /// The shape.
    pub kind: Kind,
    /// The digit, if it is a number; else -1.
    pub digit: i8,
    /// Row in the 3x3 grid, from the top.
    pub row: u8,
    /// Column in the grid, from the left.
    pub col: u8,
    /// Centre, from the left.
    pub cx: i16,
    /// Centre, from the top.
    pub cy: i16,
    /// Radius.
    pub r: i16,
    /// Rotation in degrees, clockwise.
    pub turn: i8,
    /// Width is multiplied by this / 256, height is divided by it.
    pub stretch: i16,
    /// Colour.
    pub rgb: [u8; 3],
    /// Brightness of the rim relative to the colour, in 1/256; 256 for no rim.
    pub rim: u16,
    /// Handwriting style of a digit, one of three.
    pub face: u8,
    /// Radius of a digit's pen, in 1/1024 of `r`.
    pub pen: i16,
}

/// A named size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Size {
    Small,
    Large,
}

/// Kind of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    Circle,
    Square,
    Triangle,
    Star,
    Heart,
    Ring,
    Cross,
    Diamond,
    Number,
}

impl Kind {
    /// All kinds except numbers, in the order used for drawing.
    #[rustfmt::skip]
    pub const SHAPES: [Self; 8] = [
        Self::Circle, Self::Square, Self::Triangle, Self::Star,
        Self::Heart, Self::Ring, Self::Cross, Self::Diamond,
    ];
}

impl Scene {
    /// Checks the range of every number. A valid scene can be drawn without overflow.
    ///
    /// # Errors
    /// Names the first number that is out of range.
    pub fn check(&self) -> Result<(), SceneError> {
        range("things", self.things.len() as i64, 0, MAX_THINGS as i64)?;
        range("slope", self.slope[0].into(), -1, 1)?;
        range("slope", self.slope[1].into(), -1, 1)?;
        range("soften", self.soften.into(), 0, 256)?;
        self.things.iter().try_for_each(Thing::check)
    }
}

impl Thing {
    fn check(&self) -> Result<(), SceneError> {
        if self.kind == Kind::Number {
            range("digit", self.digit.into(), 0, 9)?;
            range("face", self.face.into(), 0, 2)?;
        }
        range("row", self.row.into(), 0, 2)?;
        range("col", self.col.into(), 0, 2)?;
        range("cx", self.cx.into(), 0, UNIT.into())?;
        range("cy", self.cy.into(), 0, UNIT.into())?;
        range("r", self.r.into(), 1, i64::from(UNIT) / 4)?;
        range("turn", self.turn.into(), -45, 45)?;
        range("stretch", self.stretch.into(), 128, 512)?;
        range("rim", self.rim.into(), 0, 256)?;
        range("pen", self.pen.into(), 0, 256)
    }
}

pub(super) fn range(field: &'static str, value: i64, min: i64, max: i64) -> Result<(), SceneError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(SceneError::Range {
        field,
        value,
        min,
        max,
    })
}
