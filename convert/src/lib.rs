//! xc2-convert: from a Hugging Face checkpoint to one GGUF file.

pub mod checkpoint;
