//! What the tests share: reference data and models converted from it.

pub mod captions;
pub mod program;
pub mod scenes;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
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
        container::keys,
        gguf::{Header, Metadata},
    },
};

/// A file or directory of the reference data.
pub fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(path)
}

/// The model that converting a tiny checkpoint gives, made once for each test binary.
pub fn model(checkpoint: &str, preset: Preset) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{checkpoint}-{preset:?}.gguf"));
    if !path.exists() {
        convert(&reference(checkpoint), preset, &path);
    }
    path
}

/// The trained model that is in the repository, converted once for each test binary.
pub fn trained(preset: Preset) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("xc2-scenes-{preset:?}.gguf"));
    if !path.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xc2-scenes");
        convert(&source, preset, &path);
    }
    path
}

/// Converts a checkpoint.
pub fn convert(checkpoint: &Path, preset: Preset, path: &Path) {
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    let options = Options {
        mix: Mix::new(preset),
        family: None,
        plora_scale: None,
        command_line: format!("{preset:?}"),
    };
    let plan = Plan::new(&checkpoint, &options).unwrap();
    write::convert(&plan, path, 2, &AtomicBool::new(false), |_| {}).unwrap();
}

/// A GGUF of a vocabulary and nothing else, in the form of the decoder view.
pub fn vocabulary(tokenizer_model: &str, n_pieces: usize) -> Tokenizer {
    let bytes = std::fs::read(reference(tokenizer_model)).unwrap();
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
    std::fs::write(
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
