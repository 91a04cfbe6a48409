//! Finds the weight files of a folder, or says what the folder is if it has none.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Component, Path, PathBuf},
};

use super::{CheckpointError, names::unwrapped, read_json};

/// The configuration of an adapter, as `peft` saves it.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Prefix of an adapter's weight files.
const ADAPTER_WEIGHTS: &str = "adapter_model.";
/// The script that DeepSpeed saves with its partitioned checkpoints.
const ZERO_SCRIPT: &str = "zero_to_fp32.py";
/// Extensions of unfinished downloads: Hugging Face, browsers, wget, aria2.
const UNFINISHED: [&str; 6] = [
    ".incomplete",
    ".part",
    ".partial",
    ".crdownload",
    ".download",
    ".tmp",
];
/// Extension of the file that aria2 keeps next to an unfinished download.
const ARIA2: &str = ".aria2";

/// Which weight files make up the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Weights {
    pub files: Vec<String>,
    /// Tensor → file, if there is an index.
    pub index: HashMap<String, String>,
    /// Other weight files, which are not read.
    pub unread: Vec<String>,
}

impl Weights {
    /// Decides which files contain the weights.
    ///
    /// A single file takes precedence over an index, and an index counts only if all its files exist: the
    /// published 1.8B model has a single file and the left-over index of another model. Of two complete sets,
    /// safetensors are used. A single safetensors file of any name is accepted as well; quantized checkpoints,
    /// which are refused later, have one.
    ///
    /// # Errors
    /// If there are no weights, or only some: says what the folder contains instead.
    pub fn find(dir: &Path) -> Result<Self, CheckpointError> {
        let names = names(dir)?;
        let mut weights = Self::choose(dir, &names)?;
        for file in &weights.files {
            if names.contains(&format!("{file}{ARIA2}")) {
                return Err(CheckpointError::Unfinished {
                    path: dir.to_owned(),
                    files: vec![file.clone()],
                });
            }
        }
        let is_other = |n: &&String| is_weight_file(n) && !weights.files.contains(n);
        weights.unread = names.iter().filter(is_other).cloned().collect();
        Ok(weights)
    }

    fn choose(dir: &Path, names: &[String]) -> Result<Self, CheckpointError> {
        let mut incomplete = None;
        for stem in ["model.safetensors", "pytorch_model.bin"] {
            if names.iter().any(|n| n == stem) {
                return Ok(Self::single(stem));
            }
            let index = format!("{stem}.index.json");
            if names.contains(&index) {
                match Self::read_index(dir, &dir.join(index), names) {
                    Ok(weights) => return Ok(weights),
                    Err(e) => incomplete = incomplete.or(Some(e)),
                }
            }
        }
        if let Some(error) = incomplete {
            return Err(error);
        }
        let is_lone = |n: &&String| n.ends_with(".safetensors") && is_weight_file(n);
        let mut lone = names.iter().filter(is_lone);
        match (lone.next(), lone.next()) {
            (Some(file), None) if !is_numbered(file) => Ok(Self::single(file)),
            _ => Err(without_weights(dir, names)),
        }
    }

    fn single(file: &str) -> Self {
        Self {
            files: vec![file.to_owned()],
            ..Self::default()
        }
    }

    fn read_index(dir: &Path, path: &Path, names: &[String]) -> Result<Self, CheckpointError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
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
        }
        let missing: Vec<String> = (files.iter().filter(|f| !names.contains(f)))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(CheckpointError::MissingShards {
                index: path.to_owned(),
                missing,
                n_shards: files.len(),
                unfinished: unfinished(dir, names),
            });
        }
        Ok(Self {
            files,
            index: without_wrappers(path, index.weight_map)?,
            unread: Vec::new(),
        })
    }
}

/// An index with the tensor names of a published checkpoint.
fn without_wrappers(
    path: &Path,
    weight_map: BTreeMap<String, String>,
) -> Result<HashMap<String, String>, CheckpointError> {
    let mut stored: HashMap<String, String> = HashMap::new();
    for wrapped in weight_map.keys() {
        if let Some(first) = stored.insert(unwrapped(wrapped), wrapped.clone()) {
            return Err(CheckpointError::SameTensor {
                path: path.to_owned(),
                name: unwrapped(wrapped),
                names: [first, wrapped.clone()],
            });
        }
    }
    let tensors = weight_map.into_iter();
    Ok(tensors
        .map(|(name, file)| (unwrapped(&name), file))
        .collect())
}

/// The names of all files, including broken links.
fn names(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let entries = fs::read_dir(dir).map_err(CheckpointError::io(dir))?;
    let name = |entry: fs::DirEntry| {
        let is_dir = entry.path().is_dir();
        entry.file_name().into_string().ok().filter(|_| !is_dir)
    };
    let mut names: Vec<String> = entries.filter_map(|e| name(e.ok()?)).collect();
    names.sort();
    Ok(names)
}

