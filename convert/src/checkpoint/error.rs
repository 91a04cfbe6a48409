//! Errors of checkpoint directories.

use std::path::{Path, PathBuf};

use xc2_edge::system::text::TextError;

use super::{StandIn, pickle::PickleError};

/// What is wrong with a checkpoint: which file or tensor, what was expected, what was found.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    /// The path is a file or does not exist.
    #[error("{path}: expected a checkpoint directory, found {found}")]
    NotADirectory { path: PathBuf, found: &'static str },
    /// A file that every checkpoint has is missing.
    #[error("{path}: no such file")]
    MissingFile { path: PathBuf },
    /// A JSON file that is not UTF-8 text.
    #[error("{path}")]
    Text { path: PathBuf, source: TextError },
    /// A JSON file that cannot be parsed or lacks a field.
    #[error("{path}")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A value of the wrong type in a JSON file.
    #[error("{path}: `{key}`")]
    JsonValue {
        path: PathBuf,
        key: String,
        source: serde_json::Error,
    },
    /// Something else instead of the file: a pointer to it, a web page, a server's message.
    #[error("{path}: expected {expected}, found {found}")]
    NotTheFile {
        path: PathBuf,
        expected: &'static str,
        found: StandIn,
    },
    /// A link to a file that does not exist.
    #[error("{path}: a link to `{target}`, which does not exist")]
    DanglingLink { path: PathBuf, target: PathBuf },
    /// A folder of the Hugging Face cache with no definite snapshot.
    #[error("{path}: expected {wanted}, found {found}")]
    NoSnapshot {
        path: PathBuf,
        wanted: String,
        found: String,
    },
    /// A LoRA adapter without its base model.
    #[error(
        "{path}: expected a whole model, found the adapter of a LoRA training \
         (`adapter_config.json`){}", base_model(base.as_deref())
    )]
    Adapter { path: PathBuf, base: Option<String> },
    /// A model with LoRA adapters that are not merged.
    #[error("tensor `{name}`: expected LoRA adapters merged into the model, found a separate one")]
    UnmergedAdapter { name: String },
    /// Partitions of weights that DeepSpeed saves during training.
    #[error("{path}: expected whole weights, found the partitions of a DeepSpeed ZeRO training")]
    Partitioned { path: PathBuf },
    /// Tensors saved without elements.
    #[error(
        "tensor `{name}`: expected weights, found shape {shape:?}{}: DeepSpeed ZeRO-3 spreads \
         weights over GPUs, and this file was saved without gathering them", and_others(*n_others)
    )]
    EmptyTensors {
        name: String,
        shape: Vec<usize>,
        n_others: usize,
    },
    /// A download that has not come to its end.
    #[error(
        "{path}: expected weights, found an unfinished download: {}",
        quoted(files)
    )]
    Unfinished { path: PathBuf, files: Vec<String> },
    /// Models in subdirectories.
    #[error(
        "{path}: expected a checkpoint, found a directory of them: {}",
        quoted(found)
    )]
    Elsewhere { path: PathBuf, found: Vec<String> },
    /// No weight file and no index of weight files.
    #[error(
        "{path}: expected `model.safetensors`, `pytorch_model.bin` or an index of shards, found none"
    )]
    NoWeights { path: PathBuf },
    /// Shards without their index.
    #[error("{path}: found `{shard}`, but no `{index}` next to it")]
    NoIndex {
        path: PathBuf,
        shard: String,
        index: String,
    },
    /// Files named in the index are missing.
    #[error("{index}: {}", missing_shards(missing, *n_shards, unfinished))]
    MissingShards {
        index: PathBuf,
        missing: Vec<String>,
        n_shards: usize,
        unfinished: Vec<String>,
    },
    /// A truncated file.
    #[error("{path}: {what}: expected {expected} bytes, found {found}: the file is truncated")]
    Truncated {
        path: PathBuf,
        what: String,
        expected: u64,
        found: u64,
    },
    /// A file with an invalid structure.
    #[error("{path}: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The list of tensors in a `.bin` file cannot be read.
    #[error("{path}")]
    Pickle { path: PathBuf, source: PickleError },
    /// Two shards have a tensor of the same name.
    #[error("tensor `{name}`: expected in one shard, found in {first} and in {second}")]
    Duplicate {
        name: String,
        first: Holder,
        second: Holder,
    },
    /// Two names in a file differ only in prefixes added by training programs.
    #[error(
        "{path}: tensor `{name}`: expected one name, found `{}` and `{}`, which differ only in prefixes \
         added by training programs", names[0], names[1]
    )]
    SameTensor {
        path: PathBuf,
        name: String,
        names: [String; 2],
    },
    /// A tensor that the model needs is missing.
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
    /// A tensor's shape does not match the rest of the model.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// A packed layer, or its configuration, in an unsupported form.
    #[error("{name}: expected {expected}, found {found}")]
    Packed {
        name: String,
        expected: String,
        found: String,
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
    /// For `map_err` on reading `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => match std::fs::read_link(&path) {
                Ok(target) => Self::DanglingLink { path, target },
                Err(_) => Self::MissingFile { path },
            },
            _ => Self::Io { path, source },
        }
    }

    /// The error for a file with an invalid structure.
    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotADirectory { .. } | Self::NoWeights { .. } => {
                "give the directory of a downloaded Hugging Face repository"
            }
            Self::MissingFile { .. } | Self::MissingShards { .. } | Self::NoIndex { .. } => {
                "the download is incomplete; download the missing files into the directory"
            }
            Self::NotTheFile { found, .. } => found.hint(),
            Self::DanglingLink { .. } => {
                "the Hugging Face cache keeps files in `blobs` and links to them in `snapshots`; copy a \
                 snapshot with `cp -rL`, or download the repository again"
            }
            Self::NoSnapshot { .. } => {
                "give one of the directories in `snapshots`, or download the repository again"
            }
            Self::Adapter { .. } | Self::UnmergedAdapter { .. } => MERGE,
            Self::Partitioned { .. } => {
                "run `python zero_to_fp32.py . OUT` in that directory (OUT is a directory in recent versions \
                 of DeepSpeed, and the file `pytorch_model.bin` in older ones), and put `config.json` and \
                 `tokenizer.model` next to the weights that it writes"
            }
            Self::EmptyTensors { .. } => {
                "run `python zero_to_fp32.py . OUT` in the training's checkpoint (OUT is a directory in \
                 recent versions of DeepSpeed, and the file `pytorch_model.bin` in older ones), or save again \
                 with `stage3_gather_16bit_weights_on_model_save: true` in DeepSpeed's configuration"
            }
            Self::Unfinished { .. } => "finish the download; `hf download REPOSITORY` resumes it",
            Self::Elsewhere { .. } => "give one of these directories",
            Self::Truncated { .. } | Self::Damaged { .. } => "download that file again",
            Self::Json { source, .. } if source.is_eof() => {
                "the file is truncated; download it again"
            }
            Self::Pickle {
                source: PickleError::ForeignClass { .. },
                ..
            } => {
                "a weight file needs no other class, and unpickling other classes can run code; use a \
                 safetensors copy of the checkpoint, or save only its state dict"
            }
            Self::SameTensor { .. } => {
                "two states of a model were saved in one file; delete one of them in Python and save the \
                 weights again"
            }
            Self::Duplicate { .. } => {
                "give the right file in the index, or remove the tensor from the other file"
            }
            Self::Packed { .. } => {
                "convert the unquantized checkpoint; --q4_k makes a smaller file than this one"
            }
            Self::Shape { .. } => "`config.json` and the weights may come from different models",
            _ => return None,
        })
    }
}

