//! Checks whether a run fits into memory, and what would make it fit.

use super::{Engine, EngineError, EngineOptions};
use crate::{
    engine::memory::{MemoryNeed, RunShape, remedies, smaller_model},
    model::container::Container,
};

/// What decides the memory of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryRequest {
    /// Positions of the context, all sequences together, without those of further beams.
    pub n_ctx: usize,
    /// The minimum of `n_ctx` for this run.
    pub n_ctx_min: usize,
    /// Sequences that share the context.
    pub n_seq: usize,
    /// Beams of the search; 1 for none.
    pub n_beams: usize,
    /// The maximum number of positions of each beam's answer.
    pub n_answer: usize,
    /// Whether pictures are encoded.
    pub encodes: bool,
    /// Whether Partial-LoRA is needed.
    pub adapts: bool,
    /// Cells of the context that is freed before this one is created.
    pub n_freed_cells: usize,
}

impl MemoryRequest {
    /// Cells of the KV cache; positions that sequences share count once.
    pub fn n_cells(&self) -> usize {
        self.n_cells_with(self.n_ctx.div_ceil(self.n_seq), self.n_seq)
    }

    /// As [`Self::n_cells`], for `n_seq` sequences of `n_ctx` positions each.
    fn n_cells_with(&self, n_ctx: usize, n_seq: usize) -> usize {
        let n_prompt = self.n_ctx_min.div_ceil(self.n_seq) - 1;
        let n_answer = self.n_answer.min(n_ctx - n_prompt);
        n_ctx * n_seq + (self.n_beams - 1) * n_answer
    }
}

/// Checks, before the weights are loaded, that they fit into memory.
pub(super) fn check_weights(
    container: &Container,
    options: &EngineOptions,
) -> Result<(), EngineError> {
    let shape = RunShape {
        n_ctx: 1,
        n_ctx_min: 1,
        n_seq: 1,
        kv_type: options.kv_type,
        repack: options.load.repack,
    };
    let need = |shape: &RunShape| {
        MemoryNeed::of(container, with_shape(options, shape).workload(1, 1, None))
    };
    check(container, options, shape, 0, need)
}

fn with_shape(options: &EngineOptions, shape: &RunShape) -> EngineOptions {
    let mut options = options.clone();
    options.kv_type = shape.kv_type;
    options.load.repack = shape.repack;
    options
}

/// Checks that a run fits into memory; `loaded` bytes of its need are allocated already.
fn check(
    container: &Container,
    options: &EngineOptions,
    shape: RunShape,
    loaded: u64,
    need: impl Fn(&RunShape) -> MemoryNeed,
) -> Result<(), EngineError> {
    let Some(limit) = options.memory_limit(loaded) else {
        return Ok(());
    };
    let total_need = need(&shape);
    if total_need.total() <= limit {
        return Ok(());
    }
    Err(EngineError::Memory {
        need: Box::new(total_need),
        available: limit,
        remedies: remedies(shape, limit, |shape| need(shape).total()),
        smaller_model: smaller_model(container, &total_need, limit),
    })
}

impl Engine {
    /// The memory need with a context of `n_ctx` positions and with pictures.
    pub fn memory_need(&self, n_ctx: usize) -> MemoryNeed {
        self.memory_need_for(n_ctx, true)
    }

    /// The memory need with a context of `n_ctx` positions; without `pictures` neither the tower nor the adapter is
    /// used.
    pub fn memory_need_for(&self, n_ctx: usize, pictures: bool) -> MemoryNeed {
        let tower = pictures.then_some(&self.encoder);
        let load = self.options.workload(n_ctx, n_ctx, tower);
        MemoryNeed::of(&self.container, load)
    }

    /// Bytes of picture embeddings worth caching for a context of `n_cells` positions: those of as many pictures as
    /// fit into it.
    pub(super) fn embedding_cache_bytes(&self, n_cells: usize) -> usize {
        let load = self.options.workload(n_cells, n_cells, Some(&self.encoder));
        load.pictures.map_or(0, |pictures| pictures.embeddings)
    }

    /// The best number of parallel requests of up to `n_ctx` positions, pictures included: twice the threads, at
    /// least 4 and at most 16, but no more than fit into nine tenths of the `available` bytes (`None` if unknown).
    pub fn choose_parallel(&self, n_ctx: usize, available: Option<u64>) -> usize {
        let n_max = (2 * self.options.n_threads).clamp(4, 16);
        let max_memory = self.options.max_memory;
        let fits = |n: &usize| {
            let load = (self.options).workload(n * n_ctx, n_ctx, Some(&self.encoder));
            let need = MemoryNeed::of(&self.container, load);
            let new = need.total() - self.loaded_bytes(&need);
            available.is_none_or(|available| new <= available / 10 * 9)
                && max_memory.is_none_or(|max| need.total() <= max)
        };
        (2..=n_max).rev().find(fits).unwrap_or(1)
    }

    /// Checks that a run fits into memory.
    pub(super) fn check_memory(&self, request: MemoryRequest) -> Result<(), EngineError> {
        let is_loaded = self.is_adapter_loaded();
        let need = |shape: &RunShape| {
            let pictures = request.encodes || request.adapts || is_loaded;
            let options = with_shape(&self.options, shape);
            let n_cells = request.n_cells_with(shape.n_ctx, shape.n_seq);
            let tower = pictures.then_some(&self.encoder);
            let load = options.workload(n_cells, shape.n_ctx, tower);
            let mut need = MemoryNeed::of(&self.container, load);
            if !request.adapts && !is_loaded {
                need.plora = 0;
            }
            need
        };
        let shape = RunShape {
            n_ctx: request.n_ctx.div_ceil(request.n_seq),
            n_ctx_min: request.n_ctx_min.div_ceil(request.n_seq),
            n_seq: request.n_seq,
            kv_type: self.options.kv_type,
            repack: self.options.load.repack,
        };
        let freed_kv_cache = match request.n_freed_cells {
            0 => 0,
            n => self.memory_need_for(n, false).kv_cache,
        };
        let loaded = self.loaded_bytes(&need(&shape)) + freed_kv_cache;
        check(&self.container, &self.options, shape, loaded, need)
    }

    /// Bytes of `need`, without contexts, that this process has allocated already. Mapped weights do not count,
    /// because the system reports their pages as available.
    pub(super) fn loaded_bytes(&self, need: &MemoryNeed) -> u64 {
        let decoder = match self.options.load.mmap {
            true => 0,
            false => need.decoder,
        };
        let plora = match self.is_adapter_loaded() {
            true => need.plora,
            false => 0,
        };
        let embeddings = (self.embeddings.bytes() as u64).min(need.kept);
        decoder + need.repacked + need.vocabulary + plora + embeddings
    }
}
