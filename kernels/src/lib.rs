//! The arithmetic of a transformer on a CPU: matrix products, attention, norms, activations.
//!
//! It knows caches and instructions, and nothing of models and files. One folder for each operation;
//! in a folder, `mod.rs` holds the operation and its dispatch, `scalar.rs` the reference, and one
//! file for each instruction set the same under the same name.
//!
//! | | operands | where |
//! |---|---|---|
//! | [`int8`] | Q8_0 weights, activations quantized to int8 in blocks of 32 | the default on small machines |
//! | [`bf16`] | BF16 weights and activations, sums in f32 | CPUs with BF16 dot products |
//! | [`float`] | f32, weights of any type | everything else |
//! | [`quantized`] | llama.cpp's Q4_0, Q8_0, Q4_K, Q5_K, Q6_K as they lie in a file, activations in int8 | the decoder |
//! | [`float16`] | llama.cpp's F16 and BF16 as they lie in a file, activations in f32 or BF16 | the decoder |
//!
//! [`Cpu`] says which instructions there are; `XC2_SIMD` narrows the choice.
//!
//! All operations run on rayon's current pool. Work is cut into pieces of fixed size, and every
//! number is summed in one fixed order, so the result does not depend on the number of threads.

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod bf16;
mod cpu;
mod epilogue;
pub mod float;
pub mod float16;
pub mod int8;
mod layer_norm;
pub mod matmul;
mod pack;
mod packed;
mod partition;
pub mod peak;
mod quantize;
pub mod quantized;
mod shared_output;
#[doc(hidden)]
pub mod testing;
mod tile;

pub use cpu::{Cpu, available, check_environment};
pub use epilogue::{Epilogue, finish};
pub use layer_norm::LayerNorm;
pub use shared_output::SharedOutput;

/// Runs `f`, compiled for the widest vectors that this CPU has: the crate `pulp` compiles it once for
/// each instruction set and chooses at run time.
///
/// What `f` calls takes part only if it is inlined. No sums are reordered and nothing is fused, so
/// the result is the same with every set.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
