//! The operating system and the machine. Nothing here depends on models.

pub mod atomic_file;
pub(crate) mod digest;
pub mod machine;
pub mod memory;
pub mod panics;
pub mod text;
pub mod units;
