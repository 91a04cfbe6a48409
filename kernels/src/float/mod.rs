//! Matmul in f32 or BF16: with 16-bit weights, F16 and BF16, in the layout of the model file, and with
//! weights of any type, which are expanded to f32 a few at a time ([`Expand`]).
//!
//! Activations are packed once for all threads ([`FloatActivations`]), in the type that is
//! multiplied: f32, or BF16 if the weights are BF16 and the CPU multiplies that faster. Weights are
//! converted to the same type for some outputs and inputs at a time. This panel stays in the L2
//! cache while all rows of a chunk are multiplied by it:
//!
//! ```text
//! for each chunk of rows and 48 outputs, in parallel:
//!     for each block of inputs:
//!         panel [depth, 48] = the weights, converted and transposed
//!         c [rows, 48] += rows' block * panel
//!     store c in out
//! ```
//!
//! The inner matmul is `tile::Tile`'s. With at most [`MAX_GEMV_ROWS`] rows memory is the limit, and
//! a GEMV (`gemv`) takes the weights as they are. The result of a row does not depend on the other
//! rows, except that the GEMV sums in another order.
//!
//! Callers with threads of their own run the tasks of a [`FloatMatmul`]; [`matmul()`] runs them
//! on rayon.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod gemv;
mod kernel;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::fmt::Debug;

use half::{bf16, f16};

pub use activations::{FloatActivations, MAX_GEMV_ROWS};
pub use kernel::FloatKernel;
pub use matmul::{FloatMatmul, matmul};
pub(crate) use matmul::{matmul_of_parts, scratch_bytes};

use crate::Cpu;
use crate::tile::prefetch;

/// Inputs per block. With 48 outputs a block of weights is 192 kB, which fits the L2 cache. Blocks
/// that fit L1 would be read from L2 just as often, and need more passes over the sums.
const fn depth<E>() -> usize {
    4096 / size_of::<E>()
}

/// A slice of 16-bit floats.
#[derive(Clone, Copy, Debug)]
pub enum Float16Slice<'a> {
    /// IEEE 754 half precision: 5 bits of exponent, 10 of fraction.
    F16(&'a [f16]),
    /// The upper half of an f32: 8 bits of exponent, 7 of fraction.
    Bf16(&'a [bf16]),
}

impl<'a> Float16Slice<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F16(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `n` elements from `from` on.
    fn part(&self, from: usize, n: usize) -> Self {
        match self {
            Self::F16(numbers) => Self::F16(&numbers[from..][..n]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[from..][..n]),
        }
    }

    /// Prefetches them into the L1 cache.
    #[inline(always)]
    fn prefetch(&self) {
        match self {
            Self::F16(numbers) => prefetch(numbers),
            Self::Bf16(numbers) => prefetch(numbers),
        }
    }
}

/// A matrix whose rows can be expanded to f32.
pub trait Expand: Sync + Debug {
    /// Expands elements of a row from `first` on, a multiple of 256, into `to`, at most 256. The end
    /// of the row, or a multiple of 256, is where they end.
    fn expand(&self, row: usize, first: usize, to: &mut [f32]);
}

/// Where the weights of a matrix come from.
#[derive(Clone, Copy, Debug)]
pub enum FloatWeights<'a> {
    /// Row by row, as in memory.
    Float16(Float16Slice<'a>),
    /// Expanded to f32 and multiplied in it.
    Expanded(&'a dyn Expand),
}

/// Weights `[n_out, n_in]` somewhere in memory.
#[derive(Clone, Copy, Debug)]
pub struct FloatMatrix<'a> {
    weights: FloatWeights<'a>,
    n_out: usize,
    n_in: usize,
}

impl<'a> FloatMatrix<'a> {
    /// A row-major matrix. `None` if it would have another number of weights, or none at all.
    pub fn new(weights: Float16Slice<'a>, n_out: usize, n_in: usize) -> Option<Self> {
        let size = n_out.checked_mul(n_in)?;
        (size == weights.len() && size > 0).then_some(Self {
            weights: FloatWeights::Float16(weights),
            n_out,
            n_in,
        })
    }

    /// A matrix of weights that are expanded. `None` if it is empty.
    pub fn expanded(weights: &'a dyn Expand, n_out: usize, n_in: usize) -> Option<Self> {
        (n_out > 0 && n_in > 0).then_some(Self {
            weights: FloatWeights::Expanded(weights),
            n_out,
            n_in,
        })
    }

    /// All weights.
    pub fn weights(&self) -> FloatWeights<'a> {
        self.weights
    }

    /// The fastest kernel for them with the instructions of `cpu`.
    pub fn kernel(&self, cpu: Cpu) -> FloatKernel {
        match self.weights {
            FloatWeights::Float16(weights) => FloatKernel::for_cpu(cpu, &weights),
            FloatWeights::Expanded(_) => FloatKernel::in_f32(cpu),
        }
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
    }
}

#[cfg(test)]
mod tests;
