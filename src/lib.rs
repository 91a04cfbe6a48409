//! xc2-edge: InternLM-XComposer2 on the CPU.

pub mod quant;
pub mod tensor;
