//! The Partial-LoRA weights, as a llama.cpp adapter.
#![allow(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Model, log, model::CFile};

/// An adapter of a model. llama.cpp applies it to all tokens of a batch or to none; see
/// [`crate::language::decoder`] for how that becomes a mask over tokens.
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
            .write()
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
        // SAFETY: the handle is ours alone: contexts that use it hold an `Arc` of this. The model,
        // which lists the adapter, still lives and is locked.
        unsafe { sys::llama_adapter_lora_free(self.as_ptr()) }
    }
}

/// An adapter that is loaded when it is first needed: a conversation without pictures never holds
/// its memory.
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

    /// The adapter.
    ///
    /// # Errors
    /// If it has to be loaded and cannot be: see [`Adapter::load`].
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

    /// Whether it was made for `model`.
    pub(super) fn belongs_to(&self, model: &Arc<Model>) -> bool {
        Arc::ptr_eq(&self.model, model)
    }
}
