//! Reads `.bin` files of PyTorch 1.6 and later: zip archives of a pickle and uncompressed storages.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use xc2_edge::model::quant::GgmlType;
use zip::{CompressionMethod, ZipArchive};

use super::{
    CheckpointError, SourceTensor, open_weights,
    pickle::{PickledTensor, read_state_dict},
    tensor::{Dtype, Shard},
};

/// Size limit of the pickle; the list of a model's tensors takes some hundred kilobytes.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// The position of a storage in the file.
#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    n_bytes: u64,
}

/// Lists the tensors of a `.bin` file.
pub(super) fn open(path: &Path) -> Result<Vec<SourceTensor>, CheckpointError> {
    let file = open_weights(path)?;
    let reader = BufReader::new(file.try_clone().map_err(CheckpointError::io(path))?);
    let mut archive = ZipArchive::new(reader).map_err(|e| not_an_archive(path, &file, &e))?;
    let (pickle, extents) = read_entries(path, &mut archive)?;
    let tensors = read_state_dict(&pickle).map_err(|source| CheckpointError::Pickle {
        path: path.to_owned(),
        source,
    })?;
    let path = path.to_owned();
    let shard = Arc::new(Shard { path, file });
    let resolve = |(name, tensor)| resolve(name, &tensor, &extents, &shard);
    tensors.into_iter().map(resolve).collect()
}

/// Reads the pickle and the positions of the storages by key.
fn read_entries(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
) -> Result<(Vec<u8>, HashMap<String, Extent>), CheckpointError> {
    let mut pickle = None;
    let mut extents = HashMap::new();
    for i in 0..archive.len() {
        let damaged = |e| CheckpointError::damaged(path, format!("zip entry {i}: {e}"));
        let entry = archive.by_index(i).map_err(damaged)?;
        // Every name is `ARCHIVE/data.pkl`, `ARCHIVE/data/KEY` and so on.
        let name = entry.name().to_owned();
        match name.split_once('/') {
            Some((_, "data.pkl")) => {
                let bytes = read_limited(entry, MAX_PICKLE_BYTES);
                let damaged = |e| CheckpointError::damaged(path, format!("`{name}`: {e}"));
                pickle = Some(bytes.map_err(damaged)?);
            }
            Some((_, "byteorder")) => {
                let order = read_limited(entry, 16).unwrap_or_default();
                if order != b"little" {
                    let found = order.escape_ascii();
                    let reason = format!("byte order: expected `little`, found `{found}`");
                    return Err(CheckpointError::damaged(path, reason));
                }
            }
            Some((_, inner)) if inner.starts_with("data/") => {
                if entry.compression() != CompressionMethod::Stored {
                    let reason = format!("`{name}`: expected stored data, found compressed data");
                    return Err(CheckpointError::damaged(path, reason));
                }
                let (offset, n_bytes) = (entry.data_start(), entry.size());
                extents.insert(
                    inner["data/".len()..].to_owned(),
                    Extent { offset, n_bytes },
                );
            }
            _ => {}
        }
    }
    let missing = || CheckpointError::damaged(path, "expected an entry `data.pkl`, found none");
    Ok((pickle.ok_or_else(missing)?, extents))
}

/// Reads all bytes, at most `limit`.
fn read_limited(entry: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!(
            "expected at most {limit} bytes, found more"
        )));
    }
    Ok(bytes)
}

/// Converts a pickled view of a storage into a tensor of the file; checks that it lies within the storage.
fn resolve(
    name: String,
    tensor: &PickledTensor,
    extents: &HashMap<String, Extent>,
    shard: &Arc<Shard>,
) -> Result<SourceTensor, CheckpointError> {
    let path = &shard.path;
    let damaged = |what: &str| CheckpointError::damaged(path, format!("tensor `{name}`: {what}"));
    let dtype = dtype(&tensor.storage_class);
    let extent = extents.get(&tensor.storage_key);
    let extent = extent.ok_or_else(|| damaged("its storage is missing"))?;
    let span = span(tensor, dtype.item_bytes().unwrap_or(1));
    let (begin, end) = span.ok_or_else(|| damaged("invalid shape and strides"))?;
    let file = shard.file.metadata().map_err(CheckpointError::io(path))?;
    let available = extent.n_bytes.min(file.len().saturating_sub(extent.offset));
    if end > available {
        return Err(CheckpointError::Truncated {
            path: path.clone(),
            what: format!("tensor `{name}`"),
            expected: end,
            found: available,
        });
    }
    Ok(SourceTensor::new(
        name,
        dtype,
        tensor.shape.clone(),
        tensor.strides.clone(),
        extent.offset + begin,
        shard.clone(),
    ))
}

/// First byte of a view and the byte after its last, from the start of its storage; `None` if the numbers
/// overflow, or if the view repeats elements (a few bytes could then stand for terabytes).
fn span(tensor: &PickledTensor, item: usize) -> Option<(u64, u64)> {
    let mut last = tensor.offset;
    let mut n_elements = 1usize;
    for (&len, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add(len.saturating_sub(1).checked_mul(stride)?)?;
        n_elements = n_elements.checked_mul(len)?;
    }
    let begin = tensor.offset.checked_mul(item)? as u64;
    if n_elements == 0 {
        return Some((begin, begin));
    }
    let end = last.checked_add(1)?;
    (n_elements <= end - tensor.offset).then_some(())?;
    Some((begin, end.checked_mul(item)? as u64))
}

fn dtype(class: &str) -> Dtype {
    match class {
        "FloatStorage" => Dtype::Float(GgmlType::F32),
        "HalfStorage" => Dtype::Float(GgmlType::F16),
        "BFloat16Storage" => Dtype::Float(GgmlType::BF16),
        "IntStorage" => Dtype::Int32,
        other => Dtype::Other(other.to_owned()),
    }
}

/// The error for a file that is not a zip archive. A truncated archive lacks its directory, which is at the end.
fn not_an_archive(path: &Path, file: &File, error: &zip::result::ZipError) -> CheckpointError {
    use std::os::unix::fs::FileExt;
    let mut start = [0; 4];
    let _ = file.read_exact_at(&mut start, 0);
    let reason = match start {
        [b'P', b'K', 3, 4] => {
            format!("the file is truncated: its zip directory is missing ({error})")
        }
        [0x80, ..] => "expected a zip archive, found a file of PyTorch before 1.6; load it in PyTorch and save \
                       it again"
            .to_owned(),
        _ => format!("expected a zip archive of PyTorch: {error}"),
    };
    CheckpointError::damaged(path, reason)
}
