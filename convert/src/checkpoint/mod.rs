//! Reads a Hugging Face checkpoint directory: its configuration, and its tensors on demand.
//!
//! [`Checkpoint::open`] finds the weight files and reads only their tables of contents; elements are read when
//! the conversion needs rows ([`SourceTensor::read_rows`]).
//!
//! ```text
//! path → location   the folder, also in the Hugging Face cache; the model's name
//!      → weights    which files contain the weights
//!      → safetensors, torch_zip + pickle    their tables; stand_in checks each file
//!      → names      removes wrappers of training programs
//!      → packed_layers, packed    layers of GPTQ and AWQ checkpoints, as if they were dense
//! ```

mod error;
mod location;
mod names;
mod packed;
mod packed_layers;
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
pub use packed::{PackedFormat, PackedLinear};
pub use pickle::PickleError;
pub use stand_in::StandIn;
pub use tensor::{Dtype, Shard, SourceTensor};
use weights::{ADAPTER_CONFIG, Weights};
use xc2_edge::system::text;

/// A checkpoint with its tables of contents.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    name: String,
    config: serde_json::Value,
    files: Vec<String>,
    tensors: HashMap<String, SourceTensor>,
    packed: Option<PackedFormat>,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`, which may also be a repository's folder in the Hugging Face cache.
    ///
    /// # Errors
    /// If it is not a checkpoint, or one of its files is missing, truncated or invalid.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let Location { dir, name } = Location::find(dir)?;
        let weights = Weights::find(&dir)?;
        let config = read_json(&dir.join("config.json"))?;
        let mut tensors = read_tables(&dir, &weights)?;
        refuse_unusable(&tensors)?;
        let packed = packed_layers::join(&mut tensors, &config, &dir)?;
        Ok(Self {
            notes: notes(&dir, &weights),
            dir,
            name,
            config,
            files: weights.files,
            tensors,
            packed,
        })
    }

    /// The directory of the files; in the Hugging Face cache, that of the snapshot.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model's name, for example `internlm-xcomposer2-vl-7b`: that of its repository in the Hugging Face
    /// cache or of its directory, never a commit hash.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Notes on which files were read and which were not, if that may be unexpected.
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

    /// The 4-bit layout of its linear layers, if they are packed.
    pub fn packed(&self) -> Option<PackedFormat> {
        self.packed
    }

    /// All tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &SourceTensor> {
        self.tensors.values()
    }

    /// The tensor of that name, if it exists.
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

    /// A JSON file of the directory, if it exists.
    ///
    /// # Errors
    /// If it exists and cannot be read.
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

/// Opens a weight file; refuses something else in its place.
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
    let mut stored_names: HashMap<String, String> = HashMap::new();
    for file in &weights.files {
        let path = dir.join(file);
        let table = if file.ends_with(".safetensors") {
            safetensors::open(&path)?
        } else {
            torch_zip::open(&path)?
        };
        for mut tensor in table {
            let name = names::unwrapped(&tensor.name);
            let stored = std::mem::replace(&mut tensor.name, name.clone());
            // If the index lists the tensor, it decides which file to read it from.
            if weights.index.get(&name).is_some_and(|f| f != file) {
                continue;
            }
            if let Some(first) = tensors.get(&name) {
                return Err(found_twice(first, &stored_names[&name], &tensor, &stored));
            }
            stored_names.insert(name.clone(), stored);
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

/// The error for a tensor that occurs twice, under these stored names.
fn found_twice(
    first: &SourceTensor,
    first_stored: &str,
    second: &SourceTensor,
    second_stored: &str,
) -> CheckpointError {
    let name = first.name.clone();
    let (first_path, second_path) = (&first.shard().path, &second.shard().path);
    if first_path == second_path {
        return CheckpointError::SameTensor {
            path: first_path.clone(),
            name,
            names: [first_stored, second_stored].map(str::to_owned),
        };
    }
    let holder = |path: &Path, stored: &str| Holder {
        file: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        name: (stored != name).then(|| stored.to_owned()),
    };
    CheckpointError::Duplicate {
        first: holder(first_path, first_stored),
        second: holder(second_path, second_stored),
        name,
    }
}

/// Refuses training outputs that look like a model but lack its weights.
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
            "found `{ADAPTER_CONFIG}` next to a whole model: the model is converted without that adapter"
        ));
    }
    notes
}
