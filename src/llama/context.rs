//! A context: the KV cache of one sequence, and the computation of batches.
#![allow(unsafe_code)]

use std::{ptr::NonNull, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{Adapter, LlamaError, Model, log};

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum KvType {
    F32,
    #[default]
    F16,
    Q8_0,
}

impl KvType {
    /// Bytes that `n` elements take.
    pub fn bytes(self, n: usize) -> usize {
        match self {
            Self::F32 => 4 * n,
            Self::F16 => 2 * n,
            Self::Q8_0 => n / 32 * 34,
        }
    }

    fn id(self) -> sys::ggml_type {
        match self {
            Self::F32 => sys::GGML_TYPE_F32,
            Self::F16 => sys::GGML_TYPE_F16,
            Self::Q8_0 => sys::GGML_TYPE_Q8_0,
        }
    }
}

/// Sizes and threads of a context.
#[derive(Clone, Copy, Debug)]
pub struct ContextOptions {
    /// Positions in the KV cache.
    pub n_ctx: usize,
    /// The most tokens that one [`Context::decode`] takes.
    pub n_batch: usize,
    /// The most logit rows that one batch gives; the buffer for them is allocated in advance.
    pub n_outputs: usize,
    /// Threads that compute.
    pub n_threads: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Fused attention. Off gives the plainest arithmetic, for comparison with the reference.
    pub flash_attn: bool,
}

/// What a batch holds: never both, since the adapter is on for all of a batch or for none of it.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Token ids.
    Tokens(&'a [i32]),
    /// Rows of embeddings, `[n, n_embd]`.
    Embeddings(&'a [f32]),
}

/// For which tokens of a batch logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outputs {
    None,
    Last,
    All,
}

/// A llama.cpp context with one sequence.
#[derive(Debug)]
pub struct Context {
    ptr: NonNull<sys::llama_context>,
    model: Arc<Model>,
    adapter: Option<Arc<Adapter>>,
    n_vocab: usize,
    n_batch: usize,
    /// Tokens in the last batch.
    n_last: usize,
    adapter_on: bool,
    n_switches: usize,
}

// SAFETY: a context may be used from any thread, by one at a time, which `&mut self` ensures.
unsafe impl Send for Context {}

impl Context {
    /// Allocates the KV cache and the buffers for computation. `adapter` is off at first.
    ///
    /// # Errors
    /// If llama.cpp cannot, usually for want of memory.
    ///
    /// # Panics
    /// If the adapter belongs to another model.
    pub fn new(
        model: &Arc<Model>,
        adapter: Option<Arc<Adapter>>,
        options: ContextOptions,
    ) -> Result<Self, LlamaError> {
        if let Some(adapter) = &adapter {
            assert!(
                adapter.belongs_to(model),
                "the adapter was loaded for this model"
            );
        }
        log::clear();
        // SAFETY: `params` is a plain structure of defaults; its callbacks stay null.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = options.n_ctx as u32;
        params.n_batch = options.n_batch as u32;
        params.n_ubatch = options.n_batch as u32;
        params.n_outputs_max = options.n_outputs as u32;
        params.n_seq_max = 1;
        params.n_threads = options.n_threads as i32;
        params.n_threads_batch = options.n_threads as i32;
        params.type_k = options.kv_type.id();
        params.type_v = options.kv_type.id();
        params.flash_attn_type = if options.flash_attn {
            sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        params.no_perf = true;
        // SAFETY: the model outlives the context, which holds an `Arc` of it.
        let ptr = unsafe { sys::llama_init_from_model(model.as_ptr(), params) };
        let Some(ptr) = NonNull::new(ptr) else {
            return Err(LlamaError::Context {
                n_ctx: options.n_ctx,
                reason: log::last_error(),
            });
        };
        // SAFETY: the model is loaded; its vocabulary lives as long.
        let n_vocab =
            unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model.as_ptr())) };
        Ok(Self {
            ptr,
            model: Arc::clone(model),
            adapter,
            n_vocab: n_vocab as usize,
            n_batch: options.n_batch,
            n_last: 0,
            adapter_on: false,
            n_switches: 0,
        })
    }

    /// The most tokens that one [`Self::decode`] takes.
    pub fn n_batch(&self) -> usize {
        self.n_batch
    }

    /// How often the adapter was switched; each time llama.cpp reserves its graphs anew.
    pub fn n_switches(&self) -> usize {
        self.n_switches
    }

    /// Switches the adapter on or off for all batches that follow. Without an adapter nothing
    /// happens.
    ///
    /// # Errors
    /// If llama.cpp refuses.
    pub fn switch_adapter(&mut self, on: bool) -> Result<(), LlamaError> {
        let Some(adapter) = self.adapter.as_ref().filter(|_| on != self.adapter_on) else {
            return Ok(());
        };
        log::clear();
        let mut adapters = [adapter.as_ptr()];
        let mut scales = [1.0f32];
        // SAFETY: both arrays hold one element and are copied; the adapter is of this model and
        // lives as long as `self`.
        let code = unsafe {
            sys::llama_set_adapters_lora(
                self.ptr.as_ptr(),
                adapters.as_mut_ptr(),
                usize::from(on),
                scales.as_mut_ptr(),
            )
        };
        if code != 0 {
            return Err(LlamaError::Switch {
                code,
                reason: log::last_error(),
            });
        }
        self.adapter_on = on;
        self.n_switches += 1;
        Ok(())
    }

    /// Computes a batch whose first token stands at `position`, and appends it to the KV cache.
    ///
    /// # Errors
    /// If llama.cpp refuses, for example because the cache is full.
    ///
    /// # Panics
    /// If the batch is empty or longer than `n_batch`, or embeddings are no whole rows.
    pub fn decode(
        &mut self,
        input: Input<'_>,
        position: usize,
        outputs: Outputs,
    ) -> Result<(), LlamaError> {
        let n_embd = self.model.n_embd();
        let (n, token, embd) = match input {
            Input::Tokens(ids) => (ids.len(), ids.as_ptr(), std::ptr::null()),
            Input::Embeddings(rows) => {
                assert!(rows.len().is_multiple_of(n_embd), "whole rows");
                (rows.len() / n_embd, std::ptr::null(), rows.as_ptr())
            }
        };
        assert!(
            n > 0 && n <= self.n_batch,
            "1 to {} tokens in a batch, not {n}",
            self.n_batch
        );
        let mut positions: Vec<i32> = (position as i32..).take(n).collect();
        let mut wanted = vec![i8::from(outputs == Outputs::All); n];
        wanted[n - 1] = i8::from(outputs != Outputs::None);
        let batch = sys::llama_batch {
            n_tokens: n as i32,
            token: token.cast_mut(),
            embd: embd.cast_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: std::ptr::null_mut(), // sequence 0
            seq_id: std::ptr::null_mut(),
            logits: wanted.as_mut_ptr(),
        };
        log::clear();
        // SAFETY: every non-null array of the batch holds `n` elements (rows of `n_embd` floats
        // for `embd`) and outlives the call, which reads them only.
        let code = unsafe { sys::llama_decode(self.ptr.as_ptr(), batch) };
        if code == 0 {
            self.n_last = n;
            return Ok(());
        }
        Err(LlamaError::Decode {
            n_tokens: n,
            position,
            code,
            reason: log::last_error(),
        })
    }

    /// The logits of token `i` of the last batch, `[n_vocab]`.
    ///
    /// # Panics
    /// If they were not asked for.
    pub fn logits(&mut self, i: usize) -> &[f32] {
        // SAFETY: llama.cpp checks the index and returns null if there are no such logits. The
        // row stays in place until the next `decode`, which the borrow of `self` prevents.
        unsafe {
            let row = sys::llama_get_logits_ith(self.ptr.as_ptr(), i as i32);
            assert!(!row.is_null(), "logits of token {i} were not asked for");
            std::slice::from_raw_parts(row, self.n_vocab)
        }
    }

    /// The logits of the last token of the last batch, `[n_vocab]`.
    ///
    /// # Panics
    /// If they were not asked for.
    pub fn last_logits(&mut self) -> &[f32] {
        self.logits(self.n_last - 1)
    }

    /// Drops everything from `position` on, so that the sequence can go on differently there.
    pub fn truncate(&mut self, position: usize) {
        // SAFETY: the context is valid; -1 means "to the end".
        unsafe {
            let memory = sys::llama_get_memory(self.ptr.as_ptr());
            sys::llama_memory_seq_rm(memory, 0, position as i32, -1);
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the handle is ours alone, and the model and the adapter still live.
        unsafe { sys::llama_free(self.ptr.as_ptr()) }
    }
}
