//! Splits a model file into the three files that llama.cpp programs expect: decoder, adapter and `mmproj`.
//!
//! Decoder and adapter are complete GGUF files within the model file, so they are copied unchanged. The tower
//! gets a new header.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use xc2_edge::model::{
    container::{Container, ContainerError, View, keys},
    gguf::{GgufFile, Header, Metadata, Value},
};

use crate::write::{PendingFile, WriteError, check_target, make_dir, refuse_inputs};

/// Why a model file could not be split.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SplitError {
    /// The model file cannot be opened.
    #[error("{path}")]
    Open {
        path: PathBuf,
        source: ContainerError,
    },
    /// The model file cannot be read.
    #[error("{path}: cannot be read")]
    Read { path: PathBuf, source: io::Error },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Cancelled by the user.
    #[error("interrupted; complete files were kept")]
    Cancelled,
}

/// Writes `decoder.gguf`, `mmproj.gguf` and `adapter.gguf` into `dir`; returns paths and sizes. A tower that takes
/// tiles has no form that other programs know: there is no `mmproj.gguf` then.
///
/// # Errors
/// If `model` is not a model file, or a file cannot be written. Complete files are kept.
pub fn split(
    model: &Path,
    dir: &Path,
    cancel: &AtomicBool,
) -> Result<Vec<(PathBuf, u64)>, SplitError> {
    let mut source = Source {
        path: model,
        file: File::open(model).map_err(Source::failed(model))?,
    };
    let container = Container::open(model).map_err(|source| SplitError::Open {
        path: model.to_owned(),
        source,
    })?;
    make_dir(dir)?;
    let files = files(&container).into_iter();
    let files: Vec<_> = files
        .map(|(name, header, range)| (dir.join(name), header, range))
        .collect();
    for (path, ..) in &files {
        refuse_inputs(path, &[model.to_owned()])?;
        check_target(path)?;
    }
    let mut written = Vec::new();
    for (path, header, range) in files {
        let n_bytes = (header.len() + range.len()) as u64;
        copy_file(&mut source, &header, range, &path, cancel)?;
        written.push((path, n_bytes));
    }
    Ok(written)
}

/// For each file: name, new header, and the range of the model file that follows it.
fn files(container: &Container) -> Vec<(&'static str, Vec<u8>, Range<usize>)> {
    let file = container.file();
    let adapter = container.view_offset(View::Adapter);
    let decoder = container.view_offset(View::Decoder);
    let data = file.file_bytes() - file.data().len();
    let mut files = vec![
        ("decoder.gguf", vec![], decoder..file.file_bytes()),
        ("adapter.gguf", vec![], adapter..decoder),
    ];
    if container.info().vision.tiling.is_none() {
        files.push(("mmproj.gguf", mmproj_header(file).encode(), data..adapter));
    }
    files
}

/// The model file, opened once, so that renaming or replacing it meanwhile has no effect.
struct Source<'a> {
    path: &'a Path,
    file: File,
}

impl Source<'_> {
    /// For `map_err` on reading the file.
    fn failed(path: &Path) -> impl Fn(io::Error) -> SplitError {
        move |source| SplitError::Read {
            path: path.to_owned(),
            source,
        }
    }
}

/// The tower and projector as llama.cpp's `mtmd` expects them.
///
/// Its LLaVA graph uses the features of the second to last layer by default; this model uses the last layer's.
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

/// Writes `header` and a range of `source`.
fn copy_file(
    source: &mut Source,
    header: &[u8],
    range: Range<usize>,
    target: &Path,
    cancel: &AtomicBool,
) -> Result<(), SplitError> {
    const CHUNK: usize = 4 << 20;
    let unread = Source::failed(source.path);
    let unwritten = WriteError::output(target, (header.len() + range.len()) as u64);
    let mut pending = PendingFile::create(target)?;
    pending.file().write_all(header).map_err(&unwritten)?;
    let start = SeekFrom::Start(range.start as u64);
    source.file.seek(start).map_err(&unread)?;
    let mut buffer = vec![0; CHUNK];
    let mut left = range.len();
    while left > 0 {
        if cancel.load(Ordering::Relaxed) {
            return Err(SplitError::Cancelled);
        }
        let chunk = &mut buffer[..left.min(CHUNK)];
        source.file.read_exact(chunk).map_err(&unread)?;
        pending.file().write_all(chunk).map_err(&unwritten)?;
        left -= chunk.len();
    }
    Ok(pending.commit().map_err(&unwritten)?)
}
