//! Opening a model file.

use std::path::{Path, PathBuf};

use super::{Checksum, ContainerError, ModelInfo, View, keys, view};
use crate::model::{
    gguf::{GgufFile, Header},
    tensor::{Tensor, TensorSource},
};

/// A model file whose structure was checked: both views describe the tensors that the outer header lists, at the same
/// offsets, all within the file.
#[derive(Clone, Debug)]
pub struct Container {
    path: PathBuf,
    file: GgufFile,
    info: ModelInfo,
}

impl Container {
    /// Maps `path` and checks its structure; tensor data are not read.
    ///
    /// # Errors
    /// If it is not a complete model file. [`Self::verify_checksum`] checks the data.
    pub fn open(path: &Path) -> Result<Self, ContainerError> {
        let file = GgufFile::open(path)?;
        check_kind(&file)?;
        let decoder = view::checked(&file, View::Decoder)?;
        view::checked(&file, View::Adapter)?;
        let info = ModelInfo::read(file.metadata(), &decoder.metadata)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            info,
        })
    }

    /// The model's metadata.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The file as a GGUF.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Offset of a view in the file, in bytes.
    pub fn view_offset(&self, view: View) -> usize {
        self.file
            .data_offset(view.tensor_name())
            .expect("checked by `open`")
    }

    /// A view's header.
    pub fn view_header(&self, view: View) -> Header {
        let blob = self
            .file
            .tensor(view.tensor_name())
            .expect("checked by `open`");
        Header::parse(&blob.data).expect("checked by `open`").0
    }

    /// The checksum in the file's header.
    ///
    /// # Errors
    /// If there is none.
    pub fn checksum(&self) -> Result<&str, ContainerError> {
        Ok(self.file.metadata().str(keys::XC2_CHECKSUM)?)
    }

    /// Reads all data and compares their checksum with the one in the header. Calls `progress` with the number of
    /// bytes read so far.
    ///
    /// # Errors
    /// If they differ.
    pub fn verify_checksum(&self, mut progress: impl FnMut(u64)) -> Result<(), ContainerError> {
        const CHUNK: usize = 64 << 20;
        let expected = self.checksum()?;
        let mut checksum = Checksum::default();
        let mut n_read = 0;
        for chunk in self.file.data().chunks(CHUNK) {
            checksum.update_parallel(chunk);
            n_read += chunk.len() as u64;
            progress(n_read);
        }
        let found = checksum.hex();
        if found == expected {
            return Ok(());
        }
        Err(ContainerError::Checksum {
            expected: expected.to_owned(),
            found,
        })
    }
}

impl TensorSource for Container {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        self.file.tensor(name)
    }
}

fn check_kind(file: &GgufFile) -> Result<(), ContainerError> {
    let found = file.metadata().str(keys::GENERAL_ARCHITECTURE)?;
    if found != keys::ARCHITECTURE {
        return Err(ContainerError::NotOurs {
            found: found.to_owned(),
        });
    }
    match file.metadata().usize(keys::XC2_VERSION)? {
        keys::VERSION => Ok(()),
        found => Err(ContainerError::Version { found }),
    }
}
