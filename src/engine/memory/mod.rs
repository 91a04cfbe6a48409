//! How much memory a run takes, and how much there is.
//!
//! Too little memory is told before anything is computed, with what would help, because the
//! alternatives are the kernel's out-of-memory killer or a board that swaps for hours.

mod remedy;

pub use remedy::{Remedy, Shape, remedies, smaller_model};

use crate::{
    language::llama::KvType,
    model::{
        container::{Container, View},
        gguf::TensorInfo,
        quant::GgmlType,
    },
};

/// What a run is, as far as its memory goes.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Positions of the context.
    pub n_ctx: usize,
    /// Positions computed at once.
    pub n_batch: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Whether llama.cpp rearranges weights for its kernels.
    pub repack: bool,
    /// What pictures take, if any come. Without them neither tower nor adapter is touched.
    pub pictures: Option<PictureLoad>,
}

/// What pictures take besides weights and positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureLoad {
    /// Bytes of the tower's scratch, a picture's embeddings among them.
    pub work: usize,
    /// Bytes of further embeddings that are kept.
    pub embeddings: usize,
    /// Positions whose keys and values are copied on their way to or from the cache on disk.
    pub n_copied: usize,
}

/// What a run needs, in bytes by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryNeed {
    /// The decoder's weights. They are mapped: the pages count, but the system may drop them.
    pub decoder: u64,
    /// llama.cpp's second copy of those that it rearranges.
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
    /// Scratch of the tower and of the decoder's graphs; they never work at the same time.
    pub work: u64,
    /// Embeddings of pictures that are kept, and the copy of keys and values that goes to the cache on
    /// disk or comes from there.
    pub kept: u64,
}

impl MemoryNeed {
    /// What running `container` takes.
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
            let begins = |v: &View| v.tensor_name() == tensor.name;
            view = [View::Adapter, View::Decoder]
                .into_iter()
                .find(begins)
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

    /// The weights in all their forms.
    pub fn all_weights(&self) -> u64 {
        self.decoder + self.repacked + self.plora + self.vision
    }

    /// What is neither weights nor keys and values.
    pub fn rest(&self) -> u64 {
        self.program + self.vocabulary + self.work + self.kept
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.all_weights() + self.kv_cache + self.rest()
    }

    /// What [`peak`] will tell of a run with a mapped file of `file_bytes`. llama.cpp touches the whole
    /// file while it loads, tower and adapter included, and then lets go of them: pages that the
    /// system may drop, so they are not needed, but it counts them.
    pub fn peak_resident(&self, file_bytes: u64) -> u64 {
        let loading = file_bytes + self.repacked + self.vocabulary + self.program;
        loading.max(self.total())
    }
}

/// llama.cpp rounds a context up to a multiple of this.
const KV_CELLS: usize = 256;

/// What a run takes whatever the model, measured on x86-64: 14.7 MB of this program's file and of the
/// libraries under it (code and tables that are used, mapped), 0.9 MB of data that are relocated or written
/// when it starts, 0.9 MB of llama.cpp's and our own tables of models, tensors and threads.
const PROGRAM_BYTES: u64 = 16_500_000;

/// What llama.cpp keeps for a piece of the vocabulary, measured: its text, twice, in two hash
/// tables.
const PIECE_BYTES: usize = 550;

/// Whether llama.cpp has kernels for a rearranged form of a decoder's tensor. The embeddings are
/// looked up, not multiplied, and stay as they are.
fn is_repacked(tensor: &TensorInfo) -> bool {
    let everywhere = matches!(tensor.ty, GgmlType::Q4_0 | GgmlType::Q4_K);
    let here = if cfg!(target_arch = "x86_64") {
        tensor.ty == GgmlType::Q2_K
    } else {
        matches!(tensor.ty, GgmlType::Q5_K | GgmlType::Q6_K | GgmlType::Q8_0)
    };
    (everywhere || here) && tensor.shape.len() == 2 && tensor.name != "token_embd.weight"
}

/// The decoder's graphs hold a handful of activations of a batch at a time, and in int8 with their scales
/// and sums (11 bytes for 8) those of one wide product or of a narrow one in two formats.
fn decode_work(n_embd: usize, n_ff: usize, n_batch: usize) -> usize {
    const ACTIVATIONS: usize = 4;
    let floats = n_batch * (ACTIVATIONS * n_embd + 3 * n_ff);
    floats * size_of::<f32>() + n_batch * n_ff.max(2 * n_embd) * 11 / 8
}

/// Bytes of the tensors that `which` names by element type, the largest first.
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
    fn only_products_of_some_types_are_repacked() {
        let matrix = |name: &str, ty| TensorInfo::new(name, ty, [256, 8]);
        assert!(is_repacked(&matrix("blk.0.ffn_up.weight", GgmlType::Q4_K)));
        assert!(!is_repacked(&matrix("blk.0.ffn_up.weight", GgmlType::F16)));
        assert!(!is_repacked(&matrix("token_embd.weight", GgmlType::Q4_K)));
        let norm = TensorInfo::new("blk.0.attn_norm.weight", GgmlType::F32, [256]);
        assert!(!is_repacked(&norm));
    }
}
