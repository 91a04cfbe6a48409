//! xc2-convert: from a Hugging Face checkpoint to one GGUF file.
//!
//! ```text
//! checkpoint   the files on the disk: weights, configuration             weights are read later
//!   → model      which published model (family), which sizes             unsupported ones are refused
//!   → tensor_map which tensor becomes which                              one table
//!   → mix        which type each gets
//!   → plan       the list of writes, and the layout of the file          pure; `--dry-run` ends here
//!   → pipeline   read, rearrange (rows), quantize, in bounded memory
//!   → write      the file, complete or not at all
//! ```

mod adapters;
mod added_tokens;
pub mod checkpoint;
mod config;
mod family;
pub mod metadata;
pub mod mix;
pub mod model;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod rows;
pub mod split;
pub mod summary;
pub mod tensor_map;
pub mod tokenizer;
pub mod write;