/// Whether a file contains a model's weights, by its name: not an adapter or a trainer's state.
fn is_weight_file(name: &str) -> bool {
    let is_pickle = name.ends_with(".bin") && name.starts_with("pytorch_model");
    let is_other = ["adapter_", "optimizer", "scheduler", "non_lora"];
    (name.ends_with(".safetensors") || is_pickle) && !is_other.iter().any(|o| name.starts_with(o))
}

/// Whether a file is one of several shards, such as `model-00001-of-00002.safetensors`.
fn is_numbered(name: &str) -> bool {
    let Some((before, after)) = name.split_once("-of-") else {
        return false;
    };
    before.ends_with(|c: char| c.is_ascii_digit())
        && after.starts_with(|c: char| c.is_ascii_digit())
}

/// The error for a folder without weights: it may contain an adapter, an unfinished download, shards without
/// their index, partitions of a training, or subdirectories with models.
fn without_weights(dir: &Path, names: &[String]) -> CheckpointError {
    let path = dir.to_owned();
    let is_adapter = |n: &String| n == ADAPTER_CONFIG || n.starts_with(ADAPTER_WEIGHTS);
    if names.iter().any(is_adapter) {
        let base = adapter_base(dir);
        return CheckpointError::Adapter { path, base };
    }
    let files = unfinished(dir, names);
    if !files.is_empty() {
        return CheckpointError::Unfinished { path, files };
    }
    for (first, extension) in [("model-", ".safetensors"), ("pytorch_model-", ".bin")] {
        let is_shard = |n: &&String| n.starts_with(first) && n.ends_with(extension);
        if let Some(shard) = names.iter().filter(is_shard).min().cloned() {
            let index = format!("{}{extension}.index.json", &first[..first.len() - 1]);
            return CheckpointError::NoIndex { path, shard, index };
        }
    }
    let folders = folders(dir);
    let is_partition = |n: &String| n.starts_with("global_step");
    if names.iter().any(|n| n == ZERO_SCRIPT) || folders.iter().any(is_partition) {
        return CheckpointError::Partitioned { path };
    }
    let holds_model = |name: &&String| {
        let folder = dir.join(name);
        let is_model = folder.join("config.json").exists() || folder.join(ADAPTER_CONFIG).exists();
        is_model || (name.starts_with("models--") && folder.join("snapshots").is_dir())
    };
    let found: Vec<String> = folders.iter().filter(holds_model).cloned().collect();
    if found.is_empty() {
        CheckpointError::NoWeights { path }
    } else {
        CheckpointError::Elsewhere { path, found }
    }
}

/// The base model of the adapter in `dir`, if its configuration names it.
fn adapter_base(dir: &Path) -> Option<String> {
    let config: serde_json::Value = read_json(&dir.join(ADAPTER_CONFIG)).ok()?;
    let base = config.get("base_model_name_or_path")?.as_str()?;
    (!base.is_empty()).then(|| base.to_owned())
}

/// Unfinished downloads of weights: in this folder, in the download folder of `hf`, or among the blobs of the
/// Hugging Face cache.
fn unfinished(dir: &Path, here: &[String]) -> Vec<String> {
    let is_unfinished = |n: &&String| UNFINISHED.iter().any(|ending| n.ends_with(ending));
    let is_weights = |n: &&String| n.contains(".safetensors") || n.contains(".bin");
    let mut found: Vec<String> = (here.iter().filter(is_unfinished).filter(is_weights))
        .cloned()
        .collect();
    for place in [".cache/huggingface/download", "../../blobs"] {
        let place = PathBuf::from(place);
        let names = names(&dir.join(&place)).unwrap_or_default();
        let incomplete = names.iter().filter(|n| n.ends_with(".incomplete"));
        found.extend(incomplete.map(|n| place.join(n).display().to_string()));
    }
    found
}

fn folders(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|e| e.path().is_dir());
    let mut folders: Vec<String> = folders
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_distinguished_from_other_files() {
        for weights in [
            "model.safetensors",
            "pytorch_model-00001-of-00002.bin",
            "x.safetensors",
        ] {
            assert!(is_weight_file(weights), "{weights}");
        }
        for other in [
            "adapter_model.safetensors",
            "adapter_model.bin",
            "training_args.bin",
            "optimizer.bin",
            "optimizer.pt",
            "optimizer.safetensors",
            "rng_state.pth",
            "scheduler.bin",
            "non_lora_trainables.bin",
        ] {
            assert!(!is_weight_file(other), "{other}");
        }
    }
}
