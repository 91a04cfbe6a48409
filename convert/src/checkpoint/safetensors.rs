//! Reads the header of a safetensors file.
//!
//! The `safetensors` crate checks the header (no gaps, sizes that match shape and dtype), but its reader needs
//! the whole file in memory or mapped. Only its header type is used here; data is read by position later.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use safetensors::tensor::{Dtype as StDtype, Metadata};
use xc2_edge::model::quant::GgmlType;

use super::{
    CheckpointError, SourceTensor, open_weights,
    tensor::{Dtype, Shard, row_major},
};

/// The format's own limit, so that a damaged length is not allocated.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Lists the tensors of a safetensors file.
pub(super) fn open(path: &Path) -> Result<Vec<SourceTensor>, CheckpointError> {
    let file = open_weights(path)?;
    let (header, data_start) = read_header(path, &file)?;
    let path = path.to_owned();
    let shard = Arc::new(Shard { path, file });
    let tensor = |name: String| {
        let info = header.info(&name).expect("a key of the header");
        SourceTensor::new(
            name,
            dtype(info.dtype),
            info.shape.clone(),
            row_major(&info.shape),
            data_start + info.data_offsets.0 as u64,
            shard.clone(),
        )
    };
    Ok(header.offset_keys().into_iter().map(tensor).collect())
}

/// The header and the offset of its data; checks that the file contains all data.
fn read_header(path: &Path, file: &File) -> Result<(Metadata, u64), CheckpointError> {
    let io = || CheckpointError::io(path);
    let file_bytes = file.metadata().map_err(io())?.len();
    let at_least = |expected: u64, what: &str| {
        let complete = file_bytes >= expected;
        complete
            .then_some(())
            .ok_or_else(|| CheckpointError::Truncated {
                path: path.to_owned(),
                what: what.to_owned(),
                expected,
                found: file_bytes,
            })
    };
    at_least(8, "length of the header")?;
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(io())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        let reason = format!("header: expected at most {MAX_HEADER_BYTES} bytes, found {length}");
        return Err(CheckpointError::damaged(path, reason));
    }
    let data_start = 8 + length;
    at_least(data_start, "header")?;
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, 8).map_err(io())?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|e| CheckpointError::damaged(path, format!("header: {e}")))?;
    let end = data_start.saturating_add(header.data_len() as u64);
    at_least(end, "tensors")?;
    Ok((header, data_start))
}

fn dtype(dtype: StDtype) -> Dtype {
    match dtype {
        StDtype::F32 => Dtype::Float(GgmlType::F32),
        StDtype::F16 => Dtype::Float(GgmlType::F16),
        StDtype::BF16 => Dtype::Float(GgmlType::BF16),
        StDtype::I32 | StDtype::U32 => Dtype::Int32,
        other => Dtype::Other(format!("{other:?}").to_lowercase()),
    }
}
