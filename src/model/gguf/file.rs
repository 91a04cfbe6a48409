//! A GGUF file, mapped into memory.

use std::{collections::HashMap, fs::File, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;

use super::{GgufError, Header, Metadata, TensorInfo};
use crate::model::FileMap;
use crate::model::tensor::{Tensor, TensorSource};

/// A GGUF file whose header was read and checked, and whose data are mapped but not yet read.
///
/// Cloning is cheap: clones share the map.
#[derive(Clone, Debug)]
pub struct GgufFile {
    header: Header,
    data_start: usize,
    /// Name → index into `header.tensors` and start of the data in the file.
    index: HashMap<String, (usize, usize)>,
    bytes: Bytes,
    /// The map behind `bytes`, if they come from a file.
    map: Option<Arc<FileMap>>,
}

impl GgufFile {
    /// Maps `path` and reads its header.
    ///
    /// # Errors
    /// If the file cannot be read, is not a GGUF file, or ends before its last tensor.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let attributes = std::fs::metadata(path)?; // checked first: opening a pipe would wait for its writer
        if attributes.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory).into());
        }
        if !attributes.is_file() {
            return Err(GgufError::invalid(
                "file",
                "a regular file",
                "a device or a pipe",
            ));
        }
        if attributes.len() == 0 {
            return Self::from_bytes(Bytes::new()); // an empty file cannot be mapped
        }
        let map = Arc::new(FileMap::new(&File::open(path)?)?);
        let mut file = Self::from_bytes(Bytes::from_owner(Shared(Arc::clone(&map))))?;
        file.map = Some(map);
        Ok(file)
    }

    /// Reads a GGUF file from memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, GgufError> {
        let (header, data_start) = Header::parse(&bytes)?;
        let mut index = HashMap::with_capacity(header.tensors.len());
        for (i, (tensor, offset)) in header.tensors.iter().zip(header.offsets()).enumerate() {
            let start = data_start + offset;
            let n_bytes = tensor.n_bytes().expect("checked by the parser");
            if start
                .checked_add(n_bytes)
                .is_none_or(|end| end > bytes.len())
            {
                return Err(GgufError::Truncated {
                    field: format!("tensor `{}`", tensor.name),
                    needed: n_bytes as u64,
                    left: bytes.len().saturating_sub(start) as u64,
                });
            }
            index.insert(tensor.name.clone(), (i, start));
        }
        Ok(Self {
            header,
            data_start,
            index,
            bytes,
            map: None,
        })
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The tensors in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// Offset of a tensor's data in the file, in bytes.
    pub fn data_offset(&self, name: &str) -> Option<usize> {
        self.index.get(name).map(|(_, start)| *start)
    }

    /// The whole data section.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.data_start.min(self.bytes.len())..]
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The share of the file that is in the page cache, 0 to 1; `None` if the data are in memory or the system does
    /// not report it.
    pub fn cached_share(&self) -> Option<f64> {
        self.map.as_ref()?.cached_share()
    }

    fn data_of(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    /// The tensor with this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn require(&self, name: &str) -> Result<Tensor, GgufError> {
        self.tensor(name).ok_or_else(|| GgufError::MissingTensor {
            name: name.to_owned(),
        })
    }
}

impl TensorSource for GgufFile {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        let &(i, start) = self.index.get(name)?;
        let TensorInfo { name, ty, shape } = self.header.tensors[i].clone();
        let n_bytes = self.header.tensors[i].n_bytes()?;
        Some(Tensor {
            name,
            ty,
            shape,
            data: self.data_of(start..start + n_bytes),
        })
    }
}

/// A map shared by [`Bytes`] and the file.
struct Shared(Arc<FileMap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}
