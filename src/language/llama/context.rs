//! A context: the KV cache of several sequences, and the computation of batches.
#![allow(unsafe_code)]

use std::{ptr::NonNull, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    Adapter, Input, LazyAdapter, LlamaError, MatmulBackend, Model, Outputs, Positions, accel,
    batch::Batch, log,
};

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
    /// Bytes of `n` elements.
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
    /// Positions in the KV cache, all sequences together; those that sequences share count once.
    pub n_ctx: usize,
    /// Number of sequences.
    pub n_seq: usize,
    /// Maximum number of tokens of one [`Context::decode`].
    pub n_batch: usize,
    /// Maximum number of logit rows of one batch; their buffer is allocated in advance.
    pub n_outputs: usize,
    /// Compute threads.
    pub n_threads: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Fused attention. Without it the arithmetic is the plainest, for comparison with the reference.
    pub flash_attn: bool,
    /// The kernels that compute matrix products.
    pub matmul_backend: MatmulBackend,
    /// Base of the rotary embedding; zero for the model's own.
    pub rope_freq_base: f32,
}

/// A llama.cpp context.
#[derive(Debug)]
pub struct Context {
    pub(super) ptr: NonNull<sys::llama_context>,
    model: Arc<Model>,
    adapter: Arc<LazyAdapter>,
    /// The adapter after its first use: it must live as long as this.
    loaded_adapter: Option<Arc<Adapter>>,
    n_vocab: usize,
    n_batch: usize,
    /// Number of tokens of the last batch.
    n_last: usize,
    adapter_on: bool,
    n_switches: usize,
}

// SAFETY: a context may be used from any thread, by one at a time, which `&mut self` guarantees.
unsafe impl Send for Context {}

impl Context {
    /// Allocates the KV cache and the compute buffers. `adapter` is off at first.
    ///
    /// # Errors
    /// If llama.cpp fails, usually because there is too little memory.
    ///
    /// # Panics
    /// If the adapter belongs to another model.
    pub fn new(
        model: &Arc<Model>,
        adapter: Arc<LazyAdapter>,
        options: ContextOptions,
    ) -> Result<Self, LlamaError> {
        assert!(
            adapter.belongs_to(model),
            "the adapter belongs to this model"
        );
        log::clear();
        // SAFETY: `params` is a plain structure of default values; its callbacks stay null.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = options.n_ctx as u32;
        params.n_batch = options.n_batch as u32;
        params.n_ubatch = options.n_batch as u32;
        params.n_outputs_max = options.n_outputs as u32;
        params.n_seq_max = options.n_seq as u32;
        params.kv_unified = true; // so that sequences share the cells of a common prefix
        params.n_threads = options.n_threads as i32;
        params.n_threads_batch = options.n_threads as i32;
        params.rope_freq_base = options.rope_freq_base;
        params.type_k = options.kv_type.id();
        params.type_v = options.kv_type.id();
        params.flash_attn_type = if options.flash_attn {
            sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        params.no_perf = true;
        let adapters_lock = model.adapters.read();
        // SAFETY: the model outlives the context, which holds an `Arc` of it, and its list of adapters is locked.
        let ptr = accel::with_backend(options.matmul_backend, || unsafe {
            sys::llama_init_from_model(model.as_ptr(), params)
        });
        drop(adapters_lock);
        let Some(ptr) = NonNull::new(ptr) else {
            return Err(LlamaError::Context {
                n_ctx: options.n_ctx,
                reason: log::take_error(),
            });
        };
        // SAFETY: the model is loaded; its vocabulary lives as long.
        let n_vocab =
            unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model.as_ptr())) };
        Ok(Self {
            ptr,
            model: Arc::clone(model),
            adapter,
            loaded_adapter: None,
            n_vocab: n_vocab as usize,
            n_batch: options.n_batch,
            n_last: 0,
            adapter_on: false,
            n_switches: 0,
        })
    }

    /// Maximum number of tokens of one [`Self::decode`].
    pub fn n_batch(&self) -> usize {
        self.n_batch
    }

    /// How often the adapter was switched; each time llama.cpp reserves its graphs again.
    pub fn n_switches(&self) -> usize {
        self.n_switches
    }

    /// Switches the adapter on or off for all further batches; it is loaded on first use.
    ///
    /// # Errors
    /// If it cannot be loaded, or llama.cpp fails.
    pub fn switch_adapter(&mut self, on: bool) -> Result<(), LlamaError> {
        if on == self.adapter_on {
            return Ok(());
        }
        let adapter = self.adapter.get()?;
        log::clear();
        let mut adapters = [adapter.as_ptr()];
        let mut scales = [1.0f32];
        // SAFETY: both arrays have one element and are copied; the adapter belongs to this model, and `self` keeps it
        // alive from here on.
        let code = unsafe {
            sys::llama_set_adapters_lora(
                self.ptr.as_ptr(),
                adapters.as_mut_ptr(),
                usize::from(on),
                scales.as_mut_ptr(),
            )
        };
        self.loaded_adapter = Some(adapter);
        if code != 0 {
            return Err(LlamaError::Switch {
                code,
                reason: log::take_error(),
            });
        }
        self.adapter_on = on;
        self.n_switches += 1;
        Ok(())
    }

    /// Computes a batch and appends it to the KV cache.
    ///
    /// # Errors
    /// If llama.cpp fails, for example because the cache is full.
    ///
    /// # Panics
    /// If the batch is empty or longer than `n_batch`, embeddings are not whole rows, or the numbers of positions and
    /// tokens differ.
    pub fn decode(
        &mut self,
        input: Input<'_>,
        positions: Positions<'_>,
        outputs: Outputs,
    ) -> Result<(), LlamaError> {
        let mut batch = Batch::new(input, positions, outputs, self.model.n_embd());
        let n = batch.len();
        assert!(
            n > 0 && n <= self.n_batch,
            "expected 1 to {} tokens in a batch, found {n}",
            self.n_batch
        );
        log::clear();
        let adapters_lock = self.model.adapters.read();
        // SAFETY: the batch outlives the call, which only reads it, and the model's list of adapters is locked.
        let code = unsafe { sys::llama_decode(self.ptr.as_ptr(), batch.as_raw()) };
        drop(adapters_lock);
        if code == 0 {
            self.n_last = n;
            return Ok(());
        }
        Err(LlamaError::Decode {
            n_tokens: n,
            position: positions.first_position(),
            code,
            reason: log::take_error(),
        })
    }

    /// The logits of token `i` of the last batch, `[n_vocab]`.
    ///
    /// # Panics
    /// If they were not requested.
    pub fn logits(&mut self, i: usize) -> &[f32] {
        // SAFETY: llama.cpp checks the index and returns null if there are no such logits. The row is valid until the
        // next `decode`, which the borrow of `self` prevents.
        unsafe {
            let row = sys::llama_get_logits_ith(self.ptr.as_ptr(), i as i32);
            assert!(!row.is_null(), "the logits of token {i} were requested");
            std::slice::from_raw_parts(row, self.n_vocab)
        }
    }

    /// The logits of the last token of the last batch, `[n_vocab]`.
    ///
    /// # Panics
    /// If they were not requested.
    pub fn last_logits(&mut self) -> &[f32] {
        self.logits(self.n_last - 1)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing else uses the handle, and the model and the adapter are alive.
        unsafe { sys::llama_free(self.ptr.as_ptr()) }
    }
}
