//! llama.cpp's log: forwarded to `tracing`, with its first error kept for our error messages.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_void},
    sync::Mutex,
};

use llama_cpp_sys_2 as sys;

static FIRST_ERROR: Mutex<Option<String>> = Mutex::new(None);

/// Sends llama.cpp's messages here instead of to stderr.
pub(super) fn install() {
    // SAFETY: the callback is a function, hence valid as long as the process, and keeps no pointer beyond the call.
    unsafe { sys::llama_log_set(Some(on_message), std::ptr::null_mut()) }
}

/// Clears the error; called before an operation that may log one.
pub(super) fn clear() {
    *FIRST_ERROR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = None;
}

/// Takes the first error that llama.cpp logged since [`clear`].
pub(super) fn take_error() -> String {
    let error = FIRST_ERROR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    error.unwrap_or_else(|| "no reason given".to_owned())
}

unsafe extern "C" fn on_message(
    level: sys::ggml_log_level,
    text: *const c_char,
    _user_data: *mut c_void,
) {
    // SAFETY: llama.cpp passes a NUL-terminated string that outlives the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim_end();
    if text.is_empty() {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            tracing::error!(target: "llama.cpp", "{text}");
            let mut first = FIRST_ERROR
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // The first error names the cause; later ones report its propagation.
            first.get_or_insert_with(|| text.to_owned());
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{text}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::info!(target: "llama.cpp", "{text}"),
        _ => tracing::debug!(target: "llama.cpp", "{text}"),
    }
}
