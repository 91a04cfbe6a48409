//! Parses untrusted header bytes.

use super::header::{MAGIC, VERSION};
use super::{ALIGNMENT, GgufError, Header, Metadata, TensorInfo, Value, ValueType, align};
use crate::model::quant::GgmlType;

/// ggml's `GGML_MAX_DIMS`: tensors have at most four dimensions.
const MAX_DIMS: u32 = 4;
/// ggml's `GGML_MAX_NAME` without the final zero: llama.cpp rejects longer names as well.
const MAX_NAME_BYTES: usize = 63;
/// The shortest metadata entry: an empty key, a type, one byte.
const MIN_ENTRY_BYTES: usize = 8 + 4 + 1;
/// The shortest tensor entry: an empty name, the dimension count, one dimension, type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 8 + 4 + 8;

/// More entries, tensors or array elements than any model has (the largest vocabularies have a quarter of a million
/// pieces). The number of bytes left would be a weak limit, because a value takes more memory than it does in the
/// file.
const MAX_COUNT: u64 = 1 << 20;

/// A cursor over the bytes. Every read takes the name of its field for error messages.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    pub(super) fn header(mut self) -> Result<(Header, usize), GgufError> {
        self.magic()?;
        let version = self.u32("version")?;
        if version != VERSION {
            return Err(GgufError::Version { found: version });
        }
        let n_tensors = self.list_len("tensor count", MIN_TENSOR_BYTES)?;
        let n_entries = self.list_len("metadata count", MIN_ENTRY_BYTES)?;
        let mut header = Header {
            metadata: self.metadata(n_entries)?,
            tensors: Vec::new(),
        };
        if let Ok(found) = header.metadata.usize("general.alignment")
            && found != ALIGNMENT
        {
            return Err(GgufError::invalid(
                "general.alignment",
                ALIGNMENT.to_string(),
                found,
            ));
        }
        let mut data_end = 0;
        for _ in 0..n_tensors {
            let tensor = self.tensor(&mut data_end)?;
            header.tensors.push(tensor);
        }
        self.unique_names(&header)?;
        Ok((header, align(self.pos)))
    }

    fn magic(&mut self) -> Result<(), GgufError> {
        let found = &self.bytes[..self.bytes.len().min(4)];
        if found != MAGIC {
            let found = match found {
                [] => "an empty file".to_owned(),
                bytes => format!("`{}`", bytes.escape_ascii()),
            };
            return Err(GgufError::Magic { found });
        }
        self.pos = 4;
        Ok(())
    }

    fn metadata(&mut self, n: usize) -> Result<Metadata, GgufError> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        for i in 0..n {
            let key = self.string(&format!("metadata key {i}"))?;
            let field = format!("metadata key `{key}`");
            if !names.insert(key.clone()) {
                return Err(GgufError::invalid(
                    field,
                    "a key that occurs once",
                    "a duplicate",
                ));
            }
            let ty = self.value_type(&field)?;
            let value = if ty == ValueType::Array {
                self.array(&field)?
            } else {
                self.scalar(ty, &field)?
            };
            entries.push((key, value));
        }
        Ok(Metadata(entries))
    }

    fn array(&mut self, field: &str) -> Result<Value, GgufError> {
        let ty = self.value_type(field)?;
        if ty == ValueType::Array {
            return Err(GgufError::invalid(
                field,
                "an array of plain values",
                "nested arrays",
            ));
        }
        let n = self.list_len(field, ty.min_bytes())?;
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.scalar(ty, field)?);
        }
        Ok(Value::Array(ty, items))
    }

    fn scalar(&mut self, ty: ValueType, field: &str) -> Result<Value, GgufError> {
        Ok(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.take(field)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.take(field)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.take(field)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.take(field)?)),
            ValueType::U32 => Value::U32(self.u32(field)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.take(field)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.take(field)?)),
            ValueType::U64 => Value::U64(self.u64(field)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.take(field)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.take(field)?)),
            ValueType::String => Value::String(self.string(field)?),
            ValueType::Bool => match u8::from_le_bytes(self.take(field)?) {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(GgufError::invalid(field, "0 or 1", other)),
            },
            ValueType::Array => unreachable!("arrays are read by `array`, and not nested"),
        })
    }

    /// Reads one tensor entry. Its data must start at `data_end`, where the previous ones end.
    fn tensor(&mut self, data_end: &mut usize) -> Result<TensorInfo, GgufError> {
        let name = self.string("tensor name")?;
        let field = |what: &str| format!("tensor `{name}`: {what}");
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let expected = format!("1 to {MAX_NAME_BYTES} bytes");
            return Err(GgufError::invalid(
                field("length of the name"),
                expected,
                name.len(),
            ));
        }
        let n_dims = self.u32(&field("number of dimensions"))?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            let expected = format!("1 to {MAX_DIMS}");
            return Err(GgufError::invalid(
                field("number of dimensions"),
                expected,
                n_dims,
            ));
        }
        let mut shape = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            let dim = self.u64(&field("dimension"))?;
            let size = usize::try_from(dim).ok().filter(|d| *d > 0);
            shape.push(
                size.ok_or_else(|| GgufError::invalid(field("dimension"), "1 or more", dim))?,
            );
        }
        let id = self.u32(&field("type"))?;
        let ty = GgmlType::from_id(id)
            .ok_or_else(|| GgufError::invalid(field("type"), "a supported ggml type", id))?;
        let offset = self.u64(&field("offset"))?;
        if offset != *data_end as u64 {
            let expected = format!("{data_end} (data without gaps)");
            return Err(GgufError::invalid(field("offset"), expected, offset));
        }
        let info = TensorInfo {
            name: name.clone(),
            ty,
            shape,
        };
        let n_bytes = info
            .n_bytes()
            .filter(|n| *n <= (isize::MAX as usize - ALIGNMENT).saturating_sub(*data_end));
        let n_bytes = n_bytes.ok_or_else(|| {
            let expected = format!("whole blocks of {ty}, a size that memory can hold");
            GgufError::invalid(field("shape"), expected, format!("{:?}", info.shape))
        })?;
        *data_end = align(*data_end + n_bytes);
        Ok(info)
    }

    fn unique_names(&self, header: &Header) -> Result<(), GgufError> {
        let mut names = std::collections::HashSet::new();
        match header.tensors.iter().find(|t| !names.insert(&t.name)) {
            Some(t) => {
                let field = format!("tensor `{}`", t.name);
                Err(GgufError::invalid(
                    field,
                    "a name that occurs once",
                    "a duplicate",
                ))
            }
            None => Ok(()),
        }
    }

    fn value_type(&mut self, field: &str) -> Result<ValueType, GgufError> {
        let id = self.u32(field)?;
        ValueType::from_id(id)
            .ok_or_else(|| GgufError::invalid(format!("{field}: type"), "0 to 12", id))
    }

    /// Reads the number of elements of a list, at most [`MAX_COUNT`].
    fn list_len(&mut self, field: &str, min_bytes: usize) -> Result<usize, GgufError> {
        match self.count(field, min_bytes)? {
            n if n as u64 <= MAX_COUNT => Ok(n),
            n => Err(GgufError::invalid(field, format!("at most {MAX_COUNT}"), n)),
        }
    }

    /// Reads a number of elements of at least `min_bytes` each; they must fit into the bytes left.
    fn count(&mut self, field: &str, min_bytes: usize) -> Result<usize, GgufError> {
        let n = self.u64(field)?;
        let needed = n.saturating_mul(min_bytes as u64);
        if needed > self.left() as u64 {
            return Err(self.truncated(field, needed));
        }
        Ok(n as usize)
    }

    fn string(&mut self, field: &str) -> Result<String, GgufError> {
        let n = self.count(field, 1)?;
        let bytes = &self.bytes[self.pos..self.pos + n];
        self.pos += n;
        let text = std::str::from_utf8(bytes);
        let invalid = |_| GgufError::invalid(field, "UTF-8", format!("`{}`", bytes.escape_ascii()));
        text.map(str::to_owned).map_err(invalid)
    }

    fn u32(&mut self, field: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.take(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.take(field)?))
    }

    fn take<const N: usize>(&mut self, field: &str) -> Result<[u8; N], GgufError> {
        let Some(chunk) = self.bytes[self.pos..].first_chunk::<N>() else {
            return Err(self.truncated(field, N as u64));
        };
        self.pos += N;
        Ok(*chunk)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.pos
    }

    fn truncated(&self, field: &str, needed: u64) -> GgufError {
        GgufError::Truncated {
            field: field.to_owned(),
            needed,
            left: self.left() as u64,
        }
    }
}
