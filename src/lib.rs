//! xc2-edge: InternLM-XComposer2 on the CPU.

pub mod image;
pub mod quant;
pub mod tensor;
pub mod vision;
