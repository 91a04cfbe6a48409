//! How exact a model can be, by the types of its weights, and what is allowed for it.

use crate::{container::Container, quant::GgmlType};

/// The coarsest type of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Full,
    Half,
    EightBit,
    FewBits,
}

impl Grade {
    fn of(ty: GgmlType) -> Self {
        match ty {
            GgmlType::F32 | GgmlType::I8 => Self::Full,
            GgmlType::F16 | GgmlType::BF16 => Self::Half,
            GgmlType::Q8_0 => Self::EightBit,
            _ => Self::FewBits,
        }
    }
}

/// What is allowed, stage by stage. The figures for logits are those that came with the reference
/// data (`tests/reference/README.md`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    vision: Grade,
    decoder: Grade,
}

/// A bound on a stage of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// On every value.
    Absolute(f64),
    /// On the whole: relative root mean square, and cosine.
    Relative(f64, f64),
}

impl Precision {
    /// The precision of a model.
    pub fn of(container: &Container) -> Self {
        let grade = |is_part: &dyn Fn(&str) -> bool| {
            let tensors = container.file().tensors().iter();
            tensors
                .filter(|t| is_part(&t.name))
                .map(|t| Grade::of(t.ty))
                .max()
        };
        let is_vision = |name: &str| name.starts_with("v.") || name.starts_with("mm.");
        let vision = grade(&is_vision).unwrap_or(Grade::Full);
        let decoder = grade(&|name| !is_vision(name)).unwrap_or(Grade::Full);
        Self { vision, decoder }
    }

    /// For the stages of the tower and the projector. 16-bit weights hold the reference's numbers
    /// exactly and are multiplied in `f32`.
    pub(super) fn vision(&self) -> Bound {
        match self.vision {
            Grade::Full | Grade::Half => Bound::Absolute(1e-4),
            Grade::EightBit => Bound::Relative(3e-2, 0.999),
            Grade::FewBits => Bound::Relative(0.35, 0.93),
        }
    }

    /// For the rows that go into the decoder: token embeddings and projected pictures.
    pub(super) fn inputs(&self) -> Bound {
        match self.whole() {
            Grade::Full | Grade::Half => Bound::Absolute(1e-4),
            Grade::EightBit => Bound::Relative(3e-2, 0.999),
            Grade::FewBits => Bound::Relative(0.35, 0.93),
        }
    }

    /// For logits.
    pub(super) fn logits(&self) -> Bound {
        match self.whole() {
            Grade::Full => Bound::Absolute(2e-3),
            Grade::Half => Bound::Relative(1e-2, 0.9999),
            Grade::EightBit => Bound::Relative(3e-2, 0.999),
            Grade::FewBits => Bound::Relative(0.35, 0.93),
        }
    }

    /// A greedy choice may differ where the first logit leads by less than this.
    pub(super) fn margin(&self) -> f32 {
        match self.whole() {
            Grade::Full => 4e-3, // two logits, each off by the tolerance
            Grade::Half => 0.15,
            Grade::EightBit | Grade::FewBits => f32::INFINITY,
        }
    }

    /// The share of greedy choices that must agree whatever their margins.
    pub(super) fn agreement(&self) -> f64 {
        match self.whole() {
            Grade::Full | Grade::Half => 0.0, // margins decide
            Grade::EightBit => 0.95,
            Grade::FewBits => 0.6,
        }
    }

    fn whole(&self) -> Grade {
        self.vision.max(self.decoder)
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |grade| match grade {
            Grade::Full => "f32",
            Grade::Half => "16-bit",
            Grade::EightBit => "8-bit",
            Grade::FewBits => "fewer bits",
        };
        write!(
            f,
            "tower {}, decoder {}",
            name(self.vision),
            name(self.decoder)
        )
    }
}
