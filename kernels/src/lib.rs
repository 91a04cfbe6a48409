//! CPU kernels for transformers: matmul, attention, layer norm and activations.
//!
//! The crate deals with caches and instruction sets, not with models or files. An operation with
//! code for several instruction sets has a folder: the operation and its dispatch in `mod.rs` (and
//! `kernel.rs`), the reference implementation in `scalar.rs`, and one file per instruction set.
//! Other operations are single files, for example `layer_norm.rs`.
//!
//! | module | operands | used |
//! |---|---|---|
//! | [`quantized`] | Q4_0, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K weights in llama.cpp's layout, int8 activations | in tower and decoder |
//! | [`float`] | F16, BF16 or expanded weights, f32 or BF16 activations | in tower and decoder |
//! | [`matmul`] | one interface to both | tower and decoder |
//!
//! [`Cpu`] lists the instruction sets; `XC2_SIMD` selects a narrower one.
//!
//! All operations run on rayon's current pool, except where the caller brings its own threads.
//! Every sum has one fixed order, so the result does not depend on the number of threads.

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
mod cpu;
mod epilogue;
pub mod float;
mod layer_norm;
pub mod matmul;
mod partition;
pub mod peak;
mod quantize;
pub mod quantized;
mod shared_output;
#[doc(hidden)]
pub mod testing;
mod tile;

pub use cpu::{Cpu, available, check_environment};
pub use epilogue::Epilogue;
pub use layer_norm::LayerNorm;
pub use shared_output::SharedOutput;

/// Runs `f`, compiled for the widest vectors of this CPU. The crate `pulp` compiles `f` once per
/// instruction set and chooses at run time.
///
/// Only code that is inlined into `f` benefits. The compiler reorders no sums and fuses no
/// operations, so the result is the same with every instruction set.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
