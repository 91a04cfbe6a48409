//! Our matrix kernels inside llama.cpp: a ggml device that is the CPU, except for products.
//!
//! llama.cpp asks every registered device of type ACCEL, ahead of the CPU, which operations of a graph it
//! takes. Ours takes all that the CPU takes, so a graph stays in one piece and nothing is switched between
//! devices. When it is to be computed, products that our kernels are good at become custom nodes, which
//! ggml has for this purpose, and ggml's own CPU backend computes the graph:
//!
//! ```text
//! graph ─▶ MUL_MAT of a supported type ──▶ CUSTOM: our kernel     ─▶ ggml's CPU backend, its threads
//!          everything else             ──▶ as it is
//! ```
//!
//! So the threads of a product are those that compute the rest, and come to it from ggml's barrier: none
//! sleeps, none spins against another, and a product costs no more than any node. Weights are read where
//! they are, in the mapped file. Where no kernel of ours pays (other types) nodes stay as they are; on CPUs
//! without one that does, the device is not registered, and llama.cpp runs as always.
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

use std::cell::Cell;
use std::sync::OnceLock;

use xc2_kernels::Cpu;
use xc2_kernels::float16::{Float16Kernel, Float16Slice};
use xc2_kernels::matmul::MatmulKernels;
use xc2_kernels::quantized::QuantizedKernel;

/// Who multiplies matrices in the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MatmulBackend {
    /// Our kernels, where they are good at it.
    #[default]
    Xc2,
    /// llama.cpp's own.
    Ggml,
}

impl MatmulBackend {
    /// As options and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xc2 => "xc2",
            Self::Ggml => "ggml",
        }
    }
}

thread_local! {
    /// For contexts that this thread creates.
    static SELECTED: Cell<MatmulBackend> = const { Cell::new(MatmulBackend::Xc2) };
}

/// Creates a context, whose products are to be computed so.
pub(super) fn with_backend<T>(backend: MatmulBackend, create: impl FnOnce() -> T) -> T {
    SELECTED.set(backend);
    create()
}

/// Registers the device, once. The kernel that it uses, or why there is none.
pub(super) fn register() -> Result<&'static QuantizedKernel, &'static str> {
    static DONE: OnceLock<Result<&'static QuantizedKernel, String>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let kernel = QuantizedKernel::for_cpu(Cpu::chosen());
        if kernel.cpu == Cpu::Scalar {
            return Err("ours need AVX2 or AArch64's dot products to be faster".to_owned());
        }
        abi::check()
            .map_err(|why| format!("this llama.cpp is not the one it was made for: {why}"))?;
        device::register(MatmulKernels { quantized: kernel });
        Ok(kernel)
    });
    done.as_ref().copied().map_err(String::as_str)
}

/// Whether weights in BF16 are multiplied by activations in it, and not in f32.
pub(super) fn multiplies_bf16() -> bool {
    Float16Kernel::for_cpu(Cpu::chosen(), &Float16Slice::Bf16(&[])).is_bf16()
}
