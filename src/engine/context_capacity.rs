//! What a request asks of a context, and what a context has.

use super::{beams, memory_check::Asked, pictures::Ready, prepared::Prepared};

/// What a request asks of a context.
#[derive(Clone, Copy)]
pub(super) struct ContextDemand {
    /// Positions of prompt and answer.
    pub n_needed: usize,
    /// Those of the prompt.
    pub n_prompt: usize,
    /// Answers that are followed side by side.
    pub n_beams: usize,
    /// Whether pictures are encoded.
    pub encodes: bool,
    /// Whether Partial-LoRA is needed.
    pub adapts: bool,
}

impl ContextDemand {
    /// Of a request whose first `n_hoped` positions need not be computed.
    pub fn of(prepared: &Prepared<'_>, n_needed: usize, ready: &[Ready], n_hoped: usize) -> Self {
        Self {
            n_needed,
            n_prompt: prepared.prompt.len(),
            n_beams: prepared.request.beams,
            encodes: ready.iter().any(|r| matches!(r, Ready::ToEncode(_))),
            adapts: prepared.prompt.plora_from(n_hoped),
        }
    }

    /// The memory of it, with `n_ctx` positions in place of a context of `n_held` cells.
    pub fn asked(self, n_ctx: usize, n_held: usize) -> Asked {
        Asked {
            n_ctx,
            n_ctx_least: self.n_prompt + 1,
            n_seq: 1,
            n_beams: self.n_beams,
            n_answer: self.n_needed - self.n_prompt,
            encodes: self.encodes,
            adapts: self.adapts,
            n_held,
        }
    }

    /// What it takes with `n_ctx` positions.
    pub fn room(self, n_ctx: usize) -> ContextCapacity {
        ContextCapacity {
            n_ctx,
            n_cells: self.asked(n_ctx, 0).n_cells(),
            n_seq: beams::n_seq(self.n_beams),
        }
    }
}

/// What a context has.
#[derive(Clone, Copy, Default)]
pub(super) struct ContextCapacity {
    /// The most positions of a sequence.
    pub n_ctx: usize,
    /// Positions of all sequences, what they share counted once.
    pub n_cells: usize,
    pub n_seq: usize,
}

impl ContextCapacity {
    /// Whether a request has room in it.
    pub fn suffices(self, demand: ContextDemand) -> bool {
        let needed = demand.room(demand.n_needed);
        self.n_ctx >= needed.n_ctx && self.n_cells >= needed.n_cells && self.n_seq >= needed.n_seq
    }
}
