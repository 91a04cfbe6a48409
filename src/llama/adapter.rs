//! The Partial-LoRA weights, as a llama.cpp adapter.
#![allow(unsafe_code)]

use std::{
    path::Path,
    ptr::NonNull,
    sync::{Arc, PoisonError},
};

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Model, log, model::CFile};

/// An adapter of a model. llama.cpp applies it to all tokens of a batch or to none; see
/// [`crate::decoder`] for how that becomes a mask over tokens.
#[derive(Debug)]
pub struct Adapter {
    ptr: NonNull<sys::llama_adapter_lora>,
    model: Arc<Model>,
}

// SAFETY: nothing of an adapter belongs to the thread that loaded it.
unsafe impl Send for Adapter {}
// SAFETY: a loaded adapter is only read.
unsafe impl Sync for Adapter {}

impl Adapter {
    /// Loads the adapter GGUF that begins at `offset` of the file. Its weights are copied.
    ///
    /// # Errors
    /// If llama.cpp refuses it, for example because it does not fit the model.
    pub fn load(model: &Arc<Model>, path: &Path, offset: usize) -> Result<Self, LlamaError> {
        log::clear();
        let file = CFile::open_at(path, offset)?;
        let _list = model
            .adapters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the model is loaded, its list of adapters is locked, and the stream is open at the begin of a GGUF.
        let ptr =
            unsafe { sys::llama_adapter_lora_init_from_file_ptr(model.as_ptr(), file.0.as_ptr()) };
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Self {
                ptr,
                model: Arc::clone(model),
            }),
            None => Err(LlamaError::Adapter {
                reason: log::last_error(),
            }),
        }
    }

    /// Whether it was loaded for `model`.
    pub(super) fn belongs_to(&self, model: &Arc<Model>) -> bool {
        Arc::ptr_eq(&self.model, model)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_adapter_lora {
        self.ptr.as_ptr()
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _list = self
            .model
            .adapters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handle is ours alone: contexts that use it hold an `Arc` of this. The model,
        // which lists the adapter, still lives and is locked.
        unsafe { sys::llama_adapter_lora_free(self.as_ptr()) }
    }
}
