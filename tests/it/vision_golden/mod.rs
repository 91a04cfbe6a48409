//! Pictures and the vision tower against what the original Python code computed for them.
//!
//! `tests/reference/golden/MODEL/images` holds every stage of every picture of
//! `tests/reference/images`; where the numbers come from is told in `tests/reference/README.md`.

mod checkpoint;
mod encoder;
mod golden;
mod pixels;
