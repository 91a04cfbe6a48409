//! The capacity that a request needs of a context, and that a context has.

use super::{beams, memory_check::MemoryRequest, pictures::EncoderInput, prepared::Prepared};

/// What a request needs of a context.
#[derive(Clone, Copy)]
pub(super) struct ContextDemand {
    /// Positions of prompt and answer.
    pub n_needed: usize,
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// Beams of the search; 1 for none.
    pub n_beams: usize,
    /// Whether pictures are encoded.
    pub encodes: bool,
    /// Whether Partial-LoRA is needed.
    pub adapts: bool,
}

impl ContextDemand {
    /// The demand of a request whose first `n_cached` positions need not be computed.
    pub fn of(
        prepared: &Prepared<'_>,
        n_needed: usize,
        inputs: &[EncoderInput],
        n_cached: usize,
    ) -> Self {
        Self {
            n_needed,
            n_prompt: prepared.prompt.len(),
            n_beams: prepared.request.beams,
            encodes: inputs.iter().any(|i| matches!(i, EncoderInput::Encode(_))),
            adapts: prepared.prompt.plora_from(n_cached),
        }
    }

    /// The memory for a context of `n_ctx` positions that replaces one of `n_freed_cells` cells.
    pub fn memory_request(self, n_ctx: usize, n_freed_cells: usize) -> MemoryRequest {
        MemoryRequest {
            n_ctx,
            n_ctx_min: self.n_prompt + 1,
            n_seq: 1,
            n_beams: self.n_beams,
            n_answer: self.n_needed - self.n_prompt,
            encodes: self.encodes,
            adapts: self.adapts,
            n_freed_cells,
        }
    }

    /// The capacity of a context for this demand with `n_ctx` positions.
    pub fn capacity(self, n_ctx: usize) -> ContextCapacity {
        ContextCapacity {
            n_ctx,
            n_cells: self.memory_request(n_ctx, 0).n_cells(),
            n_seq: beams::n_seq(self.n_beams),
        }
    }
}

/// What a context offers.
#[derive(Clone, Copy, Default)]
pub(super) struct ContextCapacity {
    /// The maximum length of a sequence, in positions.
    pub n_ctx: usize,
    /// Positions of all sequences together; shared ones count once.
    pub n_cells: usize,
    pub n_seq: usize,
}

impl ContextCapacity {
    /// Whether a request fits.
    pub fn suffices(self, demand: ContextDemand) -> bool {
        let needed = demand.capacity(demand.n_needed);
        self.n_ctx >= needed.n_ctx && self.n_cells >= needed.n_cells && self.n_seq >= needed.n_seq
    }
}
