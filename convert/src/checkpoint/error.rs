//! What can be wrong with a checkpoint directory.

use std::path::{Path, PathBuf};

use super::pickle::PickleError;
use xc2_edge::text::TextError;

/// What is wrong with a checkpoint: which file or tensor, what was expected, what was found.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    /// The path is a file, or nothing at all.
    #[error("{path}: expected a checkpoint directory, found {found}")]
    NotADirectory { path: PathBuf, found: &'static str },
    /// A file that every checkpoint has is not there.
    #[error("{path}: no such file")]
    MissingFile { path: PathBuf },
    /// A JSON file that is no UTF-8 text.
    #[error("{path}")]
    Text { path: PathBuf, source: TextError },
    /// A JSON file that does not parse, or lacks what is needed of it.
    #[error("{path}")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A value in a JSON file that is not of its kind.
    #[error("{path}: `{key}`")]
    JsonValue {
        path: PathBuf,
        key: String,
        source: serde_json::Error,
    },
    /// What Git keeps in place of a large file until that is fetched.
    #[error("{path}: expected the file itself, found a Git LFS pointer to it")]
    LfsPointer { path: PathBuf },
    /// Neither a weight file nor an index of weight files.
    #[error(
        "{path}: expected `model.safetensors`, `pytorch_model.bin` or an index of shards, found none"
    )]
    NoWeights { path: PathBuf },
    /// Shards without the index that tells their tensors and their number.
    #[error("{path}: found `{shard}`, but no `{index}` beside it")]
    NoIndex {
        path: PathBuf,
        shard: String,
        index: String,
    },
    /// A file that the index names is not there.
    #[error("{index}: shard `{shard}` is missing")]
    MissingShard { index: PathBuf, shard: String },
    /// The file ends before its contents do.
    #[error("{path}: {what}: expected {expected} bytes, found {found}: the file is truncated")]
    Truncated {
        path: PathBuf,
        what: String,
        expected: u64,
        found: u64,
    },
    /// The file's structure is not that of its kind.
    #[error("{path}: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The list of tensors in a `.bin` file cannot be read.
    #[error("{path}")]
    Pickle { path: PathBuf, source: PickleError },
    /// Two shards hold a tensor of the same name.
    #[error("tensor `{name}`: expected in one shard, found in `{first}` and `{second}`")]
    Duplicate {
        name: String,
        first: String,
        second: String,
    },
    /// A tensor that the model needs is in none of the files.
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
    /// A tensor has another shape than the rest of the model asks for.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// A tensor's elements are not floats of 16 or 32 bits.
    #[error("tensor `{name}`: expected bf16, f16 or f32, found {found}")]
    Dtype { name: String, found: String },
    /// The operating system refused to read.
    #[error("{path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl CheckpointError {
    /// For `map_err` on whatever reads `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => Self::MissingFile { path },
            _ => Self::Io { path, source },
        }
    }

    /// Refuses a file that begins with `start` if it is only a pointer to one.
    pub(crate) fn refuse_lfs_pointer(path: &Path, start: &[u8]) -> Result<(), Self> {
        if start.starts_with(b"version https://git-lfs") {
            let path = path.to_owned();
            return Err(Self::LfsPointer { path });
        }
        Ok(())
    }

    /// A file whose structure is wrong, and how.
    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// What a person may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotADirectory { .. } | Self::NoWeights { .. } => {
                "give the directory of a downloaded Hugging Face repository"
            }
            Self::MissingFile { .. } | Self::MissingShard { .. } | Self::NoIndex { .. } => {
                "the download is incomplete; fetch that file into the directory"
            }
            Self::LfsPointer { .. } => "run `git lfs pull` in the checkpoint's directory",
            Self::Truncated { .. } | Self::Damaged { .. } => "download that file again",
            Self::Pickle {
                source: PickleError::ForeignClass { .. },
                ..
            } => {
                "a weight file needs no other class, and unpickling one can run code; \
                 use a safetensors copy of the checkpoint"
            }
            Self::Shape { .. } => "`config.json` and the weights may come from different models",
            _ => return None,
        })
    }
}
