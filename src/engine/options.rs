//! How a model is run.

use super::{EngineError, N_BATCH};
use crate::{
    cache::CacheOptions,
    image::Orientation,
    llama::{KvType, LoadOptions},
    memory::{self, MemoryNeed, Workload},
    vision::Precision,
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
    /// How the decoder is loaded.
    pub load: LoadOptions,
    /// In what the tower computes.
    pub tower: Precision,
    /// Whether EXIF orientation is applied to pictures.
    pub orientation: Orientation,
    /// Whether the memory is checked before a run.
    pub check_memory: bool,
    /// Where pictures and prompts are kept across runs; `None` for nowhere.
    pub cache: Option<CacheOptions>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_ctx: None,
            n_threads: default_threads(),
            kv_type: KvType::F16,
            flash_attn: true,
            load: LoadOptions::default(),
            tower: Precision::default(),
            orientation: Orientation::Apply,
            check_memory: true,
            cache: None,
        }
    }
}

impl EngineOptions {
    /// What a run with a context of `n_ctx` positions is to memory, with `pictures` or without.
    pub fn workload(&self, n_ctx: usize, vision_work: usize, pictures: bool) -> Workload {
        Workload {
            n_ctx,
            n_batch: N_BATCH.min(n_ctx),
            kv_type: self.kv_type,
            repack: self.load.repack,
            vision_work,
            pictures,
        }
    }

    /// Refuses what does not fit, less what is `loaded` already.
    pub(super) fn check_memory(&self, need: MemoryNeed, loaded: u64) -> Result<(), EngineError> {
        match memory::available() {
            Some(available)
                if self.check_memory && need.total().saturating_sub(loaded) > available =>
            {
                Err(EngineError::Memory { need, available })
            }
            _ => Ok(()),
        }
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
    fn too_little_memory_is_told_with_what_takes_it() {
        let options = EngineOptions::default();
        let need = MemoryNeed {
            decoder: 1 << 60,
            kv_cache: 5_000_000,
            ..MemoryNeed::default()
        };
        let error = options.check_memory(need, 0).unwrap_err().to_string();
        assert!(
            error.contains("not enough memory") && error.contains("5.0 MB context"),
            "{error}"
        );
        options.check_memory(need, 1 << 60).unwrap(); // what is loaded already is not needed again
        EngineOptions {
            check_memory: false,
            ..options
        }
        .check_memory(need, 0)
        .unwrap();
    }
}
