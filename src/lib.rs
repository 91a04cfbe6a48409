//! xc2-edge: InternLM-XComposer2 on the CPU.

pub mod container;
pub mod gguf;
pub mod quant;
pub mod tensor;
