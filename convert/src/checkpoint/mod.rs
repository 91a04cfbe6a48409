//! A Hugging Face checkpoint directory: its configuration and its tensors, lazily.
//!
//! [`Checkpoint::open`] finds the weight files, reads their tables of contents and nothing more;
//! elements are read when the conversion asks for rows ([`SourceTensor::read_rows`]).

mod error;
mod pickle;
mod safetensors;
mod tensor;
mod torch_zip;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

pub use error::CheckpointError;
pub use pickle::PickleError;
pub use tensor::{Dtype, Shard, SourceTensor};
use xc2_edge::text;

/// A checkpoint whose tables of contents have been read.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: serde_json::Value,
    files: Vec<String>,
    tensors: HashMap<String, SourceTensor>,
}

/// Which weight files make up the checkpoint.
struct Weights {
    files: Vec<String>,
    /// Tensor → file, where an index says so.
    index: HashMap<String, String>,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`.
    ///
    /// # Errors
    /// If it is no checkpoint, or a file of it is missing, cut short, or not what it should be.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let found = match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => None,
            Ok(_) => Some("a file"),
            Err(_) => Some("nothing"),
        };
        if let Some(found) = found {
            let path = dir.to_owned();
            return Err(CheckpointError::NotADirectory { path, found });
        }
        let config = read_json(&dir.join("config.json"))?;
        let weights = find_weights(dir)?;
        let tensors = read_tables(dir, &weights)?;
        Ok(Self {
            dir: dir.to_owned(),
            config,
            files: weights.files,
            tensors,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory's own name, `internlm-xcomposer2-vl-7b` for instance.
    pub fn name(&self) -> String {
        let full = fs::canonicalize(&self.dir).unwrap_or_else(|_| self.dir.clone());
        let name = full.file_name().map(|n| n.to_string_lossy().into_owned());
        name.unwrap_or_else(|| "model".to_owned())
    }

    /// The contents of `config.json`.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// The weight files' names.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// All tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &SourceTensor> {
        self.tensors.values()
    }

    /// The tensor of that name, if it is there.
    pub fn get(&self, name: &str) -> Option<&SourceTensor> {
        self.tensors.get(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// If it is missing.
    pub fn require(&self, name: &str) -> Result<&SourceTensor, CheckpointError> {
        self.get(name)
            .ok_or_else(|| CheckpointError::MissingTensor {
                name: name.to_owned(),
            })
    }

    /// Another file of the directory, as bytes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_file(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        read_whole(&self.dir.join(name))
    }
}

fn read_whole(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let bytes = fs::read(path).map_err(CheckpointError::io(path))?;
    CheckpointError::refuse_lfs_pointer(path, &bytes)?;
    Ok(bytes)
}

/// Opens a weight file, unless it is only a pointer to one.
fn open_weights(path: &Path) -> Result<File, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::io(path))?;
    let mut start = [0; 32];
    let n_read = file.read_at(&mut start, 0);
    let n_read = n_read.map_err(CheckpointError::io(path))?;
    CheckpointError::refuse_lfs_pointer(path, &start[..n_read])?;
    Ok(file)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let text = text::decode(read_whole(path)?).map_err(|source| CheckpointError::Text {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| CheckpointError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Decides which files hold the weights.
///
/// A single file wins over an index beside it, and an index counts only if every file that it
/// names is there: the published 1.8B model has a single file and the left-over index of another
/// model. Of two complete sets, safetensors are taken. A lone safetensors file of any name serves
/// too; quantized checkpoints, which are told apart later, have such.
fn find_weights(dir: &Path) -> Result<Weights, CheckpointError> {
    let single = |file: String| Weights {
        files: vec![file],
        index: HashMap::new(),
    };
    let mut incomplete = None;
    for stem in ["model.safetensors", "pytorch_model.bin"] {
        if dir.join(stem).is_file() {
            return Ok(single(stem.to_owned()));
        }
        let path = dir.join(format!("{stem}.index.json"));
        if path.is_file() {
            match read_index(dir, &path) {
                Ok(weights) => return Ok(weights),
                Err(e) => incomplete = incomplete.or(Some(e)),
            }
        }
    }
    if let Some(error) = incomplete {
        return Err(error);
    }
    let entries = fs::read_dir(dir).map_err(CheckpointError::io(dir))?;
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let names: Vec<String> = names.collect();
    let mut others = names.iter().filter(|n| n.ends_with(".safetensors"));
    match (others.next().cloned(), others.next()) {
        (Some(file), None) => Ok(single(file)),
        _ => Err(no_weights(dir, &names)),
    }
}

/// Why a directory with these files has no weights: shards may be there without their index.
fn no_weights(dir: &Path, names: &[String]) -> CheckpointError {
    let path = dir.to_owned();
    for (first, extension) in [("model-", ".safetensors"), ("pytorch_model-", ".bin")] {
        let is_shard = |n: &&String| n.starts_with(first) && n.ends_with(extension);
        if let Some(shard) = names.iter().filter(is_shard).min().cloned() {
            let index = format!("{}{extension}.index.json", &first[..first.len() - 1]);
            return CheckpointError::NoIndex { path, shard, index };
        }
    }
    CheckpointError::NoWeights { path }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(dir: &Path, path: &Path) -> Result<Weights, CheckpointError> {
    let index: Index = read_json(path)?;
    let mut files: Vec<String> = index.weight_map.values().cloned().collect();
    files.sort();
    files.dedup();
    for shard in &files {
        let mut parts = Path::new(shard).components();
        let plain = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        );
        if !plain {
            let reason =
                format!("shard `{shard}`: expected the name of a file in the same directory");
            return Err(CheckpointError::damaged(path, reason));
        }
        if !dir.join(shard).is_file() {
            return Err(CheckpointError::MissingShard {
                index: path.to_owned(),
                shard: shard.clone(),
            });
        }
    }
    let index = index.weight_map.into_iter().collect();
    Ok(Weights { files, index })
}

fn read_tables(
    dir: &Path,
    weights: &Weights,
) -> Result<HashMap<String, SourceTensor>, CheckpointError> {
    let mut tensors: HashMap<String, SourceTensor> = HashMap::new();
    for file in &weights.files {
        let path = dir.join(file);
        let table = if file.ends_with(".safetensors") {
            safetensors::open(&path)?
        } else {
            torch_zip::open(&path)?
        };
        for tensor in table {
            // The index decides where a tensor is taken from, if it knows the tensor.
            if weights.index.get(&tensor.name).is_some_and(|f| f != file) {
                continue;
            }
            if let Some(first) = tensors.get(&tensor.name) {
                let first = first.shard().path.file_name().unwrap_or_default();
                return Err(CheckpointError::Duplicate {
                    first: first.to_string_lossy().into_owned(),
                    second: file.clone(),
                    name: tensor.name,
                });
            }
            tensors.insert(tensor.name.clone(), tensor);
        }
    }
    Ok(tensors)
}
