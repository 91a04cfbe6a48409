//! Matmul with weights in llama.cpp's Q4_0, Q5_0, Q8_0, Q4_K, Q5_K and Q6_K, in the layout of the model
//! file.
//!
//! ```text
//! y[m, n] = sum over superblocks s of  sa[m, s] * (  sum over runs r of  sw[n, r] * sum over k in r of  a[m, k] * w[n, k]
//!                                                  - sm[n, s] * sum over runs r of  min[n, r] * sum over k in r of  a[m, k] )
//! ```
//!
//! A superblock is 256 inputs. Weights stay as they are in memory. One superblock of some outputs
//! at a time is unpacked into a panel of bytes (`kernel::Panel`) in the L1 cache, and all rows of a
//! chunk are multiplied by it:
//!
//! ```text
//! for each chunk of rows and group of outputs, in parallel:
//!     for each superblock:
//!         for each panel of the group:  unpack it
//!         for each tile of rows, for each panel:  c[tile, panel] += rows' superblock * panel
//!     store c in out
//! ```
//!
//! With few rows memory is the limit, and a GEMV takes the weights without unpacking, if the kernel
//! has one (`kernel::QuantizedGemv`).
//!
//! Activations are quantized once per matmul ([`OwnedQuantizedActivations`]), with as many scales
//! as llama.cpp uses for the format, so that results are as close to the exact ones as its. The
//! result of a row does not depend on the other rows, except that with few rows (those of the GEMV;
//! with AMX fewer than 64) it is rounded in another order.
//!
//! Callers with threads of their own run the tasks of a [`QuantizedMatmul`]; [`matmul()`] runs them
//! on rayon.

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
mod neon;
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
#[cfg(target_arch = "aarch64")]
mod neon_unpack16;
mod registers;
mod scalar;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod unpack;

pub use activations::{BLOCK, OwnedQuantizedActivations, QuantizedActivations};
pub use format::{QuantFormat, QuantScheme};
pub use kernel::{PanelLayout, QuantizedKernel};
pub use matmul::{QuantizedMatmul, matmul};
pub(crate) use matmul::{matmul_of_parts, matmul_of_parts_quantized, scratch_bytes};

/// Inputs per superblock.
pub const SUPERBLOCK: usize = 256;

/// Quantized weights `[n_out, n_in]` somewhere in memory.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedMatrix<'a> {
    format: QuantFormat,
    bytes: &'a [u8],
    n_out: usize,
    n_in: usize,
    row_bytes: usize,
}

impl<'a> QuantizedMatrix<'a> {
    /// A row-major matrix of whole blocks. `None` if `bytes` has another length, or the matrix is
    /// empty.
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

    /// The quantization format.
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

    /// Superblocks per row; the last may be partial.
    pub fn superblocks(&self) -> usize {
        self.n_in.div_ceil(SUPERBLOCK)
    }

    /// The blocks of one output in a superblock.
    fn superblock(&self, output: usize, superblock: usize) -> &'a [u8] {
        let row = &self.bytes[output * self.row_bytes..][..self.row_bytes];
        let from = superblock * self.superblock_bytes();
        &row[from..self.row_bytes.min(from + self.superblock_bytes())]
    }

    /// Bytes of a whole superblock.
    fn superblock_bytes(&self) -> usize {
        SUPERBLOCK / self.format.block_len() * self.format.block_bytes()
    }

    /// The bytes to prefetch while superblock `superblock` of `lanes` outputs from `output` on is
    /// multiplied: an equal share of the `lanes` outputs after them, another for each superblock.
    fn share_of_next(&self, output: usize, lanes: usize, superblock: usize) -> &'a [u8] {
        let share = self.row_bytes * lanes / self.superblocks();
        let from = self.row_bytes * (output + lanes) + superblock * share;
        let end = self.bytes.len();
        &self.bytes[from.min(end)..(from + share).min(end)]
    }
}

#[cfg(test)]
mod tests;
