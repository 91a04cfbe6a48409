//! The engine's options.

use super::{EMBEDDING_CACHE_BYTES, N_BATCH};
use crate::{
    engine::{
        cache::CacheOptions,
        memory::{PictureLoad, Workload},
    },
    language::llama::{KvType, LoadOptions, MatmulBackend},
    system,
    vision::{
        Precision, VisionEncoder,
        image::{Orientation, ReadOptions, Transparency},
    },
};

/// How a model is run, for all requests.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Context size in positions; `None` for what the request needs.
    pub n_ctx: Option<usize>,
    /// Whether `n_ctx` may exceed the model's maximum, by scaling the rotary embedding for that length.
    pub long_context: bool,
    /// Compute threads.
    pub n_threads: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Fused attention in the decoder.
    pub flash_attn: bool,
    /// The kernels that compute the decoder's matrix products.
    pub matmul_backend: MatmulBackend,
    /// How the decoder is loaded.
    pub load: LoadOptions,
    /// The arithmetic of the tower.
    pub tower: Precision,
    /// Whether EXIF orientation is applied to pictures.
    pub orientation: Orientation,
    /// How transparent parts of pictures are composited.
    pub transparency: Transparency,
    /// Whether truncated picture files are accepted, with grey where pixels are missing.
    pub allow_truncated: bool,
    /// Whether the memory is checked before a run.
    pub check_memory: bool,
    /// The cache on disk for pictures and prompts; `None` for no cache.
    pub cache: Option<CacheOptions>,
    /// The maximum memory of a run in bytes; `None` for what is available.
    pub max_memory: Option<u64>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_ctx: None,
            long_context: false,
            n_threads: default_threads(),
            kv_type: KvType::F16,
            flash_attn: true,
            matmul_backend: MatmulBackend::default(),
            load: LoadOptions::default(),
            tower: Precision::default(),
            orientation: Orientation::Apply,
            transparency: Transparency::Auto,
            allow_truncated: false,
            check_memory: true,
            cache: None,
            max_memory: None,
        }
    }
}

impl EngineOptions {
    /// How pictures are decoded.
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions {
            orientation: self.orientation,
            transparency: self.transparency,
            allow_truncated: self.allow_truncated,
        }
    }

    /// The workload of a run with a context of `n_cells` positions, up to `n_ctx` of them in one sequence. With a
    /// `tower` it includes as many pictures as fit into the context.
    pub fn workload(
        &self,
        n_cells: usize,
        n_ctx: usize,
        tower: Option<&VisionEncoder>,
    ) -> Workload {
        let pictures = tower.map(|tower| {
            let config = tower.config();
            let row = config.n_embd_text * size_of::<f32>();
            let (one, canvas) = match config.tiling {
                None => (config.n_patches() * row, 0),
                // Pictures take different numbers of positions; one may take all.
                Some(_) => (n_cells * row, n_cells * config.canvas_bytes_per_embedding()),
            };
            let n_further = (n_cells * row / one).saturating_sub(1);
            PictureLoad {
                work: tower.work_bytes() + one + canvas,
                embeddings: (n_further * one).min(EMBEDDING_CACHE_BYTES),
                // The cache on disk copies one sequence at a time.
                n_copied: if self.cache.is_some() { n_ctx } else { 0 },
            }
        });
        Workload {
            n_ctx: n_cells,
            n_batch: N_BATCH.min(n_cells),
            kv_type: self.kv_type,
            repack: self.load.repack,
            pictures,
        }
    }

    /// The maximum memory of a run in bytes; this process has allocated `loaded` of them already. `None` if unknown or
    /// if memory is not checked.
    pub(super) fn memory_limit(&self, loaded: u64) -> Option<u64> {
        let available = system::memory::available().map(|bytes| bytes.saturating_add(loaded));
        let limits = [available, self.max_memory].into_iter().flatten();
        limits.min().filter(|_| self.check_memory)
    }
}

/// The number of cores that this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_available_memory_or_max_memory() {
        let options = EngineOptions::default();
        let available = options.memory_limit(0).unwrap();
        assert!(available > 1 << 20);
        assert!(
            options.memory_limit(1 << 50).unwrap() > 1 << 50,
            "loaded bytes count as available"
        );
        let max_memory = Some(5_000_000);
        let small = EngineOptions {
            max_memory,
            ..options
        };
        assert_eq!(small.memory_limit(0), max_memory);
        assert_eq!(small.memory_limit(1 << 50), max_memory);
        let unchecked = EngineOptions {
            check_memory: false,
            ..small
        };
        assert_eq!(unchecked.memory_limit(0), None);
    }
}
