//! Our matrix kernels inside llama.cpp: a ggml device that is the CPU, except for matrix products and attention.
//!
//! llama.cpp asks every registered device of type ACCEL, before the CPU, which operations of a graph it supports. Ours
//! supports everything that the CPU does, so a graph is not split between devices. Before a graph is computed, the
//! products and the fused attention for which our kernels are faster are replaced with ggml's custom nodes; then ggml's
//! CPU backend computes the graph:
//!
//! ```text
//! graph ─▶ MUL_MAT of a supported type        ──▶ CUSTOM: our kernel ─▶ ggml's CPU backend, its threads
//!          FLASH_ATTN_EXT of a supported form ──▶ CUSTOM: our kernel
//!          everything else                    ──▶ unchanged
//! ```
//!
//! So the threads that compute the other nodes compute these as well: none sleeps, none competes with other spinning
//! threads, and a custom node has no more overhead than any node. Weights are read in place, in the mapped file. Nodes
//! for which our kernels are not faster (other types) are unchanged. On CPUs for which we have no faster kernel,
//! the device is not registered.
#![allow(unsafe_code)]

mod abi;
mod attention;
mod custom_ops;
mod device;
mod plan;
mod products;
mod scratch;
#[cfg(test)]
mod tests;

use std::{cell::Cell, sync::OnceLock};

use xc2_kernels::{
    Cpu,
    float::{Float16Slice, FloatKernel},
    matmul::MatmulKernels,
    quantized::QuantizedKernel,
};

/// The kernels that compute the decoder's matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MatmulBackend {
    /// Our kernels, where they are faster.
    #[default]
    Xc2,
    /// llama.cpp's own.
    Ggml,
}

impl MatmulBackend {
    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xc2 => "xc2",
            Self::Ggml => "ggml",
        }
    }
}

thread_local! {
    /// The backend for contexts that this thread creates.
    static SELECTED: Cell<MatmulBackend> = const { Cell::new(MatmulBackend::Xc2) };
}

/// Creates a context that uses this backend.
pub(super) fn with_backend<T>(backend: MatmulBackend, create: impl FnOnce() -> T) -> T {
    SELECTED.set(backend);
    create()
}

/// Registers the device once. Returns its kernel, or why there is none.
pub(super) fn register() -> Result<&'static QuantizedKernel, &'static str> {
    static DONE: OnceLock<Result<&'static QuantizedKernel, String>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let kernel = QuantizedKernel::for_cpu(Cpu::chosen());
        if kernel.cpu == Cpu::Scalar {
            return Err("ours need AVX2 or AArch64's dot product instructions".to_owned());
        }
        abi::check()
            .map_err(|why| format!("the linked llama.cpp is not the pinned version: {why}"))?;
        device::register(MatmulKernels { quantized: kernel });
        Ok(kernel)
    });
    done.as_ref().copied().map_err(String::as_str)
}

/// Whether weights in BF16 are multiplied in bf16 instead of f32.
pub(super) fn multiplies_bf16() -> bool {
    FloatKernel::for_cpu(Cpu::chosen(), &Float16Slice::Bf16(&[])).is_bf16()
}
