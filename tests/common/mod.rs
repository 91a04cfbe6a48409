//! What the tests share: reference data and models converted from it.
#![allow(dead_code)] // each test binary uses a part

pub mod program;
pub mod scenes;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use xc2_convert::{
    checkpoint::Checkpoint,
    mix::{Mix, Preset},
    plan::{Options, Plan},
    write,
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
