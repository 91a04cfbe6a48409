//! ggml's tensor element types, and conversions between them and `f32`.
//!
//! [`GgmlType`] knows each type's block layout, which is all that a reader of a GGUF file needs. The conversions are
//! ggml's own (see `ggml.rs`): a tensor that this program writes is byte for byte what llama.cpp writes for the same
//! type.

mod ggml;

pub use ggml::{dequantize, quantize_rows};

/// An element type of a GGUF tensor.
///
/// The discriminants are the ids of `enum ggml_type`. Only types that this project reads or writes are listed; an
/// unknown id in a file is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs)]
#[repr(u32)]
pub enum GgmlType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    /// Plain bytes: the view headers of the container.
    I8 = 24,
    BF16 = 30,
}

/// Name, elements per block and bytes per block of every type, in the order of the enum.
const TYPES: [(GgmlType, &str, usize, usize); 14] = [
    (GgmlType::F32, "f32", 1, 4),
    (GgmlType::F16, "f16", 1, 2),
    (GgmlType::Q4_0, "q4_0", 32, 18),
    (GgmlType::Q4_1, "q4_1", 32, 20),
    (GgmlType::Q5_0, "q5_0", 32, 22),
    (GgmlType::Q5_1, "q5_1", 32, 24),
    (GgmlType::Q8_0, "q8_0", 32, 34),
    (GgmlType::Q2_K, "q2_k", 256, 84),
    (GgmlType::Q3_K, "q3_k", 256, 110),
    (GgmlType::Q4_K, "q4_k", 256, 144),
    (GgmlType::Q5_K, "q5_k", 256, 176),
    (GgmlType::Q6_K, "q6_k", 256, 210),
    (GgmlType::I8, "i8", 1, 1),
    (GgmlType::BF16, "bf16", 1, 2),
];

impl GgmlType {
    /// Every type, in the order of their ids.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.iter().map(|t| t.0)
    }

    /// The type with this id in `enum ggml_type`, if it is supported.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::all().find(|t| t.id() == id)
    }

    /// The type with this [name](Self::name), in any letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES
            .iter()
            .find(|t| t.1.eq_ignore_ascii_case(name))
            .map(|t| t.0)
    }

    /// The id in `enum ggml_type`.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The usual lower-case name, such as `q4_k`.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Elements per block; the length of a row must be a multiple of it.
    pub fn block_len(self) -> usize {
        self.entry().2
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.entry().3
    }

    /// Bytes of a row of `n` elements; `None` if `n` is not a multiple of the block length or the product overflows.
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        n.is_multiple_of(self.block_len()).then_some(())?;
        (n / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Whether values are stored in blocks that share a scale.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    fn entry(self) -> &'static (Self, &'static str, usize, usize) {
        TYPES
            .iter()
            .find(|t| t.0 == self)
            .expect("TYPES lists every variant")
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_layout_equals_that_of_the_linked_ggml() {
        for ty in GgmlType::all() {
            assert_eq!(
                ggml::geometry(ty),
                (ty.block_len(), ty.block_bytes()),
                "{ty}"
            );
        }
    }

    #[test]
    fn names_and_ids_round_trip() {
        for ty in GgmlType::all() {
            assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
            assert_eq!(GgmlType::from_name(&ty.name().to_uppercase()), Some(ty));
        }
        assert_eq!(GgmlType::from_id(4), None);
    }

    #[test]
    fn every_f16_value_is_converted_exactly() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut found = vec![0.0; 1 << 16];
        dequantize(GgmlType::F16, &bytes, &mut found);
        for (bits, found) in (0..=u16::MAX).zip(found) {
            let expected = half::f16::from_bits(bits).to_f32();
            assert!(
                found == expected || (found.is_nan() && expected.is_nan()),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn round_trip_error_is_small_and_falls_with_more_bits() {
        let x: Vec<f32> = (0..1024)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
            .collect();
        let rms = |ty: GgmlType| {
            let mut packed = vec![0; ty.row_bytes(512).unwrap() * 2];
            quantize_rows(ty, &x, 512, &mut packed);
            let mut back = vec![0.0; x.len()];
            dequantize(ty, &packed, &mut back);
            let sum: f32 = x.iter().zip(&back).map(|(a, b)| (a - b).powi(2)).sum();
            (sum / x.len() as f32).sqrt()
        };
        let order = [
            GgmlType::Q4_K,
            GgmlType::Q5_K,
            GgmlType::Q6_K,
            GgmlType::Q8_0,
            GgmlType::F16,
        ];
        let errors: Vec<f32> = order.iter().map(|&t| rms(t)).collect();
        assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
        assert!(errors[0] < 0.05 && rms(GgmlType::F32) == 0.0, "{errors:?}");
    }
}
