//! xc2-edge: InternLM-XComposer2 on the CPU.

pub mod container;
pub mod decoder;
pub mod engine;
pub mod gguf;
pub mod image;
pub mod llama;
pub mod memory;
pub mod metrics;
pub mod prompt;
pub mod quant;
pub mod tensor;
pub mod verify;
pub mod vision;
