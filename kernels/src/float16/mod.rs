//! Matmul with 16-bit weights, F16 and BF16, in the layout of the model file.
//!
//! Activations are packed once for all threads ([`Float16Activations`]), in the type that is
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
//! Callers with threads of their own run the tasks of a [`Float16Matmul`]; [`matmul()`] runs them
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

use half::{bf16, f16};

pub use activations::{Float16Activations, MAX_GEMV_ROWS};
pub use kernel::Float16Kernel;
pub use matmul::{Float16Matmul, matmul};

use crate::tile::prefetch;

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

/// Weights `[n_out, n_in]` somewhere in memory.
#[derive(Clone, Copy, Debug)]
pub struct Float16Matrix<'a> {
    weights: Float16Slice<'a>,
    n_out: usize,
    n_in: usize,
}

impl<'a> Float16Matrix<'a> {
    /// A row-major matrix. `None` if it would have another number of weights, or none at all.
    pub fn new(weights: Float16Slice<'a>, n_out: usize, n_in: usize) -> Option<Self> {
        let size = n_out.checked_mul(n_in)?;
        (size == weights.len() && size > 0).then_some(Self {
            weights,
            n_out,
            n_in,
        })
    }

    /// All weights, row by row.
    pub fn weights(&self) -> Float16Slice<'a> {
        self.weights
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
