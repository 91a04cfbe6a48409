//! Products with weights as llama.cpp stores them: Q4_0, Q8_0, Q4_K, Q5_K and Q6_K, straight from a file.
//!
//! ```text
//! y[m, n] = sum over superblocks s of  sa[m, s] * (  sum over runs r of  sw[n, r] * sum over k in r of  a[m, k] * w[n, k]
//!                                                  - sm[n, s] * sum over runs r of  min[n, r] * sum over k in r of  a[m, k] )
//! ```
//!
//! A superblock is 256 inputs. Weights stay as they are; a superblock of some outputs at a time is unpacked
//! into a panel of bytes (`kernel::Panel`) in the first-level cache, and all rows of a chunk pass by it:
//!
//! ```text
//! for each chunk of rows and group of outputs, in parallel:
//!     for each superblock:
//!         for each panel of the group:  unpack it
//!         for each tile of rows, for each panel:  c[tile, panel] += rows' superblock * panel
//!     c to where it belongs
//! ```
//!
//! A few rows take weights as they lie instead, where there is a kernel for that (`kernel::QuantizedGemv`): then
//! memory is the limit.
//!
//! Activations are quantized once for a product ([`OwnedQuantizedActivations`]); how finely is the format's, as in
//! llama.cpp, so that results are as close as its. A row's result does not depend on the rows beside it, but that
//! with few (those that a kernel takes directly; with AMX fewer than 64) it is rounded in another order.
//!
//! Callers with threads of their own cut the work with [`QuantizedMatmul`]; [`matmul()`] runs it on rayon's.

mod activations;
#[cfg(target_arch = "x86_64")]
mod activations_avx512;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_unpack;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_gemv;
#[cfg(target_arch = "x86_64")]
mod avx2_unpack;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_gemv;
#[cfg(target_arch = "x86_64")]
mod avx512_unpack;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod format;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod gemv;
mod kernel;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
mod neon_gemv;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm_unpack;
#[cfg(target_arch = "aarch64")]
mod neon_unpack;
mod registers;
mod scalar;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod unpack;

pub use activations::{OwnedQuantizedActivations, QuantizedActivations};
pub use format::{QuantFormat, QuantScheme};
pub use kernel::{PanelLayout, QuantizedKernel};
pub use matmul::{QuantizedMatmul, matmul};

/// Inputs that are unpacked and multiplied at a time.
pub const SUPER: usize = 256;

/// Weights `[n_out, n_in]` in blocks, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedMatrix<'a> {
    format: QuantFormat,
    bytes: &'a [u8],
    n_out: usize,
    n_in: usize,
    row_bytes: usize,
}

impl<'a> QuantizedMatrix<'a> {
    /// Row by row, each whole blocks. `None` if the length of `bytes` is not that of such a matrix, or
    /// there is nothing in it.
    pub fn new(format: QuantFormat, bytes: &'a [u8], n_out: usize, n_in: usize) -> Option<Self> {
        let row_bytes = format.row_bytes(n_in)?;
        let size = row_bytes.checked_mul(n_out)?;
        (size == bytes.len() && size > 0).then_some(Self {
            row_bytes,
            format,
            bytes,
            n_out,
            n_in,
        })
    }

    /// How it is stored.
    pub fn format(&self) -> QuantFormat {
        self.format
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Superblocks of a row; the last may not be whole.
    pub fn superblocks(&self) -> usize {
        self.n_in.div_ceil(SUPER)
    }

    /// The blocks of one output in a superblock.
    fn superblock(&self, output: usize, superblock: usize) -> &'a [u8] {
        let row = &self.bytes[output * self.row_bytes..][..self.row_bytes];
        let from = superblock * self.superblock_bytes();
        &row[from..self.row_bytes.min(from + self.superblock_bytes())]
    }

    /// Bytes of a whole superblock.
    fn superblock_bytes(&self) -> usize {
        SUPER / self.format.block_len() * self.format.block_bytes()
    }

    /// Of the `lanes` outputs that follow those from `output` on, as large a part as one superblock of
    /// them is, another for each: what to ask memory for while this one is multiplied.
    fn share_of_next(&self, output: usize, lanes: usize, superblock: usize) -> &'a [u8] {
        let share = self.row_bytes * lanes / self.superblocks();
        let from = self.row_bytes * (output + lanes) + superblock * share;
        let end = self.bytes.len();
        &self.bytes[from.min(end)..(from + share).min(end)]
    }
}

#[cfg(test)]
mod tests;
