//! Pictures and the vision tower compared with recordings of the original Python code.
//!
//! `tests/reference/golden/MODEL/images` has every stage of every picture of `tests/reference/images`;
//! `tests/reference/README.md` describes where the numbers come from.

mod checkpoint;
mod encoder;
mod golden;
mod pixels;
