//! Products with weights of 16 bits, F16 and BF16, straight from a file.
//!
//! Many rows of activations are packed once for all threads ([`Float16Activations`]), in the numbers that are
//! multiplied: f32, or BF16 where the weights are BF16 and the CPU multiplies that faster. Weights become
//! the same for some outputs and inputs at a time, a panel in the second-level cache that all rows of a
//! chunk pass by:
//!
//! ```text
//! for each chunk of rows and 48 outputs, in parallel:
//!     for each block of inputs:
//!         panel [depth, 48] = the weights, widened and turned
//!         c [rows, 48] += rows' block * panel
//!     c to where it belongs
//! ```
//!
//! The inner product is `tile::Tile`'s. A gemv rows ([`MAX_GEMV_ROWS`] at most) take weights as they lie instead
//! (`gemv`): then memory is the limit. A row's result does not depend on the rows beside it, but that with so
//! gemv the order of its sum is another.
//!
//! Callers with threads of their own cut the work with [`Float16Matmul`]; [`matmul()`] runs it on rayon's.

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

/// Numbers of 16 bits.
#[derive(Clone, Copy, Debug)]
pub enum Float16Slice<'a> {
    /// IEEE 754's: 5 bits of exponent, 10 of fraction.
    F16(&'a [f16]),
    /// The upper half of an f32: 8 and 7.
    Bf16(&'a [bf16]),
}

impl<'a> Float16Slice<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F16(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `n` of them from one on.
    fn part(&self, from: usize, n: usize) -> Self {
        match self {
            Self::F16(numbers) => Self::F16(&numbers[from..][..n]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[from..][..n]),
        }
    }

    /// Tells the cache that they will be read.
    #[inline(always)]
    fn prefetch(&self) {
        match self {
            Self::F16(numbers) => prefetch(numbers),
            Self::Bf16(numbers) => prefetch(numbers),
        }
    }
}

/// Weights `[n_out, n_in]`, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct Float16Matrix<'a> {
    weights: Float16Slice<'a>,
    n_out: usize,
    n_in: usize,
}

impl<'a> Float16Matrix<'a> {
    /// Row by row. `None` if there are not as many weights as such a matrix has, or there is nothing in it.
    pub fn new(weights: Float16Slice<'a>, n_out: usize, n_in: usize) -> Option<Self> {
        let size = n_out.checked_mul(n_in)?;
        (size == weights.len() && size > 0).then_some(Self {
            weights,
            n_out,
            n_in,
        })
    }

    /// All of them.
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
