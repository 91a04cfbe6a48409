//! How a model is run.

use super::{EMBEDDING_CACHE_BYTES, N_BATCH};
use crate::system;
use crate::{
    engine::{cache::CacheOptions, memory::PictureLoad, memory::Workload},
    language::llama::{KvType, LoadOptions, Products},
    vision::Precision,
    vision::VisionEncoder,
    vision::image::{Orientation, Reading, Transparency},
};

/// How a model is run; one setting for all requests.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Positions of the context; `None` for what the request needs.
    pub n_ctx: Option<usize>,
    /// Threads that compute.
    pub n_threads: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Fused attention in the decoder.
    pub flash_attn: bool,
    /// Who multiplies matrices in the decoder.
    pub products: Products,
    /// How the decoder is loaded.
    pub load: LoadOptions,
    /// In what the tower computes.
    pub tower: Precision,
    /// Whether EXIF orientation is applied to pictures.
    pub orientation: Orientation,
    /// What becomes of transparent parts of pictures.
    pub transparency: Transparency,
    /// Whether pictures whose files end early are taken all the same, with grey where pixels are missing.
    pub allow_truncated: bool,
    /// Whether the memory is checked before a run.
    pub check_memory: bool,
    /// Where pictures and prompts are kept across runs; `None` for nowhere.
    pub cache: Option<CacheOptions>,
    /// The most bytes that a run may need; `None` for what the machine has.
    pub max_memory: Option<u64>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_ctx: None,
            n_threads: default_threads(),
            kv_type: KvType::F16,
            flash_attn: true,
            products: Products::default(),
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
    /// How pictures are read.
    pub fn reading(&self) -> Reading {
        Reading {
            orientation: self.orientation,
            transparency: self.transparency,
            allow_truncated: self.allow_truncated,
        }
    }

    /// What a run with a context of `n_cells` positions, up to `n_ctx` of which are one sequence's, is to
    /// memory: with as many pictures as fit, which `tower` encodes, or without.
    pub fn workload(
        &self,
        n_cells: usize,
        n_ctx: usize,
        tower: Option<&VisionEncoder>,
    ) -> Workload {
        let pictures = tower.map(|tower| {
            let config = tower.config();
            let embedding = config.n_patches() * config.n_embd_text * size_of::<f32>();
            let n_further = (n_cells / config.n_patches()).saturating_sub(1);
            PictureLoad {
                work: tower.work_bytes(),
                embeddings: (n_further * embedding).min(EMBEDDING_CACHE_BYTES),
                // One sequence at a time.
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

    /// What a run may take in all, `loaded` of which this process holds already; `None` where nothing
    /// is known or nothing is to be checked.
    pub(super) fn memory_limit(&self, loaded: u64) -> Option<u64> {
        let machine = system::memory::available().map(|bytes| bytes.saturating_add(loaded));
        let limits = [machine, self.max_memory].into_iter().flatten();
        limits.min().filter(|_| self.check_memory)
    }
}

/// As many threads as cores that this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_machines_or_a_smaller_one_that_was_asked_for() {
        let options = EngineOptions::default();
        let machine = options.memory_limit(0).unwrap();
        assert!(machine > 1 << 20);
        assert!(
            options.memory_limit(1 << 50).unwrap() > 1 << 50,
            "what is held counts"
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
