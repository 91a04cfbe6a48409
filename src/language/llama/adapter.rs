//! The Partial-LoRA weights, as a llama.cpp adapter.
#![allow(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Model, log, model::CFile};

/// An adapter of a model. llama.cpp applies it to all tokens of a batch or to none; [`crate::language::decoder`] builds
/// a mask over tokens from that.
#[derive(Debug)]
pub struct Adapter {
    ptr: NonNull<sys::llama_adapter_lora>,
    model: Arc<Model>,
}

// SAFETY: an adapter has no state of the thread that loaded it.
unsafe impl Send for Adapter {}
// SAFETY: a loaded adapter is read-only.
unsafe impl Sync for Adapter {}

impl Adapter {
    /// Loads the adapter GGUF that starts at `offset` of the file. Its weights are copied.
    ///
    /// # Errors
    /// If llama.cpp rejects it, for example because it does not match the model.
    pub fn load(model: &Arc<Model>, path: &Path, offset: usize) -> Result<Self, LlamaError> {
        log::clear();
        let file = CFile::open_at(path, offset)?;
        let _list = model
            .adapters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the model is loaded, its list of adapters is locked, and the stream is open at the start of a GGUF.
        let ptr =
            unsafe { sys::llama_adapter_lora_init_from_file_ptr(model.as_ptr(), file.0.as_ptr()) };
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Self {
                ptr,
                model: Arc::clone(model),
            }),
            None => Err(LlamaError::Adapter {
                reason: log::take_error(),
            }),
        }
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
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: nothing else uses the handle: contexts that do hold an `Arc` of this. The model, which lists the
        // adapter, is alive, and its list is locked.
        unsafe { sys::llama_adapter_lora_free(self.as_ptr()) }
    }
}

/// An adapter that is loaded on first use, so a conversation without pictures never allocates its memory.
#[derive(Debug)]
pub struct LazyAdapter {
    model: Arc<Model>,
    path: PathBuf,
    offset: usize,
    loaded: Mutex<Option<Arc<Adapter>>>,
}

impl LazyAdapter {
    /// The adapter GGUF at `offset` of the file, for `model`.
    pub fn new(model: &Arc<Model>, path: &Path, offset: usize) -> Self {
        Self {
            model: Arc::clone(model),
            path: path.to_owned(),
            offset,
            loaded: Mutex::default(),
        }
    }

    /// The adapter, loaded if necessary.
    ///
    /// # Errors
    /// As [`Adapter::load`].
    pub fn get(&self) -> Result<Arc<Adapter>, LlamaError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(adapter) = &*loaded {
            return Ok(Arc::clone(adapter));
        }
        let adapter = Arc::new(Adapter::load(&self.model, &self.path, self.offset)?);
        *loaded = Some(Arc::clone(&adapter));
        Ok(adapter)
    }

    /// Whether it is in memory.
    pub fn is_loaded(&self) -> bool {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.is_some()
    }

    /// Whether it was created for `model`.
    pub(super) fn belongs_to(&self, model: &Arc<Model>) -> bool {
        Arc::ptr_eq(&self.model, model)
    }
}
