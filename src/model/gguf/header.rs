//! The header of a GGUF file and its encoding.

use super::{ALIGNMENT, GgufError, Metadata, Value, align, reader::Reader};
use crate::model::quant::GgmlType;

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
pub(super) const VERSION: u32 = 3;

/// A tensor in the header's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, at most 63 bytes.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// One to four dimensions, the fastest-varying first.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Describes a tensor.
    pub fn new(name: impl Into<String>, ty: GgmlType, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name: name.into(),
            ty,
            shape: shape.into(),
        }
    }

    /// Size of the data in bytes; `None` if the rows are not whole blocks or the size overflows.
    pub fn n_bytes(&self) -> Option<usize> {
        let (&n_cols, rest) = self.shape.split_first()?;
        let n_rows = rest.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        self.ty.row_bytes(n_cols)?.checked_mul(n_rows)
    }
}

/// The header of a GGUF file: metadata, and tensors in the order of their data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Metadata in file order.
    pub metadata: Metadata,
    /// Tensors. The data of each start at the next multiple of [`ALIGNMENT`] after the previous ones.
    pub tensors: Vec<TensorInfo>,
}

impl Header {
    /// Reads a header from the start of `bytes`, which may be a whole file.
    ///
    /// Returns the header and the offset of the data section.
    ///
    /// # Errors
    /// If the bytes are not a complete, consistent header. They may be arbitrary.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), GgufError> {
        Reader::new(bytes).header()
    }

    /// Encodes the header, padded to [`ALIGNMENT`]; the data follow directly.
    ///
    /// # Panics
    /// If a tensor's rows are not whole blocks of its type.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.0.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata.0 {
            put_str(&mut out, key);
            out.extend((value.value_type() as u32).to_le_bytes());
            put_value(&mut out, value);
        }
        for (tensor, offset) in self.tensors.iter().zip(self.offsets()) {
            put_str(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &dim in &tensor.shape {
                out.extend((dim as u64).to_le_bytes());
            }
            out.extend(tensor.ty.id().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
        }
        out.resize(align(out.len()), 0);
        out
    }

    /// Offset of each tensor's data in the data section.
    pub fn offsets(&self) -> Vec<usize> {
        self.offsets_and_end().0
    }

    /// Size of the data section in bytes: every tensor is padded to [`ALIGNMENT`], including the last.
    pub fn data_bytes(&self) -> usize {
        self.offsets_and_end().1
    }

    fn offsets_and_end(&self) -> (Vec<usize>, usize) {
        let mut end = 0;
        let start = self.tensors.iter().map(|tensor| {
            let start = end;
            end = align(start + tensor.n_bytes().expect("rows are whole blocks"));
            start
        });
        let start = start.collect();
        debug_assert_eq!(end % ALIGNMENT, 0);
        (start, end)
    }
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_str(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Array(ty, items) => {
            out.extend((*ty as u32).to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            for item in items {
                debug_assert_eq!(item.value_type(), *ty, "arrays hold one type");
                put_value(out, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::ValueType;

    fn sample() -> Header {
        let mut header = Header::default();
        header.metadata.set("general.architecture", "xcomposer2");
        header.metadata.set("a.u32", 7u32);
        header.metadata.set("a.f32", 1.5f32);
        header.metadata.set("a.bool", true);
        header.metadata.set("a.u64", u64::MAX);
        header
            .metadata
            .set("a.strings", Value::strings(["x", "", "灵笔"]));
        header.metadata.set("a.rgb", Value::f32s([0.1, 0.2, 0.3]));
        header
            .metadata
            .set("a.empty", Value::Array(ValueType::I32, vec![]));
        header
            .tensors
            .push(TensorInfo::new("w", GgmlType::Q8_0, [64, 3]));
        header
            .tensors
            .push(TensorInfo::new("b", GgmlType::F32, [5]));
        header
            .tensors
            .push(TensorInfo::new("blob", GgmlType::I8, [96]));
        header
    }

    #[test]
    fn encode_and_parse_round_trip() {
        let header = sample();
        let bytes = header.encode();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let (back, data) = Header::parse(&bytes).unwrap();
        assert_eq!((back, data), (header, bytes.len()));
    }

    #[test]
    fn data_are_contiguous_and_aligned() {
        let header = sample();
        assert_eq!(header.offsets(), [0, 224, 256]); // 3 rows of 68 bytes = 204, then 20
        assert_eq!(header.data_bytes(), 256 + 96);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample().encode();
        let (_, _) = Header::parse(&bytes).unwrap();
        let list_end = bytes.len() - bytes.iter().rev().take_while(|b| **b == 0).count();
        for len in 0..list_end {
            assert!(
                Header::parse(&bytes[..len]).is_err(),
                "cut at {len} of {}",
                bytes.len()
            );
        }
    }

    #[test]
    fn flipped_bits_never_cause_a_panic() {
        let bytes = sample().encode();
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[i] ^= 1 << bit;
                let _ = Header::parse(&damaged);
            }
        }
    }
}
