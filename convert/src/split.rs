//! From one file to the stock three: decoder, adapter, and `mmproj`.
//!
//! Decoder and adapter are whole GGUFs within the model file, so they are copied as they lie
//! there. The tower gets a header of its own.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use xc2_edge::{
    container::{Container, ContainerError, View, keys},
    gguf::{GgufFile, Header, Metadata, Value},
};

use crate::write::{PendingFile, WriteError, make_dir};

/// Why a model file was not split.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SplitError {
    /// The model file cannot be opened.
    #[error("{path}: {source}")]
    Open {
        path: PathBuf,
        source: ContainerError,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Somebody asked for it to stop.
    #[error("interrupted; the files that were complete are kept")]
    Cancelled,
}

/// Writes `decoder.gguf`, `mmproj.gguf` and `adapter.gguf` into `dir`; returns paths and sizes.
///
/// # Errors
/// If `model` is no model file, or a file cannot be written. Complete files stay.
pub fn split(
    model: &Path,
    dir: &Path,
    cancel: &AtomicBool,
) -> Result<Vec<(PathBuf, u64)>, SplitError> {
    let container = Container::open(model).map_err(|source| SplitError::Open {
        path: model.to_owned(),
        source,
    })?;
    make_dir(dir)?;
    let file = container.file();
    let adapter = container.view_offset(View::Adapter);
    let decoder = container.view_offset(View::Decoder);
    let data = file.file_bytes() - file.data().len();
    let mmproj = mmproj_header(file).encode();
    let files = [
        ("decoder.gguf", vec![], decoder..file.file_bytes()),
        ("adapter.gguf", vec![], adapter..decoder),
        ("mmproj.gguf", mmproj, data..adapter),
    ];
    let mut written = Vec::new();
    for (name, header, range) in files {
        let path = dir.join(name);
        let n_bytes = (header.len() + range.len()) as u64;
        let copied = copy_file(model, &header, range, &path, cancel);
        if !copied.map_err(WriteError::output(&path, n_bytes))? {
            return Err(SplitError::Cancelled);
        }
        written.push((path, n_bytes));
    }
    Ok(written)
}

/// The tower and projector as llama.cpp's `mtmd` expects them.
///
/// Its LLaVA graph takes the features of the last layer but one unless told otherwise; this model
/// uses the last one's.
fn mmproj_header(file: &GgufFile) -> Header {
    let mut metadata = Metadata::default();
    metadata.set("general.type", "mmproj");
    metadata.set(keys::GENERAL_ARCHITECTURE, "clip");
    for (key, value) in &file.metadata().0 {
        let shared = [
            keys::GENERAL_NAME,
            keys::FILE_TYPE,
            keys::QUANTIZATION_VERSION,
        ];
        if key.starts_with("clip.") || shared.contains(&&key[..]) {
            metadata.set(key, value.clone());
        }
    }
    let n_layer = file.metadata().usize(keys::CLIP_BLOCK_COUNT).unwrap_or(0);
    metadata.set("clip.vision.feature_layer", Value::i32s([n_layer as i32]));
    let tensors = file.tensors().iter();
    let tensors = tensors
        .take_while(|t| t.name != keys::VIEW_ADAPTER)
        .cloned()
        .collect();
    Header { metadata, tensors }
}

/// Writes `header` and a range of `source`; false if it was interrupted.
fn copy_file(
    source: &Path,
    header: &[u8],
    range: std::ops::Range<usize>,
    target: &Path,
    cancel: &AtomicBool,
) -> io::Result<bool> {
    const CHUNK: usize = 4 << 20;
    let mut pending = PendingFile::create(target)?;
    pending.file().write_all(header)?;
    let mut source = File::open(source)?;
    source.seek(SeekFrom::Start(range.start as u64))?;
    let mut buffer = vec![0; CHUNK];
    let mut left = range.len();
    while left > 0 {
        if cancel.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let chunk = &mut buffer[..left.min(CHUNK)];
        source.read_exact(chunk)?;
        pending.file().write_all(chunk)?;
        left -= chunk.len();
    }
    pending.commit()?;
    Ok(true)
}