/// A weight file, and a tensor's name in it.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Holder {
    pub file: String,
    /// If it differs from the tensor's own name.
    pub name: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.file)?;
        match &self.name {
            Some(name) => write!(f, " as `{name}`"),
            None => Ok(()),
        }
    }
}

/// How to merge an adapter into its base model.
const MERGE: &str = "\
merge it into its base model in Python, and convert the result:
    from peft import AutoPeftModelForCausalLM
    model = AutoPeftModelForCausalLM.from_pretrained(\"ADAPTER\", torch_dtype=\"auto\", trust_remote_code=True)
    model.merge_and_unload().save_pretrained(\"MERGED\")
then copy `tokenizer.model` (and `added_tokens.json`, if there is one) into MERGED";

/// Maximum number of names listed in an error; of the others it gives the number.
const MAX_NAMES: usize = 8;

fn quoted(names: &[String]) -> String {
    let shown: Vec<String> = (names.iter().take(MAX_NAMES))
        .map(|name| format!("`{name}`"))
        .collect();
    let rest = and_others(names.len().saturating_sub(MAX_NAMES));
    format!("{}{rest}", shown.join(", "))
}

fn and_others(n: usize) -> String {
    match n {
        0 => String::new(),
        1 => " (and 1 other)".to_owned(),
        n => format!(" (and {n} others)"),
    }
}

fn missing_shards(missing: &[String], n_shards: usize, unfinished: &[String]) -> String {
    let names = quoted(missing);
    let shards = match missing.len() {
        1 => format!("shard {names} is missing"),
        n => format!("{n} of {n_shards} shards are missing: {names}"),
    };
    match unfinished {
        [] => shards,
        files => format!(
            "{shards}; there are unfinished downloads: {}",
            quoted(files)
        ),
    }
}

fn base_model(name: Option<&str>) -> String {
    name.map_or(String::new(), |name| format!(" on top of `{name}`"))
}
