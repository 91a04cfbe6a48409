//! Everything that touches llama.cpp: one file for each of its concepts.
//!
//! `llama-cpp-2` serves where it reaches (backend, sampling). It has no way to load a model or an
//! adapter from the middle of a file, nor a batch that holds embeddings, and its types cannot be
//! made from raw handles; those three come from `llama-cpp-sys-2` directly. Handles are owned and
//! dropped here, null pointers and codes become errors here, and no llama.cpp type is visible
//! outside this folder.

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
mod texts;
mod threads;
mod vocab;

use std::sync::OnceLock;

pub use accel::MatmulBackend;
pub use adapter::{Adapter, LazyAdapter};
pub use batch::{Input, Outputs, Positions};
pub use context::{Context, ContextOptions, KvType};
pub use grammar::{Constraint, check_grammar, json_schema_to_gbnf};
use llama_cpp_2::llama_backend::LlamaBackend;
pub use model::{LoadOptions, Model};
pub use process::{end_process, return_freed_memory};
pub use sampler::{Sampler, SamplerOptions, argmax, masked};
pub use text_stream::TextStream;
pub use vocab::{NUL_STAND_IN, SpecialText, Tokenizer};

/// What llama.cpp refused, with its own last words where it had any.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LlamaError {
    /// A file cannot be opened.
    #[error("cannot read `{path}`")]
    Io {
        path: String,
        source: std::io::Error,
    },
    /// The model was not loaded.
    #[error("llama.cpp cannot load the decoder: {reason}")]
    Model { reason: String },
    /// The adapter was not loaded.
    #[error("llama.cpp cannot load the Partial-LoRA adapter: {reason}")]
    Adapter { reason: String },
    /// No context could be made, usually for want of memory.
    #[error("llama.cpp cannot create a context of {n_ctx} tokens: {reason}")]
    Context { n_ctx: usize, reason: String },
    /// The adapter could not be switched.
    #[error("llama.cpp cannot switch the adapter (code {code}): {reason}")]
    Switch { code: i32, reason: String },
    /// A grammar was not taken.
    #[error("llama.cpp refuses the grammar: {reason}")]
    Grammar { reason: String },
    /// A state was not taken over.
    #[error(
        "llama.cpp cannot restore a sequence of {n_positions} positions from {n_bytes} bytes: \
         {reason}"
    )]
    Restore {
        n_positions: usize,
        n_bytes: usize,
        reason: String,
    },
    /// A batch was not computed.
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

/// The llama.cpp that this is built with: states of other versions are not read.
pub const VERSION: &str = "llama-cpp-sys-2 0.1.161";

/// Initialises llama.cpp for the process. Whatever needs that sees to it itself; this is for who has
/// something else to do meanwhile.
pub fn init() {
    backend();
}

/// Initialises llama.cpp once for the process, unless somebody else in it did.
fn backend() {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    BACKEND.get_or_init(|| {
        log::install();
        let backend = LlamaBackend::init().ok(); // the only error: it is initialised already
        if let Err(why) = accel::register() {
            tracing::info!("llama.cpp multiplies with its own kernels: {why}");
        }
        backend
    });
}

/// Who multiplies matrices in the decoder where our kernels are good at it, if that is asked for.
pub fn available_backend(selected: MatmulBackend) -> MatmulBackend {
    backend();
    match accel::register() {
        Ok(_) => selected,
        Err(_) => MatmulBackend::Ggml,
    }
}

/// What multiplies matrices in the decoder, for people: our kernels, or llama.cpp's and why.
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

/// The CPU features that llama.cpp was compiled for and found, as it reports them.
pub fn system_info() -> String {
    backend();
    model::system_info()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_one_that_is_pinned() {
        let (name, version) = super::VERSION.split_once(' ').unwrap();
        let pinned = format!("{name} = {{ version = \"={version}\"");
        assert!(
            include_str!("../../../Cargo.toml").contains(&pinned),
            "{pinned}"
        );
    }
}
