//! Measures of correctness: comparison with recorded outputs of the original implementation, drawn scenes with
//! known answers, and the divergence of two models.

pub mod divergence;
pub mod scenes;
pub mod verify;
