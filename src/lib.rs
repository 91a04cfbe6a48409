//! xc2-edge: InternLM-XComposer2 on the CPU.

pub mod container;
pub mod decoder;
pub mod gguf;
pub mod llama;
pub mod prompt;
pub mod quant;
pub mod tensor;
