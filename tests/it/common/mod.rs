//! Shared by the tests: reference data and models converted from it.

pub mod captions;
pub mod checkpoints;
pub mod program;
pub mod scenes;
pub mod snapshot;

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError, atomic::AtomicBool},
};

use xc2_convert::{
    checkpoint::Checkpoint,
    metadata,
    mix::{Mix, Preset},
    plan::{Options, Plan},
    tokenizer, write,
};
use xc2_edge::{
    language::llama::{LoadOptions, Model, Tokenizer},
    model::{
        container::{Task, keys},
        gguf::{Header, Metadata},
    },
};

/// A file or directory of the reference data.
pub fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(path)
}

/// A tiny checkpoint, converted once for each build.
pub fn model(checkpoint: &str, preset: Preset) -> PathBuf {
    model_for(checkpoint, preset, Task::Base)
}

/// The same with the adapters of a task.
pub fn model_for(checkpoint: &str, preset: Preset, task: Task) -> PathBuf {
    converted(&checkpoints::checkpoint(checkpoint), preset, task)
}

/// The trained model that is in the repository, converted once for each build.
pub fn trained(preset: Preset) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xc2-scenes");
    converted(&source, preset, Task::Base)
}

/// Converts a checkpoint, unless this build of the tests has done so with the same files.
fn converted(checkpoint: &Path, preset: Preset, task: Task) -> PathBuf {
    static CONVERTING: Mutex<()> = Mutex::new(());
    static BUILD: LazyLock<PathBuf> = LazyLock::new(models_of_this_build);
    let name = checkpoint.file_name().unwrap().display();
    let dir = BUILD.join(state_of(checkpoint));
    fs::create_dir_all(&dir).unwrap();
    let task_name = match task {
        Task::Base => String::new(),
        task => format!("-{}", task.name()),
    };
    let path = dir.join(format!("{name}-{preset:?}{task_name}.gguf"));
    let _one_at_a_time = CONVERTING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        convert(checkpoint, preset, task, &path); // the file appears when it is whole
    }
    path
}

/// A directory for the models that this test program converts. Those of earlier builds are removed.
fn models_of_this_build() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("models");
    let program = std::env::current_exe().unwrap();
    let own = all.join(fingerprint([program]));
    fs::create_dir_all(&own).unwrap();
    for other in fs::read_dir(&all)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if other != own {
            let _ = fs::remove_dir_all(other);
        }
    }
    own
}

/// A checkpoint's files as they are now.
fn state_of(checkpoint: &Path) -> String {
    let entries = fs::read_dir(checkpoint).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    fingerprint(files)
}

/// A digest of the names, sizes and times of files.
fn fingerprint(files: impl IntoIterator<Item = PathBuf>) -> String {
    let mut hash = DefaultHasher::new();
    for file in files {
        let meta = fs::metadata(&file).unwrap();
        (file, meta.len(), meta.modified().unwrap()).hash(&mut hash);
    }
    format!("{:016x}", hash.finish())
}

/// Converts a checkpoint.
pub fn convert(checkpoint: &Path, preset: Preset, task: Task, path: &Path) {
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    let options = Options {
        mix: Mix::new(preset),
        family: None,
        task,
        plora_scale: None,
        command_line: format!("{preset:?}"),
    };
    let plan = Plan::new(&checkpoint, &options).unwrap();
    write::convert(&plan, path, 2, &AtomicBool::new(false), |_| {}).unwrap();
}

/// A GGUF with only a vocabulary, in the form of the decoder view.
pub fn vocabulary(tokenizer_model: &str, n_pieces: usize) -> Tokenizer {
    let bytes = fs::read(reference(tokenizer_model)).unwrap();
    let vocabulary = tokenizer::Tokenizer::parse(&bytes, n_pieces).unwrap();
    let mut meta = Metadata::default();
    meta.set(keys::GENERAL_ARCHITECTURE, keys::DECODER_ARCHITECTURE);
    for (key, value) in [
        (keys::LLM_VOCAB_SIZE, n_pieces as u32),
        (keys::LLM_CONTEXT_LENGTH, 32),
        (keys::LLM_EMBEDDING_LENGTH, 32),
        (keys::LLM_BLOCK_COUNT, 1),
        (keys::LLM_FEED_FORWARD_LENGTH, 32),
        (keys::LLM_HEAD_COUNT, 1),
    ] {
        meta.set(key, value);
    }
    meta.set(keys::LLM_RMS_EPS, 1e-5f32);
    metadata::vocabulary(&mut meta, &vocabulary);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        Header {
            metadata: meta,
            tensors: vec![],
        }
        .encode(),
    )
    .unwrap();
    let options = LoadOptions {
        vocab_only: true,
        mmap: false,
        ..LoadOptions::default()
    };
    let model: Arc<Model> = Model::load(file.path(), 0, options).unwrap();
    Tokenizer::new(&model)
}
