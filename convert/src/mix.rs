//! Which type each tensor is stored in.
//!
//! For the decoder, a preset is llama.cpp's mix of the same name (`--q4_k` is Q4_K_M). The rules below are those
//! of its `llama-quant.cpp` for the tensors of this model. So a file has the same types as `llama-quantize` would
//! give, and through ggml's own quantizer the same bytes. The other parts have their own defaults.

use xc2_edge::model::quant::GgmlType;

use crate::tensor_map::{Mapped, Part, Role};

/// A mix of types for the whole model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Preset {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q6K,
    Q5K,
    Q4K,
    Q4_0,
    /// The numbers of a checkpoint in 4 bits as they are, everything else in F16.
    Authors,
    /// [`Self::Authors`] for a checkpoint in 4 bits, otherwise [`Self::Q4K`].
    Default,
}

/// How a matrix is stored in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As floats.
    Dense,
    /// In 4 bits that a type holds exactly.
    Exact(GgmlType),
    /// In 4 bits that no type holds exactly.
    Inexact,
}

impl Preset {
    /// The preset for a checkpoint that is in 4 bits or not.
    pub fn resolve(self, is_packed: bool) -> Self {
        match self {
            Self::Default if is_packed => Self::Authors,
            Self::Default => Self::Q4K,
            preset => preset,
        }
    }

    /// The option that selects it; none for what is selected without an option.
    pub fn option(self) -> Option<String> {
        match self {
            Self::Authors | Self::Default => None,
            preset => Some(format!("--{}", preset.base().name())),
        }
    }

    /// The type of most matrices.
    pub fn base(self) -> GgmlType {
        match self {
            Self::F32 => GgmlType::F32,
            Self::F16 | Self::Authors => GgmlType::F16,
            Self::Bf16 => GgmlType::BF16,
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q6K => GgmlType::Q6_K,
            Self::Q5K => GgmlType::Q5_K,
            Self::Q4K | Self::Default => GgmlType::Q4_K,
            Self::Q4_0 => GgmlType::Q4_0,
        }
    }

    /// llama.cpp's number of the mix, `enum llama_ftype`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 | Self::Authors => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4K | Self::Default => 15, // Q4_K_M
            Self::Q5K => 17,                 // Q5_K_M
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// The default type of vision tower and projector.
    fn side(self) -> GgmlType {
        let base = self.base();
        if base.is_quantized() {
            GgmlType::Q8_0
        } else {
            base
        }
    }
}

/// A preset, and types that override it.
#[derive(Clone, Debug)]
pub struct Mix {
    /// The preset.
    pub preset: Preset,
    /// For the matrices of the vision tower.
    pub vision: Option<GgmlType>,
    /// For the matrices of the projector.
    pub projector: Option<GgmlType>,
    /// For Partial-LoRA.
    pub plora: Option<GgmlType>,
    /// For the token embeddings.
    pub embedding: Option<GgmlType>,
    /// For the output matrix.
    pub output: Option<GgmlType>,
    /// By tensor name; the first match counts and overrides all of the above.
    pub tensors: Vec<(Pattern, GgmlType)>,
}

impl Mix {
    /// A preset without overrides.
    pub fn new(preset: Preset) -> Self {
        Self {
            preset,
            vision: None,
            projector: None,
            plora: None,
            embedding: None,
            output: None,
            tensors: Vec::new(),
        }
    }
}

