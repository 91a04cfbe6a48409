//! The decoder's weights.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::NonNull,
    sync::{Arc, RwLock},
};

use llama_cpp_sys_2 as sys;

use super::{LlamaError, backend, log};

/// How a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Map the weights instead of reading them.
    pub mmap: bool,
    /// Lock the weights in memory, so that they are not swapped out.
    pub mlock: bool,
    /// Let llama.cpp repack weights into layouts that some of its kernels prefer. That takes a second copy of the
    /// repacked weights, which our kernels do not use, and makes the prefill slower
    /// (docs/decisions/005-repack-off.md).
    pub repack: bool,
    /// Load the vocabulary only.
    pub vocab_only: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            mmap: true,
            mlock: false,
            repack: false,
            vocab_only: false,
        }
    }
}

/// A loaded decoder. It is read-only, so contexts on several threads can share it.
#[derive(Debug)]
pub struct Model {
    ptr: NonNull<sys::llama_model>,
    /// Locks the model's list of adapters, the only mutable part of a loaded model. Contexts read it when they reserve
    /// their graphs.
    pub(super) adapters: RwLock<()>,
}

// SAFETY: a model has no state of the thread that loaded it.
unsafe impl Send for Model {}
// SAFETY: contexts only read a loaded model, and its list of adapters is changed under the lock above only.
unsafe impl Sync for Model {}

impl Model {
    /// Loads the GGUF that starts at `offset` of the file.
    ///
    /// # Errors
    /// If llama.cpp rejects it.
    pub fn load(path: &Path, offset: usize, options: LoadOptions) -> Result<Arc<Self>, LlamaError> {
        backend();
        log::clear();
        let file = CFile::open_at(path, offset)?;
        // SAFETY: `params` is a plain structure of default values; its callbacks and lists stay null.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = 0;
        params.use_extra_bufts = options.repack;
        params.vocab_only = options.vocab_only;
        params.load_mode = match (options.mmap, options.mlock) {
            (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (false, false) => sys::LLAMA_LOAD_MODE_NONE,
        };
        // SAFETY: `file` is an open stream at the start of a GGUF. llama.cpp reads it during the call and keeps at
        // most a mapping of it, which outlives the stream.
        let ptr = unsafe { sys::llama_model_load_from_file_ptr(file.0.as_ptr(), params) };
        let ptr = NonNull::new(ptr).ok_or_else(|| LlamaError::Model {
            reason: log::take_error(),
        })?;
        Ok(Arc::new(Self {
            ptr,
            adapters: RwLock::new(()),
        }))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.ptr.as_ptr()
    }

    /// Width of the embeddings.
    pub fn n_embd(&self) -> usize {
        // SAFETY: the handle is valid as long as `self`.
        unsafe { sys::llama_model_n_embd(self.as_ptr()) as usize }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: nothing else uses the handle: contexts and adapters hold an `Arc` of this.
        unsafe { sys::llama_model_free(self.as_ptr()) }
    }
}

/// A C stream, closed when dropped.
pub(super) struct CFile(pub(super) NonNull<c_void>);

impl CFile {
    /// Opens `path` for reading, positioned at `offset`.
    pub(super) fn open_at(path: &Path, offset: usize) -> Result<Self, LlamaError> {
        let io = |source| LlamaError::Io {
            path: path.display().to_string(),
            source,
        };
        let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|e| io(e.into()))?;
        // SAFETY: both strings are NUL-terminated.
        let stream = unsafe { libc::fopen(c_path.as_ptr(), c"rb".as_ptr()) };
        let Some(stream) = NonNull::new(stream.cast::<c_void>()) else {
            return Err(io(std::io::Error::last_os_error()));
        };
        let file = Self(stream);
        // SAFETY: the stream is open.
        let code = unsafe {
            libc::fseeko(
                stream.as_ptr().cast(),
                offset as libc::off_t,
                libc::SEEK_SET,
            )
        };
        if code == 0 {
            Ok(file)
        } else {
            Err(io(std::io::Error::last_os_error()))
        }
    }
}

impl Drop for CFile {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and nothing else closes it.
        unsafe { libc::fclose(self.0.as_ptr().cast()) };
    }
}

/// llama.cpp's report of the CPU features in use.
pub(super) fn system_info() -> String {
    // SAFETY: it returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(sys::llama_print_system_info()) }
        .to_string_lossy()
        .into_owned()
}
