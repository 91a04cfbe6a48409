//! Measures of correctness: recorded outputs of the original, drawn scenes with known answers, and the divergence of
//! two models.

pub mod divergence;
pub mod scenes;
pub mod verify;