/// A pattern of names in the file, with `*` for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return rest.is_empty(); // no `*` at all
        };
        for piece in pieces {
            match rest.find(piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// The type of a tensor, and the type that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The chosen type.
    pub ty: GgmlType,
    /// The requested type, which the row length may not allow.
    pub wanted: GgmlType,
}

impl Mix {
    /// The type of a tensor in a model of `n_layer` decoder layers.
    pub fn choose(&self, tensor: &Mapped, n_layer: usize, stored: Stored) -> Choice {
        let n_cols = tensor.shape.last().copied().unwrap_or(1);
        let wanted = self.wanted(tensor, n_cols, n_layer, stored);
        Choice {
            ty: fallback(wanted, n_cols),
            wanted,
        }
    }

    fn wanted(&self, tensor: &Mapped, n_cols: usize, n_layer: usize, stored: Stored) -> GgmlType {
        if tensor.role == Role::Exact {
            return GgmlType::F32;
        }
        let named = self.tensors.iter().find(|(p, _)| p.matches(&tensor.target));
        if let Some((_, ty)) = named {
            return *ty;
        }
        let side = self.preset.side();
        match (self.preset, stored) {
            (Preset::Authors, Stored::Exact(ty)) => return ty,
            (Preset::Authors, Stored::Inexact) => return GgmlType::Q8_0,
            _ => {}
        }
        match (tensor.part, tensor.role) {
            (Part::Vision, _) => self.vision.unwrap_or(side),
            (Part::Projector, _) => self.projector.unwrap_or(side),
            (Part::Plora, _) => self.plora.unwrap_or(plora_type(self.preset, n_cols)),
            (Part::Decoder, Role::TokenEmbd) => self.embedding.unwrap_or(self.preset.base()),
            (Part::Decoder, Role::Output) => self.output.unwrap_or(output_type(self.preset)),
            (Part::Decoder, role) => {
                layer_type(self.preset, role, tensor.layer.unwrap_or(0), n_layer)
            }
        }
    }
}

/// Partial-LoRA in Q6_K is as accurate as in Q8_0, and faster on some CPUs (docs/decisions/008-q6_k-adapter.md).
/// Rows that Q6_K blocks do not divide are stored in Q8_0.
fn plora_type(preset: Preset, n_cols: usize) -> GgmlType {
    match preset {
        Preset::Q6K | Preset::Q5K | Preset::Q4K | Preset::Q4_0
            if n_cols.is_multiple_of(GgmlType::Q6_K.block_len()) =>
        {
            GgmlType::Q6_K
        }
        _ => preset.side(),
    }
}

/// The output matrix affects every token, so it has at least six bits.
fn output_type(preset: Preset) -> GgmlType {
    match preset {
        Preset::Q6K | Preset::Q5K | Preset::Q4K | Preset::Q4_0 => GgmlType::Q6_K,
        _ => preset.base(),
    }
}

fn layer_type(preset: Preset, role: Role, layer: usize, n_layer: usize) -> GgmlType {
    // llama.cpp treats a fused qkv like "attn_v"; its later branch for qkv is never reached.
    let sensitive = matches!(role, Role::AttnQkv | Role::FfnDown);
    let k_m = matches!(preset, Preset::Q4K | Preset::Q5K);
    if k_m && sensitive && more_bits(layer, n_layer) {
        return GgmlType::Q6_K;
    }
    preset.base()
}

/// The first and last eighth of the layers, and every third between.
fn more_bits(layer: usize, n_layer: usize) -> bool {
    let eighth = n_layer / 8;
    layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2
}

/// The nearest type for rows of `n_cols`, by llama.cpp's rules: blocks of 256, else a type with blocks of 32 and
/// slightly more bits, else F16.
fn fallback(wanted: GgmlType, n_cols: usize) -> GgmlType {
    let fits = |ty: GgmlType| n_cols.is_multiple_of(ty.block_len());
    if fits(wanted) {
        return wanted;
    }
    let smaller = match wanted {
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        other => other,
    };
    if fits(smaller) {
        smaller
    } else {
        GgmlType::F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_map::Rows;

    fn tensor(target: &str, part: Part, role: Role, n_cols: usize) -> Mapped {
        Mapped {
            source: String::new(),
            target: target.to_owned(),
            part,
            role,
            rows: Rows::Keep,
            shape: vec![4, n_cols],
            layer: Some(0),
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("blk.0.attn_qkv.weight", "blk.0.attn_qkv.weight", true),
            (
                "blk.0.attn_qkv.weight",
                "blk.0.attn_qkv.weight.lora_a",
                false,
            ),
            ("blk.*.ffn_down.weight", "blk.11.ffn_down.weight", true),
            ("blk.*.ffn_down.weight", "v.blk.1.ffn_down.weight", false),
            ("*lora_b", "blk.0.attn_qkv.weight.lora_b", true),
            ("*", "anything", true),
            ("a*b*c", "a-b-b-c", true),
            ("ab*ba", "aba", false),
            ("", "x", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(
                Pattern(pattern.to_owned()).matches(name),
                expected,
                "{pattern} on {name}"
            );
        }
    }

    #[test]
    fn rows_that_do_not_fit_fall_back_as_in_llama_cpp() {
        use GgmlType::*;
        let cases = [
            (Q4_K, 256, Q4_K),
            (Q4_K, 128, Q5_0),
            (Q5_K, 96, Q5_1),
            (Q6_K, 32, Q8_0),
            (Q8_0, 8, F16),
            (Q4_K, 8, F16),
            (F32, 7, F32),
        ];
        for (wanted, n_cols, expected) in cases {
            assert_eq!(
                fallback(wanted, n_cols),
                expected,
                "{wanted} with {n_cols} columns"
            );
        }
    }

    #[test]
    fn more_bits_go_to_the_outer_layers_and_every_third() {
        let chosen: Vec<usize> = (0..24).filter(|&l| more_bits(l, 24)).collect();
        assert_eq!(chosen, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
    }

    #[test]
    fn overrides_precede_the_preset_and_names_precede_parts() {
        let mut mix = Mix::new(Preset::Q4K);
        mix.vision = Some(GgmlType::F16);
        mix.tensors = vec![(Pattern("v.blk.0.*".to_owned()), GgmlType::F32)];
        let choose = |name, part, role| {
            mix.choose(&tensor(name, part, role, 256), 8, Stored::Dense)
                .ty
        };
        assert_eq!(
            choose("v.blk.0.attn_q.weight", Part::Vision, Role::Matrix),
            GgmlType::F32
        );
        assert_eq!(
            choose("v.blk.1.attn_q.weight", Part::Vision, Role::Matrix),
            GgmlType::F16
        );
        assert_eq!(
            choose("v.blk.1.attn_q.bias", Part::Vision, Role::Exact),
            GgmlType::F32
        );
        assert_eq!(
            choose("blk.0.attn_output.weight.lora_a", Part::Plora, Role::Matrix),
            GgmlType::Q6_K
        );
        let narrow = tensor(
            "blk.0.attn_output.weight.lora_b",
            Part::Plora,
            Role::Matrix,
            64,
        );
        let eight = Choice {
            ty: GgmlType::Q8_0,
            wanted: GgmlType::Q8_0,
        };
        assert_eq!(mix.choose(&narrow, 8, Stored::Dense), eight);
        assert_eq!(
            choose("output.weight", Part::Decoder, Role::Output),
            GgmlType::Q6_K
        );
        assert_eq!(
            choose("token_embd.weight", Part::Decoder, Role::TokenEmbd),
            GgmlType::Q4_K
        );
    }
}
