//! Arithmetic of a model's matrix products, and how many operations they take.

use xc2_edge::{
    engine::memory,
    model::{container::Container, quant::GgmlType},
    vision::Precision,
};
use xc2_kernels::{matmul::is_bf16_fast, peak::Peak};

/// Number type in which matrices are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    F32,
    Bf16,
    Int8,
}

impl Arithmetic {
    /// Arithmetic of most of the tower's matrix products.
    pub fn of_tower(container: &Container, precision: Precision) -> Self {
        match most_bytes(container, |name| name.starts_with("v.blk.")) {
            Some(ty) if precision == Precision::Stored && ty.is_quantized() => Self::Int8,
            Some(GgmlType::BF16) if precision == Precision::Stored && is_bf16_fast() => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// Arithmetic of most of the decoder's matrix products.
    pub fn of_decoder(container: &Container) -> Self {
        match decoder_type(container) {
            Some(GgmlType::BF16) => Self::Bf16,
            Some(ty) if ty.is_quantized() => Self::Int8,
            _ => Self::F32,
        }
    }

    /// The machine's peak rate in this arithmetic, in operations per second; 0 if unknown.
    pub fn of(self, peak: &Peak) -> f64 {
        match self {
            Self::F32 => peak.f32,
            Self::Bf16 => peak.bf16,
            Self::Int8 => peak.int8,
        }
    }

    /// Display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// The type that holds most bytes of the decoder's matrices.
pub fn decoder_type(container: &Container) -> Option<GgmlType> {
    most_bytes(container, |name| {
        name.starts_with("blk.") && name.ends_with(".weight")
    })
}

/// The type that holds most bytes of these tensors.
fn most_bytes(container: &Container, which: impl Fn(&str) -> bool) -> Option<GgmlType> {
    memory::by_type(container, which).first().map(|(ty, _)| *ty)
}

/// Operations of the decoder's matrices for one position. This omits attention (a few percent up to some
/// thousand positions) and the output matrix, which only the last position needs.
pub fn decoder_operations(container: &Container) -> f64 {
    matrices(container, |name| {
        name.starts_with("blk.") && name.ends_with(".weight")
    })
}

/// Operations of Partial-LoRA for one position.
pub fn plora_operations(container: &Container) -> f64 {
    matrices(container, |name| {
        name.ends_with(".lora_a") || name.ends_with(".lora_b")
    })
}

fn matrices(container: &Container, which: impl Fn(&str) -> bool) -> f64 {
    let tensors = container.file().tensors().iter();
    let matrices = tensors.filter(|t| t.shape.len() == 2 && which(&t.name));
    let weights: usize = matrices.map(|t| t.shape.iter().product::<usize>()).sum();
    2.0 * weights as f64
}
