//! Opening a model file.

use std::path::{Path, PathBuf};

use super::{Checksum, ContainerError, ModelInfo, View, keys, view};
use crate::model::{
    gguf::{GgufFile, Header},
    tensor::{Tensor, TensorSource},
};

/// A model file that was found to be one of ours: both views describe the tensors that the outer
/// header lists, at the same places, all of them within the file.
#[derive(Clone, Debug)]
pub struct Container {
    path: PathBuf,
    file: GgufFile,
    info: ModelInfo,
}

impl Container {
    /// Maps `path` and checks its structure; tensor data are not touched.
    ///
    /// # Errors
    /// If it is no complete model file. See [`Self::verify_checksum`] for the data.
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

    /// What the file says about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The whole file as a GGUF.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The offset in the file at which a view begins.
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

    /// The checksum that the file claims.
    ///
    /// # Errors
    /// If the file carries none.
    pub fn checksum(&self) -> Result<&str, ContainerError> {
        Ok(self.file.metadata().str(keys::XC2_CHECKSUM)?)
    }

    /// Reads all data and compares their checksum with the one in the header. `progress` is told
    /// the number of bytes read so far.
    ///
    /// # Errors
    /// If they differ.
    pub fn verify_checksum(&self, mut progress: impl FnMut(u64)) -> Result<(), ContainerError> {
        const CHUNK: usize = 64 << 20;
        let expected = self.checksum()?;
        let mut sum = Checksum::default();
        let mut done = 0;
        for chunk in self.file.data().chunks(CHUNK) {
            sum.update_parallel(chunk);
            done += chunk.len() as u64;
            progress(done);
        }
        let found = sum.hex();
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
