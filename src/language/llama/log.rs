//! llama.cpp's log: passed on to `tracing`, and its last error kept for our messages.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_void},
    sync::Mutex,
};

use llama_cpp_sys_2 as sys;

static LAST_ERROR: Mutex<Option<String>> = Mutex::new(None);

/// Sends llama.cpp's messages here instead of to stderr.
pub(super) fn install() {
    // SAFETY: the callback is a plain function that lives as long as the process, and it keeps no
    // pointer beyond the call.
    unsafe { sys::llama_log_set(Some(on_message), std::ptr::null_mut()) }
}

/// Forgets earlier errors; called before an operation whose error is wanted.
pub(super) fn clear() {
    *LAST_ERROR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = None;
}

/// The last error that llama.cpp logged since [`clear`].
pub(super) fn last_error() -> String {
    let last = LAST_ERROR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    last.unwrap_or_else(|| "it gave no reason".to_owned())
}

unsafe extern "C" fn on_message(
    level: sys::ggml_log_level,
    text: *const c_char,
    _user_data: *mut c_void,
) {
    // SAFETY: llama.cpp passes a string that ends in zero and outlives the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim_end();
    if text.is_empty() {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            tracing::error!(target: "llama.cpp", "{text}");
            let mut last = LAST_ERROR
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // The first error names the cause; what follows is the failure travelling upwards.
            last.get_or_insert_with(|| text.to_owned());
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{text}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::info!(target: "llama.cpp", "{text}"),
        _ => tracing::debug!(target: "llama.cpp", "{text}"),
    }
}
