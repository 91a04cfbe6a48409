//! Whether a run fits the machine, and what would make it fit.

use super::{Engine, EngineError, EngineOptions};
use crate::{
    engine::{memory::MemoryNeed, memory::Shape, memory::remedies, memory::smaller_model},
    model::container::Container,
};

/// A run, as far as its memory goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Positions of the context, all sequences together, but for further beams.
    pub n_ctx: usize,
    /// The fewest that would do.
    pub n_ctx_least: usize,
    /// Sequences that share them.
    pub n_seq: usize,
    /// Answers that are followed side by side from one prompt.
    pub n_beams: usize,
    /// The most positions of each of them.
    pub n_answer: usize,
    /// Whether pictures are encoded.
    pub encodes: bool,
    /// Whether Partial-LoRA is needed.
    pub adapts: bool,
    /// Cells of the context that is given up for it.
    pub n_held: usize,
}

impl Asked {
    /// Cells of the KV cache: what sequences share counted once.
    pub fn n_cells(&self) -> usize {
        self.n_cells_with(self.n_ctx.div_ceil(self.n_seq), self.n_seq)
    }

    /// The same with another context for each of another number of sequences.
    fn n_cells_with(&self, n_ctx: usize, n_seq: usize) -> usize {
        let n_prompt = self.n_ctx_least.div_ceil(self.n_seq) - 1;
        let n_answer = self.n_answer.min(n_ctx - n_prompt);
        n_ctx * n_seq + (self.n_beams - 1) * n_answer
    }
}

/// Refuses weights for which there is no memory, before they are loaded.
pub(super) fn check_weights(
    container: &Container,
    options: &EngineOptions,
) -> Result<(), EngineError> {
    let shape = Shape {
        n_ctx: 1,
        n_ctx_least: 1,
        n_seq: 1,
        kv_type: options.kv_type,
        repack: options.load.repack,
    };
    let need =
        |shape: &Shape| MemoryNeed::of(container, with_shape(options, shape).workload(1, 1, None));
    check(container, options, shape, 0, need)
}

fn with_shape(options: &EngineOptions, shape: &Shape) -> EngineOptions {
    let mut options = options.clone();
    options.kv_type = shape.kv_type;
    options.load.repack = shape.repack;
    options
}

/// Refuses a run that needs more than there is; `loaded` bytes of it are held already.
fn check(
    container: &Container,
    options: &EngineOptions,
    shape: Shape,
    loaded: u64,
    need: impl Fn(&Shape) -> MemoryNeed,
) -> Result<(), EngineError> {
    let Some(limit) = options.memory_limit(loaded) else {
        return Ok(());
    };
    let whole = need(&shape);
    if whole.total() <= limit {
        return Ok(());
    }
    Err(EngineError::Memory {
        need: Box::new(whole),
        available: limit,
        remedies: remedies(shape, limit, |shape| need(shape).total()),
        smaller_model: smaller_model(container, &whole, limit),
    })
}

impl Engine {
    /// What a context of `n_ctx` positions will need, when pictures come.
    pub fn memory_need(&self, n_ctx: usize) -> MemoryNeed {
        self.memory_need_for(n_ctx, true)
    }

    /// What a context of `n_ctx` positions will need; without `pictures` neither the tower nor the
    /// adapter is ever touched.
    pub fn memory_need_for(&self, n_ctx: usize, pictures: bool) -> MemoryNeed {
        let tower = pictures.then_some(&self.encoder);
        let load = self.options.workload(n_ctx, n_ctx, tower);
        MemoryNeed::of(&self.container, load)
    }

    /// Bytes of embeddings that are worth keeping where requests share `n_cells` positions: those of as many
    /// pictures as they hold.
    pub(super) fn kept_embeddings(&self, n_cells: usize) -> usize {
        let load = self.options.workload(n_cells, n_cells, Some(&self.encoder));
        load.pictures.map_or(0, |pictures| pictures.embeddings)
    }

    /// How many requests of up to `n_ctx` positions, pictures included, had best run at a time: as
    /// many as cores and batches make worth while, and as fit into nine tenths of the memory
    /// `available`, in bytes; `None` where that is not known.
    pub fn choose_parallel(&self, n_ctx: usize, available: Option<u64>) -> usize {
        let most = (2 * self.options.n_threads).clamp(4, 16);
        let max = self.options.max_memory;
        let fits = |n: &usize| {
            let load = (self.options).workload(n * n_ctx, n_ctx, Some(&self.encoder));
            let need = MemoryNeed::of(&self.container, load);
            let new = need.total() - self.loaded_bytes(&need);
            available.is_none_or(|available| new <= available / 10 * 9)
                && max.is_none_or(|max| need.total() <= max)
        };
        (2..=most).rev().find(fits).unwrap_or(1)
    }

    /// Refuses a run for which the memory does not suffice.
    pub(super) fn check_memory(&self, asked: Asked) -> Result<(), EngineError> {
        let held_adapter = self.holds_adapter();
        let need = |shape: &Shape| {
            let pictures = asked.encodes || asked.adapts || held_adapter;
            let options = with_shape(&self.options, shape);
            let n_cells = asked.n_cells_with(shape.n_ctx, shape.n_seq);
            let tower = pictures.then_some(&self.encoder);
            let load = options.workload(n_cells, shape.n_ctx, tower);
            let mut need = MemoryNeed::of(&self.container, load);
            if !asked.adapts && !held_adapter {
                need.plora = 0;
            }
            need
        };
        let shape = Shape {
            n_ctx: asked.n_ctx.div_ceil(asked.n_seq),
            n_ctx_least: asked.n_ctx_least.div_ceil(asked.n_seq),
            n_seq: asked.n_seq,
            kv_type: self.options.kv_type,
            repack: self.options.load.repack,
        };
        let kv_held = match asked.n_held {
            0 => 0,
            n => self.memory_need_for(n, false).kv_cache,
        };
        let loaded = self.loaded_bytes(&need(&shape)) + kv_held;
        check(&self.container, &self.options, shape, loaded, need)
    }

    /// What of `need` this process holds already, besides contexts; mapped weights do not count,
    /// since the system reckons their pages as available.
    pub(super) fn loaded_bytes(&self, need: &MemoryNeed) -> u64 {
        let read = match self.options.load.mmap {
            true => 0,
            false => need.decoder,
        };
        let plora = match self.holds_adapter() {
            true => need.plora,
            false => 0,
        };
        let embeddings = (self.embeddings.bytes() as u64).min(need.kept);
        read + need.repacked + need.vocabulary + plora + embeddings
    }
}
