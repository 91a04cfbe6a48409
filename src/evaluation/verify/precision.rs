//! Tolerances by the types of a model's weights.
//!
//! The bounds on logits and greedy choices come with the reference data (`tests/reference/README.md`). They were
//! measured with an exact adapter and tower; if those are quantized as well, the bounds are wider.

use crate::model::{container::Container, quant::GgmlType};

/// The coarsest type of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    /// `f32`.
    Full,
    /// `f16`: exact for the reference's weights, but the decoder multiplies in `f16`.
    Half,
    /// `bf16`: exact as well, but the decoder rounds activations to 8 bits of mantissa.
    Brain,
    /// `q8_0`.
    EightBit,
    /// Anything coarser.
    FewBits,
}

impl Grade {
    fn of(ty: GgmlType) -> Self {
        match ty {
            GgmlType::F32 | GgmlType::I8 => Self::Full,
            GgmlType::F16 => Self::Half,
            GgmlType::BF16 => Self::Brain,
            GgmlType::Q8_0 => Self::EightBit,
            _ => Self::FewBits,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "f32",
            Self::Half => "f16",
            Self::Brain => "bf16",
            Self::EightBit => "8-bit",
            Self::FewBits => "fewer bits",
        }
    }
}

/// Precision of a model's parts, which gives the tolerance of each stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    vision: Grade,
    plora: Grade,
    decoder: Grade,
}

/// Tolerance of a numeric stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// For every value.
    Absolute(f64),
    /// For all values together: relative root mean square, and cosine similarity.
    Relative(f64, f64),
}

/// Required agreement of greedy choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Agreement {
    /// Equal wherever the margin of the first logit is larger than this.
    Margin(f32),
    /// This share of all choices.
    Share(f64),
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
        let is_plora = |name: &str| name.ends_with(".lora_a") || name.ends_with(".lora_b");
        let is_decoder = |name: &str| !is_vision(name) && !is_plora(name);
        let decoder = grade(&is_decoder).unwrap_or(Grade::Full);
        // The reference was computed with the packed numbers, so only activations are rounded.
        let holds_packed = container.info().source_quantization.is_some();
        Self {
            vision: grade(&is_vision).unwrap_or(Grade::Full),
            plora: grade(&is_plora).unwrap_or(Grade::Full),
            decoder: match holds_packed {
                true => decoder.min(Grade::EightBit),
                false => decoder,
            },
        }
    }

    /// The precision if the tower's pixels differ from the original's by a few levels: for a lossy picture
    /// without recorded pixels.
    pub(super) fn with_other_pixels(self) -> Self {
        Self {
            vision: self.vision.max(Grade::EightBit),
            ..self
        }
    }

    /// For the stages of the tower and the projector. 16-bit weights represent the reference's numbers exactly.
    /// `f16` is multiplied in `f32`; with `bf16`, activations are rounded to 16 bits on CPUs where that is faster.
    pub(super) fn vision(&self) -> Bound {
        match self.vision {
            Grade::Full | Grade::Half => Bound::Absolute(1e-4),
            Grade::Brain => Bound::Relative(1e-2, 0.9999),
            Grade::EightBit => Bound::Relative(3e-2, 0.999),
            Grade::FewBits => Bound::Relative(0.35, 0.93),
        }
    }

    /// For the decoder's input rows: token embeddings and projected pictures.
    pub(super) fn inputs(&self) -> Bound {
        match self.vision.max(self.decoder) {
            Grade::Full | Grade::Half => Bound::Absolute(1e-4),
            Grade::Brain => Bound::Relative(1e-2, 0.9999),
            Grade::EightBit => Bound::Relative(3e-2, 0.999),
            Grade::FewBits => Bound::Relative(0.35, 0.93),
        }
    }

    /// For logits.
    pub(super) fn logits(&self) -> Bound {
        let beside = self.vision.max(self.plora);
        match self.decoder.max(beside) {
            Grade::Full => Bound::Absolute(2e-3),
            Grade::Half => Bound::Relative(1e-2, 0.9999),
            Grade::Brain => Bound::Relative(3e-2, 0.999),
            Grade::EightBit if beside < Grade::EightBit => Bound::Relative(3e-2, 0.999),
            Grade::EightBit => Bound::Relative(5e-2, 0.998),
            Grade::FewBits => Bound::Relative(0.35, 0.93),
        }
    }

    /// For the logits of the most likely tokens of every position. Quantization changes these more than the
    /// others, and the reference has no bound for them, so they are only reported.
    pub(super) fn top_logits(&self) -> Option<Bound> {
        let exact = self.decoder.max(self.vision).max(self.plora) <= Grade::Half;
        exact.then(|| self.logits())
    }

    /// For greedy choices.
    pub(super) fn agreement(&self) -> Agreement {
        match self.decoder.max(self.vision).max(self.plora) {
            Grade::Full => Agreement::Margin(4e-3), // two logits, each off by the tolerance
            Grade::Half => Agreement::Margin(0.15),
            Grade::Brain | Grade::EightBit => Agreement::Share(0.95),
            Grade::FewBits => Agreement::Share(0.6),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            vision,
            plora,
            decoder,
        } = self;
        write!(
            f,
            "tower {}, Partial-LoRA {}, decoder {}",
            vision.name(),
            plora.name(),
            decoder.name()
        )
    }
}
