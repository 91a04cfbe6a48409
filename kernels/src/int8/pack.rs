//! Weights, packed in the layout that a kernel reads.
#![allow(unsafe_code)]

use std::ops::Range;

use super::BLOCK;
use super::kernel::Int8Kernel;
use crate::pack::{pack_panels, rows_of};
use crate::{Cpu, available};

/// A Q8_0 block in a model file: an f16 scale, then 32 int8 values.
pub const Q8_0_BLOCK_BYTES: usize = 2 + BLOCK;

/// A cache line. The packed weights begin at one.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// A matrix `[n_out, n_in]` in int8 with block scales, packed for one kernel.
pub struct Int8Matrix {
    n_in: usize,
    n_out: usize,
    kernel: &'static Int8Kernel,
    lines: Vec<Line>,
}

impl Int8Matrix {
    /// Packs Q8_0 rows of `n_in` elements. The rows of a part follow those of the part before.
    ///
    /// # Panics
    /// If `n_in` is not a multiple of the block size, a part is not a whole number of rows, or this
    /// CPU lacks `cpu`.
    pub fn pack(parts: &[&[u8]], n_in: usize, cpu: Cpu) -> Self {
        assert!(available().contains(&cpu), "this CPU lacks {}", cpu.name());
        Self::pack_for(Int8Kernel::for_cpu(cpu), parts, n_in)
    }

    /// The same for a kernel that this CPU may lack. Then nothing may multiply by the matrix.
    pub(super) fn pack_for(kernel: &'static Int8Kernel, parts: &[&[u8]], n_in: usize) -> Self {
        assert_eq!(n_in % BLOCK, 0, "the width must be a multiple of {BLOCK}");
        let row_bytes = n_in / BLOCK * Q8_0_BLOCK_BYTES;
        let rows = rows_of(parts, row_bytes);
        let panel_bytes = row_bytes * kernel.lanes;
        let bytes = panel_bytes * rows.len().div_ceil(kernel.lanes);
        let mut matrix = Self {
            n_in,
            n_out: rows.len(),
            kernel,
            lines: vec![Line([0; 64]); bytes.div_ceil(64)],
        };
        let panels = &mut matrix.bytes_mut()[..bytes];
        pack_panels(panels, panel_bytes, &rows, kernel.lanes, |rows, panel| {
            pack_panel(kernel, rows, panel);
        });
        matrix
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// The kernel it is packed for.
    pub fn kernel(&self) -> &'static Int8Kernel {
        self.kernel
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        size_of_val(&self.lines[..])
    }

    /// Blocks per row.
    pub(super) fn blocks(&self) -> usize {
        self.n_in / BLOCK
    }

    /// Some blocks of panel `i`, whose outputs begin at `i * lanes`.
    pub(super) fn panel(&self, i: usize, blocks: Range<usize>) -> &[u8] {
        let block = Q8_0_BLOCK_BYTES * self.kernel.lanes;
        let panel = self.blocks() * block;
        // SAFETY: a `Line` is 64 bytes without padding, so the lines are `size` bytes.
        let all =
            unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<u8>(), self.size()) };
        &all[i * panel..][..panel][blocks.start * block..blocks.end * block]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let size = self.size();
        // SAFETY: as in `panel`; every pattern of bytes is a valid `Line`, and `self` is borrowed
        // mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<u8>(), size) }
    }
}

/// Packs up to `lanes` rows into a panel. Missing outputs get zero weights.
fn pack_panel(kernel: &Int8Kernel, rows: &[&[u8]], panel: &mut [u8]) {
    let lanes = kernel.lanes;
    let flip = if kernel.unsigned { 0x80 } else { 0 };
    for (b, block) in panel.chunks_exact_mut(lanes * Q8_0_BLOCK_BYTES).enumerate() {
        let (weights, scales) = block.split_at_mut(lanes * BLOCK);
        weights.fill(flip);
        for (lane, row) in rows.iter().enumerate() {
            let stored = &row[b * Q8_0_BLOCK_BYTES..][..Q8_0_BLOCK_BYTES];
            scales[2 * lane..][..2].copy_from_slice(&stored[..2]);
            for (i, inputs) in stored[2..].chunks_exact(kernel.group).enumerate() {
                let place = (i * lanes + lane) * kernel.group;
                let packed = &mut weights[place..][..kernel.group];
                for (packed, &stored) in packed.iter_mut().zip(inputs) {
                    *packed = stored ^ flip;
                }
            }
        }
    }
}
