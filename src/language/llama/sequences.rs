//! Truncating, sharing, saving and restoring the sequences of a KV cache.
#![allow(unsafe_code)]

use llama_cpp_sys_2 as sys;

use super::{Context, LlamaError, log};

impl Context {
    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is valid, and its memory has the same lifetime.
        unsafe { sys::llama_get_memory(self.ptr.as_ptr()) }
    }

    /// Removes the positions of sequence `seq` from `position` on. Cells that it shares remain in the other sequences.
    pub fn truncate(&mut self, seq: usize, position: usize) {
        // SAFETY: the memory is valid; -1 means "to the end".
        unsafe { sys::llama_memory_seq_rm(self.memory(), seq as i32, position as i32, -1) };
    }

    /// Adds the first `n` positions of sequence `from` to sequence `to`. Nothing is copied: the sequences share the
    /// cells.
    pub fn share(&mut self, from: usize, to: usize, n: usize) {
        // SAFETY: the memory is valid.
        unsafe { sys::llama_memory_seq_cp(self.memory(), from as i32, to as i32, 0, n as i32) };
    }

    /// The keys and values of sequence `seq`, in llama.cpp's format.
    pub fn save(&mut self, seq: usize) -> Vec<u8> {
        let ctx = self.ptr.as_ptr();
        // SAFETY: the context is valid.
        let n_bytes = unsafe { sys::llama_state_seq_get_size(ctx, seq as i32) };
        let mut bytes = vec![0; n_bytes];
        // SAFETY: `bytes` has the length that is passed.
        let n = unsafe {
            sys::llama_state_seq_get_data(ctx, bytes.as_mut_ptr(), bytes.len(), seq as i32)
        };
        bytes.truncate(n);
        bytes
    }

    /// Replaces sequence `seq` with the bytes that [`Self::save`] returned, which must hold `n_positions` positions.
    ///
    /// # Errors
    /// If llama.cpp rejects the bytes, or restores another number of positions; the sequence is empty then.
    pub fn restore(
        &mut self,
        seq: usize,
        bytes: &[u8],
        n_positions: usize,
    ) -> Result<(), LlamaError> {
        log::clear();
        self.truncate(seq, 0);
        let ctx = self.ptr.as_ptr();
        // SAFETY: `bytes` has the length that is passed; llama.cpp checks that it reads no further.
        let n =
            unsafe { sys::llama_state_seq_set_data(ctx, bytes.as_ptr(), bytes.len(), seq as i32) };
        // SAFETY: the memory is valid.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), seq as i32) };
        if n == bytes.len() && last + 1 == n_positions as i32 {
            return Ok(());
        }
        self.truncate(seq, 0);
        Err(LlamaError::Restore {
            n_positions,
            n_bytes: bytes.len(),
            reason: log::take_error(),
        })
    }
}
