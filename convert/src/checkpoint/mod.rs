//! A Hugging Face checkpoint directory: its configuration and its tensors, lazily.
//!
//! [`Checkpoint::open`] finds the weight files, reads their tables of contents and nothing more;
//! elements are read when the conversion asks for rows ([`SourceTensor::read_rows`]).
//!
//! ```text
//! path → location   the folder itself, also in the hub's cache; the model's name
//!      → weights    which files hold the weights
//!      → safetensors, torch_zip + pickle    their tables, each file checked by stand_in
//!      → names      without the wrappers of training programs
//! ```

mod error;
mod location;
mod names;
mod pickle;
mod safetensors;
mod stand_in;
mod tensor;
mod torch_zip;
mod weights;

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

pub use error::{CheckpointError, Holder};
use location::Location;
pub use pickle::PickleError;
pub use stand_in::StandIn;
pub use tensor::{Dtype, Shard, SourceTensor};
use weights::{ADAPTER_CONFIG, Weights};
use xc2_edge::system::text;

/// A checkpoint whose tables of contents have been read.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    name: String,
    config: serde_json::Value,
    files: Vec<String>,
    tensors: HashMap<String, SourceTensor>,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`, which may also be a repository's folder in the hub's cache.
    ///
    /// # Errors
    /// If it is no checkpoint, or a file of it is missing, cut short, or not what it should be.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let Location { dir, name } = Location::find(dir)?;
        let weights = Weights::find(&dir)?;
        let config = read_json(&dir.join("config.json"))?;
        let tensors = read_tables(&dir, &weights)?;
        refuse_unusable(&tensors)?;
        Ok(Self {
            notes: notes(&dir, &weights),
            dir,
            name,
            config,
            files: weights.files,
            tensors,
        })
    }

    /// The directory of the files; in the hub's cache, that of the snapshot.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model's name, `internlm-xcomposer2-vl-7b` for instance: that of its repository in the
    /// hub's cache or of its directory, never a commit's hash.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// What a person might not expect of the files that were read and not read.
    pub fn notes(&self) -> &[String] {
        &self.notes
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

    /// A JSON file of the directory, if it is there.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read_json(&self, name: &str) -> Result<Option<serde_json::Value>, CheckpointError> {
        match read_json(&self.dir.join(name)) {
            Err(CheckpointError::MissingFile { .. }) => Ok(None),
            read => read.map(Some),
        }
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
    StandIn::refuse_bytes(path, &bytes, bytes.len() as u64)?;
    Ok(bytes)
}

/// Opens a weight file, unless something else lies in its place.
fn open_weights(path: &Path) -> Result<File, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::io(path))?;
    StandIn::refuse(path, &file)?;
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

fn read_tables(
    dir: &Path,
    weights: &Weights,
) -> Result<HashMap<String, SourceTensor>, CheckpointError> {
    let mut tensors: HashMap<String, SourceTensor> = HashMap::new();
    let mut names_there: HashMap<String, String> = HashMap::new();
    for file in &weights.files {
        let path = dir.join(file);
        let table = if file.ends_with(".safetensors") {
            safetensors::open(&path)?
        } else {
            torch_zip::open(&path)?
        };
        for mut tensor in table {
            let name = names::unwrapped(&tensor.name);
            let there = std::mem::replace(&mut tensor.name, name.clone());
            // The index decides where a tensor is taken from, if it knows the tensor.
            if weights.index.get(&name).is_some_and(|f| f != file) {
                continue;
            }
            if let Some(first) = tensors.get(&name) {
                return Err(found_twice(first, &names_there[&name], &tensor, &there));
            }
            names_there.insert(name.clone(), there);
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

/// The error for a tensor that is there two times, under these names.
fn found_twice(
    first: &SourceTensor,
    first_there: &str,
    second: &SourceTensor,
    second_there: &str,
) -> CheckpointError {
    let name = first.name.clone();
    let (first_path, second_path) = (&first.shard().path, &second.shard().path);
    if first_path == second_path {
        return CheckpointError::SameTensor {
            path: first_path.clone(),
            name,
            names: [first_there, second_there].map(str::to_owned),
        };
    }
    let holder = |path: &Path, there: &str| Holder {
        file: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        name: (there != name).then(|| there.to_owned()),
    };
    CheckpointError::Duplicate {
        first: holder(first_path, first_there),
        second: holder(second_path, second_there),
        name,
    }
}

/// Refuses what trainings save in the form of a model without its weights.
fn refuse_unusable(tensors: &HashMap<String, SourceTensor>) -> Result<(), CheckpointError> {
    let of_adapter = |name: &&String| name.contains(".lora_A.") || name.contains(".lora_B.");
    if let Some(name) = tensors.keys().filter(of_adapter).min().cloned() {
        return Err(CheckpointError::UnmergedAdapter { name });
    }
    let empty = || tensors.values().filter(|t| t.n_elements() == 0);
    match empty().min_by_key(|t| &t.name) {
        None => Ok(()),
        Some(first) => Err(CheckpointError::EmptyTensors {
            name: first.name.clone(),
            shape: first.shape.clone(),
            n_others: empty().count() - 1,
        }),
    }
}

fn notes(dir: &Path, weights: &Weights) -> Vec<String> {
    let mut notes = Vec::new();
    if let [first, others @ ..] = &weights.unread[..] {
        let others = match others.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let read = match &weights.files[..] {
            [file] => format!("`{file}`"),
            files => format!("`{}` and {} more", files[0], files.len() - 1),
        };
        notes.push(format!(
            "weights are read from {read}; not read: `{first}`{others}"
        ));
    }
    if dir.join(ADAPTER_CONFIG).exists() {
        notes.push(format!(
            "`{ADAPTER_CONFIG}` lies beside a whole model: the model is converted as it is, without \
             that adapter"
        ));
    }
    notes
}
