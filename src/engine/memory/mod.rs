//! The memory need of a run.
//!
//! Too little memory is reported before anything is computed, together with remedies. The alternative is the
//! kernel's out-of-memory killer, or a board that swaps for hours.

mod remedy;

pub use remedy::{Remedy, RunShape, remedies, smaller_model};

use crate::{
    language::llama::KvType,
    model::{
        container::{Container, View},
        gguf::TensorInfo,
        quant::GgmlType,
    },
};

/// What decides the memory need of a run.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Positions of the context.
    pub n_ctx: usize,
    /// Batch size, in positions.
    pub n_batch: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Whether llama.cpp repacks weights for its kernels.
    pub repack: bool,
    /// The memory for pictures. Without pictures neither tower nor adapter is used.
    pub pictures: Option<PictureLoad>,
}

/// The memory for pictures besides weights and positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureLoad {
    /// Bytes of the tower's scratch, with the embeddings of one picture.
    pub work: usize,
    /// Bytes of further embeddings that are cached.
    pub embeddings: usize,
    /// Positions whose keys and values are copied on their way to or from the cache on disk.
    pub n_copied: usize,
}

/// The memory need of a run, in bytes by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryNeed {
    /// The decoder's weights. They are mapped: the pages count, but the system may evict them.
    pub decoder: u64,
    /// llama.cpp's second copy of the weights that it repacks.
    pub repacked: u64,
    /// Partial-LoRA, which llama.cpp copies.
    pub plora: u64,
    /// Tower and projector, mapped like the decoder.
    pub vision: u64,
    /// The program itself.
    pub program: u64,
    /// llama.cpp's tables of the vocabulary.
    pub vocabulary: u64,
    /// Keys and values of the whole context.
    pub kv_cache: u64,
    /// Scratch of the tower or of the decoder's graphs, whichever is larger: they never run at the same time.
    pub work: u64,
    /// Cached embeddings of pictures, and the copy of keys and values that is written to the cache on disk or read
    /// from it.
    pub kept: u64,
}

impl MemoryNeed {
    /// The memory need of running `container`.
    pub fn of(container: &Container, load: Workload) -> Self {
        let mut need = Self::weights(container, load.repack);
        let decoder = &container.info().decoder;
        let n_cells = load.n_ctx.next_multiple_of(KV_CELLS);
        let per_cell = decoder.kv_elements_per_position();
        let decode_work = decode_work(decoder.n_embd, decoder.n_ff, load.n_batch);
        need.program = PROGRAM_BYTES;
        need.vocabulary = (decoder.n_vocab * PIECE_BYTES) as u64;
        need.kv_cache = load.kv_type.bytes(n_cells * per_cell) as u64;
        need.work = decode_work as u64;
        match load.pictures {
            Some(pictures) => {
                let copy = load.kv_type.bytes(pictures.n_copied * per_cell);
                need.work = need.work.max(pictures.work as u64);
                need.kept = (pictures.embeddings + copy) as u64;
            }
            None => (need.vision, need.plora) = (0, 0),
        }
        need
    }

    fn weights(container: &Container, repack: bool) -> Self {
        let mut need = Self::default();
        let mut view = None;
        for tensor in container.file().tensors() {
            let is_start = |v: &View| v.tensor_name() == tensor.name;
            view = [View::Adapter, View::Decoder]
                .into_iter()
                .find(is_start)
                .or(view);
            let bytes = tensor.n_bytes().unwrap_or(0) as u64;
            match view {
                None => need.vision += bytes,
                Some(View::Adapter) => need.plora += bytes,
                Some(View::Decoder) => {
                    need.decoder += bytes;
                    need.repacked += if repack && is_repacked(tensor) {
                        bytes
                    } else {
                        0
                    };
                }
            }
        }
        need
    }

    /// All weights, repacked copies included.
    pub fn all_weights(&self) -> u64 {
        self.decoder + self.repacked + self.plora + self.vision
    }

    /// Everything but weights and the KV cache.
    pub fn rest(&self) -> u64 {
        self.program + self.vocabulary + self.work + self.kept
    }

    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        self.all_weights() + self.kv_cache + self.rest()
    }

    /// The peak resident size, as the system reports it, of a run with a mapped file of `file_bytes`. While it loads,
    /// llama.cpp touches the whole file, tower and adapter included. The system counts these pages although it may
    /// evict them, so they are not part of the need.
    pub fn peak_resident(&self, file_bytes: u64) -> u64 {
        let loading = file_bytes + self.repacked + self.vocabulary + self.program;
        loading.max(self.total())
    }
}

/// llama.cpp rounds the number of cells up to a multiple of this.
const KV_CELLS: usize = 256;

/// The need of a run independent of the model, measured on x86-64: 14.7 MB of this program's file and its libraries
/// (mapped code and tables in use), 0.9 MB of data that are relocated or written at start, 0.9 MB of llama.cpp's and
/// our own tables of models, tensors and threads.
const PROGRAM_BYTES: u64 = 16_500_000;

/// Bytes that llama.cpp keeps for each piece of the vocabulary, measured: its text, twice, in two hash tables.
const PIECE_BYTES: usize = 550;

/// Whether llama.cpp repacks a tensor of the decoder. The token embeddings are looked up, not multiplied, and are not
/// repacked.
fn is_repacked(tensor: &TensorInfo) -> bool {
    let everywhere = matches!(tensor.ty, GgmlType::Q4_0 | GgmlType::Q4_K);
    let here = if cfg!(target_arch = "x86_64") {
        tensor.ty == GgmlType::Q2_K
    } else {
        matches!(tensor.ty, GgmlType::Q5_K | GgmlType::Q6_K | GgmlType::Q8_0)
    };
    (everywhere || here) && tensor.shape.len() == 2 && tensor.name != "token_embd.weight"
}

/// Bytes of the decoder's scratch. Its graphs hold a few activations of a batch at a time in f32. In int8 with scales
/// and sums (11 bytes for 8 values) they hold those of one wide product, or of a narrow one in two formats.
fn decode_work(n_embd: usize, n_ff: usize, n_batch: usize) -> usize {
    const ACTIVATIONS: usize = 4;
    let floats = n_batch * (ACTIVATIONS * n_embd + 3 * n_ff);
    floats * size_of::<f32>() + n_batch * n_ff.max(2 * n_embd) * 11 / 8
}

/// Bytes per element type of the tensors whose names `which` accepts, the largest first.
pub fn by_type(container: &Container, which: impl Fn(&str) -> bool) -> Vec<(GgmlType, u64)> {
    let mut sums: Vec<(GgmlType, u64)> = Vec::new();
    for tensor in container.file().tensors() {
        let bytes = tensor.n_bytes().unwrap_or(0) as u64;
        match sums.iter_mut().find(|(ty, _)| *ty == tensor.ty) {
            _ if !which(&tensor.name) => {}
            Some((_, sum)) => *sum += bytes,
            None => sums.push((tensor.ty, bytes)),
        }
    }
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_matrices_of_some_types_are_repacked() {
        let matrix = |name: &str, ty| TensorInfo::new(name, ty, [256, 8]);
        assert!(is_repacked(&matrix("blk.0.ffn_up.weight", GgmlType::Q4_K)));
        assert!(!is_repacked(&matrix("blk.0.ffn_up.weight", GgmlType::F16)));
        assert!(!is_repacked(&matrix("token_embd.weight", GgmlType::Q4_K)));
        let norm = TensorInfo::new("blk.0.attn_norm.weight", GgmlType::F32, [256]);
        assert!(!is_repacked(&norm));
    }
}
