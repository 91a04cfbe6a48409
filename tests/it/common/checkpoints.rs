//! The tiny checkpoints of the reference data as they were published: the repository keeps their weights compressed,
//! and one of them as an index alone. The tests of `convert` share this file.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use flate2::read::GzDecoder;
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use xc2_convert::checkpoint::Checkpoint;

use super::reference;

/// Safetensors shards are made of the numbers of this checkpoint, whose other files they also share.
const PICKLED: &str = "tiny-vl";
const SAFETENSORS: &str = "tiny-vl-safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The directory of a tiny checkpoint, unpacked unless it has been.
pub fn checkpoint(name: &str) -> PathBuf {
    static UNPACKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = UNPACKING.lock().unwrap_or_else(PoisonError::into_inner);
    unpacked(name)
}

fn unpacked(name: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkpoints");
    // Models are named after their checkpoint's directory.
    let own = all.join(format!("{name}-{:016x}", state_of(name)));
    if !own.exists() {
        remove_earlier(&all, name);
        let making = tempfile::tempdir_in(&all).unwrap();
        let dir = making.path().join(name);
        fs::create_dir(&dir).unwrap();
        unpack(&reference(name), &dir);
        if name == SAFETENSORS {
            complete(&dir);
        }
        if let Err(error) = fs::rename(making.path(), &own) {
            assert!(own.exists(), "{}: {error}", own.display()); // by another process
        }
    }
    own.join(name)
}

/// A digest of the sources of a checkpoint: names, sizes and times of the files, and this program text.
fn state_of(name: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    include_str!("checkpoints.rs").hash(&mut hash);
    for folder in [name, PICKLED] {
        for file in files(&reference(folder)) {
            let meta = fs::metadata(&file).unwrap();
            (file, meta.len(), meta.modified().unwrap()).hash(&mut hash);
        }
    }
    hash.finish()
}

/// Makes room: what earlier states of the checkpoint were unpacked to.
fn remove_earlier(all: &Path, name: &str) {
    fs::create_dir_all(all).unwrap();
    let n_digits = "-0123456789abcdef".len();
    for old in files(all) {
        let file_name = old.file_name().unwrap().to_str().unwrap();
        if file_name.len() == name.len() + n_digits && file_name.starts_with(name) {
            let _ = fs::remove_dir_all(old);
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Copies the files of a directory, those that end in `.gz` decompressed.
fn unpack(source: &Path, dir: &Path) {
    for file in files(source) {
        let target = dir.join(file.file_name().unwrap());
        if file.extension().is_some_and(|e| e == "gz") {
            let mut packed = GzDecoder::new(fs::File::open(&file).unwrap());
            let mut target = fs::File::create(target.with_extension("")).unwrap();
            io::copy(&mut packed, &mut target).unwrap();
        } else {
            fs::copy(&file, &target).unwrap();
        }
    }
}

/// Adds the shards that the index of `dir` names, in half precision, and the files that it lacks.
fn complete(dir: &Path) {
    let pickled = unpacked(PICKLED);
    for file in files(&pickled) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("pytorch_model") && !dir.join(name).exists() {
            fs::copy(&file, dir.join(name)).unwrap();
        }
    }
    let checkpoint = Checkpoint::open(&pickled).unwrap();
    let index = fs::read(dir.join(INDEX)).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in index["weight_map"].as_object().unwrap() {
        let shard = shards.entry(shard.as_str().unwrap()).or_default();
        shard.push(tensor);
    }
    for (shard, tensors) in shards {
        write_shard(&dir.join(shard), &checkpoint, &tensors);
    }
}

fn write_shard(path: &Path, checkpoint: &Checkpoint, names: &[&str]) {
    let tensors = names.iter().map(|name| {
        let tensor = checkpoint.require(name).unwrap();
        let values = tensor.to_f32().unwrap();
        let data = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes());
        (*name, tensor.shape.clone(), data.collect::<Vec<u8>>())
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F16, shape.clone(), data).unwrap();
        (*name, view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}
