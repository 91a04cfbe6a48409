//! The interface to llama.cpp: one file for each of its concepts.
//!
//! `llama-cpp-2` is used for the backend and for sampling. It can neither load a model or an adapter from the middle of
//! a file nor build a batch of embeddings, and its types cannot be constructed from raw handles; these three use
//! `llama-cpp-sys-2` directly. This module owns and drops handles, turns null pointers and status codes into errors,
//! and exposes no llama.cpp type.

mod accel;
mod adapter;
mod batch;
mod context;
mod grammar;
mod log;
mod model;
mod process;
mod sampler;
mod sequences;
mod text_stream;
mod threads;
mod token_cache;
mod vocab;

use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;

pub use accel::MatmulBackend;
pub use adapter::{Adapter, LazyAdapter};
pub use batch::{Input, Outputs, Positions};
pub use context::{Context, ContextOptions, KvType};
pub use grammar::{Constraint, check_grammar, json_schema_to_gbnf};
pub use model::{LoadOptions, Model};
pub use process::{end_process, return_freed_memory};
pub use sampler::{Sampler, SamplerOptions, argmax, masked};
pub use text_stream::TextStream;
pub use vocab::{NUL_STAND_IN, SpecialText, Tokenizer};

/// An error of llama.cpp, with the reason from its log if there is one.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LlamaError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Io {
        path: String,
        source: std::io::Error,
    },
    /// The decoder cannot be loaded.
    #[error("llama.cpp cannot load the decoder: {reason}")]
    Model { reason: String },
    /// The adapter cannot be loaded.
    #[error("llama.cpp cannot load the Partial-LoRA adapter: {reason}")]
    Adapter { reason: String },
    /// The context cannot be created, usually because there is too little memory.
    #[error("llama.cpp cannot create a context of {n_ctx} tokens: {reason}")]
    Context { n_ctx: usize, reason: String },
    /// The adapter cannot be switched.
    #[error("llama.cpp cannot switch the adapter (code {code}): {reason}")]
    Switch { code: i32, reason: String },
    /// The grammar is invalid.
    #[error("llama.cpp refuses the grammar: {reason}")]
    Grammar { reason: String },
    /// A saved sequence cannot be restored.
    #[error(
        "llama.cpp cannot restore a sequence of {n_positions} positions from {n_bytes} bytes: \
         {reason}"
    )]
    Restore {
        n_positions: usize,
        n_bytes: usize,
        reason: String,
    },
    /// A batch cannot be computed.
    #[error(
        "llama.cpp cannot decode {n_tokens} tokens at position {position} (code {code}): {reason}"
    )]
    Decode {
        n_tokens: usize,
        position: usize,
        code: i32,
        reason: String,
    },
}

/// The linked version of llama.cpp. Saved states of other versions are not read.
pub const VERSION: &str = "llama-cpp-sys-2 0.1.161";

/// Initializes llama.cpp for the process. Calling it is optional: everything here that needs llama.cpp does. It allows
/// initialization in parallel with other work.
pub fn init() {
    backend();
}

/// Initializes llama.cpp once for the process, unless that has been done elsewhere.
fn backend() {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    BACKEND.get_or_init(|| {
        log::install();
        let backend = LlamaBackend::init().ok(); // the only error: it is initialized already
        if let Err(why) = accel::register() {
            tracing::info!("using llama.cpp's own matrix kernels: {why}");
        }
        backend
    });
}

/// The kernels that compute the decoder's matrix products if `selected`: ours only if this CPU has them.
pub fn available_backend(selected: MatmulBackend) -> MatmulBackend {
    backend();
    match accel::register() {
        Ok(_) => selected,
        Err(_) => MatmulBackend::Ggml,
    }
}

/// A description of the kernels that compute the decoder's matrix products: ours, or llama.cpp's with the reason.
pub fn kernels(selected: MatmulBackend) -> String {
    backend();
    if selected == MatmulBackend::Ggml {
        return "llama.cpp's kernels, as asked for".to_owned();
    }
    match accel::register() {
        Ok(kernel) => format!(
            "blocks of 4 to 8 bits by our {} kernels, F16 in f32, BF16 in {}",
            kernel.cpu.name(),
            if accel::multiplies_bf16() {
                "bf16"
            } else {
                "f32"
            }
        ),
        Err(why) => format!("llama.cpp's kernels: {why}"),
    }
}

/// The CPU features that llama.cpp uses, as it reports them.
pub fn system_info() -> String {
    backend();
    model::system_info()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_matches_the_pinned_dependency() {
        let (name, version) = super::VERSION.split_once(' ').unwrap();
        let pinned = format!("{name} = {{ version = \"={version}\"");
        assert!(
            include_str!("../../../Cargo.toml").contains(&pinned),
            "{pinned}"
        );
    }
}
