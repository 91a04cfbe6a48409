//! The sequences of a KV cache: cut, share, save and restore them.
#![allow(unsafe_code)]

use llama_cpp_sys_2 as sys;

use super::{Context, LlamaError, log};

impl Context {
    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is valid, and its memory lives as long.
        unsafe { sys::llama_get_memory(self.ptr.as_ptr()) }
    }

    /// Drops everything of sequence `seq` from `position` on, so that it can go on differently
    /// there. Cells that other sequences share remain theirs.
    pub fn truncate(&mut self, seq: usize, position: usize) {
        // SAFETY: the memory is valid; -1 means "to the end".
        unsafe { sys::llama_memory_seq_rm(self.memory(), seq as i32, position as i32, -1) };
    }

    /// Lets sequence `to` hold the first `n` positions of `from` as well. Nothing is copied: the
    /// cells belong to both.
    pub fn share(&mut self, from: usize, to: usize, n: usize) {
        // SAFETY: the memory is valid.
        unsafe { sys::llama_memory_seq_cp(self.memory(), from as i32, to as i32, 0, n as i32) };
    }

    /// Keys and values of sequence `seq`, as llama.cpp writes them.
    pub fn save(&mut self, seq: usize) -> Vec<u8> {
        let ctx = self.ptr.as_ptr();
        // SAFETY: the context is valid.
        let n_bytes = unsafe { sys::llama_state_seq_get_size(ctx, seq as i32) };
        let mut bytes = vec![0; n_bytes];
        // SAFETY: `bytes` has the length that is told.
        let n = unsafe {
            sys::llama_state_seq_get_data(ctx, bytes.as_mut_ptr(), bytes.len(), seq as i32)
        };
        bytes.truncate(n);
        bytes
    }

    /// Takes over what [`Self::save`] gave as sequence `seq`, replacing what that held.
    /// `n_positions` is what the caller knows to be in there.
    ///
    /// # Errors
    /// If llama.cpp refuses, or does less than it says: the sequence is empty then.
    pub fn restore(
        &mut self,
        seq: usize,
        bytes: &[u8],
        n_positions: usize,
    ) -> Result<(), LlamaError> {
        log::clear();
        self.truncate(seq, 0);
        let ctx = self.ptr.as_ptr();
        // SAFETY: `bytes` has the length that is told; llama.cpp checks its content against that.
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
            reason: log::last_error(),
        })
    }
}
