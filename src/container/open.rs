//! Opening a model file.

use std::path::{Path, PathBuf};

use super::{Checksum, ContainerError, ModelInfo, View, keys};
use crate::{
    gguf::{GgufError, GgufFile, Header, TensorInfo},
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
        let decoder = checked_view(&file, View::Decoder)?;
        checked_view(&file, View::Adapter)?;
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

/// Parses a view's header and holds it against the outer list: the tensors after the blob must be
/// the view's, in its order and with its types and shapes. Offsets then agree by construction,
/// because both lists are without gaps.
fn checked_view(file: &GgufFile, view: View) -> Result<Header, ContainerError> {
    let name = view.tensor_name();
    let blob = file.require(name)?;
    let in_view = |source| ContainerError::View { view: name, source };
    let (header, data_start) = Header::parse(&blob.data).map_err(in_view)?;
    if data_start != blob.data.len() {
        let expected = format!("{data_start} bytes");
        let found = format!("{} bytes", blob.data.len());
        return Err(in_view(GgufError::invalid(
            "length of the header",
            expected,
            found,
        )));
    }
    let architecture = header
        .metadata
        .str(keys::GENERAL_ARCHITECTURE)
        .map_err(in_view)?;
    if architecture != keys::DECODER_ARCHITECTURE {
        let field = format!("metadata key `{}`", keys::GENERAL_ARCHITECTURE);
        let error = GgufError::invalid(field, keys::DECODER_ARCHITECTURE, architecture);
        return Err(in_view(error));
    }
    let after_blob = file.tensors().iter().skip_while(|t| t.name != name).skip(1);
    let mut after_blob = after_blob.map(Some).chain(std::iter::repeat(None));
    for inner in &header.tensors {
        let outer = after_blob.next().flatten();
        if outer != Some(inner) {
            return Err(ContainerError::ViewMismatch {
                view: name,
                expected: describe(inner),
                found: outer.map_or("the end of the list".to_owned(), describe),
            });
        }
    }
    Ok(header)
}

fn describe(t: &TensorInfo) -> String {
    format!("`{}` {} {:?}", t.name, t.ty, t.shape)
}
