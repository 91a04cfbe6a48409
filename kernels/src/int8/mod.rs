//! Int8 matmul with block scales: Q8_0 weights, and activations that are quantized first.
//!
//! ```text
//! y[m, n] = sum over blocks b of  sa[m, b] * sw[n, b] * sum over k in b of  a[m, k] * w[n, k]
//! ```
//!
//! Both operands have one scale per 32 elements. So an outlier channel (CLIP has some a hundred
//! times larger than the rest) makes its own block coarser, and no other.
//!
//! Weights are packed once, into panels of as many outputs as the kernel computes at a time:
//!
//! ```text
//! panel:  for each block of 32 inputs
//!             groups of [lanes][4] bytes      four consecutive inputs of each output
//!             [lanes] f16                     the scales
//! ```
//!
//! This takes the same 34 bytes as a Q8_0 block. A kernel reads a panel from front to back.
//! `vpdpbusd` and `sdot` multiply four bytes of each output at once; `smmla` takes eight and plain
//! NEON sixteen, and the kernel says how many.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod kernel;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_i8mm;
mod pack;
#[cfg(target_arch = "x86_64")]
mod quantize_avx512;
mod scalar;

use std::cell::RefCell;
use std::ops::Range;

use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::epilogue::{Epilogue, finish_part, transform};
use crate::tile::prefetch;

pub use activations::QuantizedRows;
pub use kernel::Int8Kernel;
pub(crate) use kernel::MAX_ROWS;
pub use pack::{Int8Matrix, Q8_0_BLOCK_BYTES};

use kernel::Int8Tile;

/// Elements that share a scale, in weights and in activations.
pub const BLOCK: usize = 32;

/// Approximate rows per task. The actual number divides the rows evenly and is a multiple of the
/// tile's rows.
///
/// The quantized rows of a task (200 kB if they are 1024 long) stay in the L2 cache beside a panel
/// of weights, and 1226 rows make six tasks per group of panels.
const CHUNK: usize = 208;
/// Outputs per task. Together with [`CHUNK`], 1024 outputs and 1226 rows make 48 tasks.
const GROUP: usize = 128;
/// Outputs whose epilogue runs together: those of the widest panel, which is a multiple of every
/// other's, and one block of a quantized output. Divides [`GROUP`].
const STRIP: usize = BLOCK;
/// Inputs that are summed before the next rows: in a panel of 32 outputs they take 34 kB.
const DEPTH: usize = 1024;

thread_local! {
    /// Results of a strip for a chunk of rows: `[rows, STRIP]`.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Computes `epilogue(x W^T + bias)` for `x: [n, n_in]` and stores it in `out: [n, n_out]`, rows
/// contiguous.
///
/// If a row of `x` holds a NaN or an infinity, no output of that row is finite.
///
/// # Panics
/// If the shapes do not agree.
pub fn matmul(
    x: &QuantizedRows,
    matrix: &Int8Matrix,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    mut out: ArrayViewMut2<f32>,
) {
    assert_eq!(
        out.dim(),
        (x.len(), matrix.n_out()),
        "out must be [rows of x, outputs]"
    );
    let product = Int8Matmul::new(x, matrix, bias);
    let mut tasks = Vec::new();
    for (i, rows) in out.axis_chunks_iter_mut(Axis(0), product.chunk).enumerate() {
        let mut rest = rows;
        for column in (0..matrix.n_out()).step_by(GROUP) {
            let (out, after) = rest.split_at(Axis(1), GROUP.min(matrix.n_out() - column));
            rest = after;
            tasks.push((i * product.chunk, column, out));
        }
    }
    let task = |(row, column, mut out): (usize, usize, ArrayViewMut2<f32>)| {
        let (rows, columns) = out.dim();
        product.group(
            row..row + rows,
            column..column + columns,
            |tile, strip, sums| {
                let rows = tile.start - row..tile.end - row;
                let columns = strip.start - column..strip.end - column;
                for i in rows.end..out.nrows().min(rows.end + rows.len()) {
                    let next = out.row(i).to_slice().expect("rows must be contiguous");
                    prefetch(&next[columns.clone()]);
                }
                let bias = bias.map(|b| &b[strip]);
                finish_part(sums, STRIP, bias, epilogue, &mut out, (rows, columns));
            },
        );
    };
    tasks.into_par_iter().with_max_len(1).for_each(task);
}

/// The same, with the output quantized for the next int8 matmul while it is in the cache, for the
/// inner activations of an MLP.
///
/// # Panics
/// If the shapes do not agree, `epilogue` is `Add`, or the outputs are not a whole number of
/// blocks.
pub fn matmul_quantized(
    x: &QuantizedRows,
    matrix: &Int8Matrix,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: &mut QuantizedRows,
) {
    assert_ne!(epilogue, Epilogue::Add, "Epilogue::Add needs an f32 output");
    let (n, n_out) = (x.len(), matrix.n_out());
    let product = Int8Matmul::new(x, matrix, bias);
    let cells = out.cells(n, n_out, matrix.kernel());
    let chunks = (0..n).step_by(product.chunk);
    let tasks: Vec<_> = chunks
        .flat_map(|row| (0..n_out).step_by(GROUP).map(move |column| (row, column)))
        .collect();
    let task = |(row, column): (usize, usize)| {
        let rows = row..n.min(row + product.chunk);
        let columns = column..n_out.min(column + GROUP);
        product.group(rows, columns, |tile, strip, sums| {
            transform(sums, STRIP, bias.map(|b| &b[strip.clone()]), epilogue);
            let (sums, _) = sums.as_chunks();
            #[allow(unsafe_code)]
            // SAFETY: the tasks' rows and columns are disjoint, their rows begin at tiles, and
            // within a task no tile and strip comes twice.
            unsafe {
                cells.quantize(tile.start, strip.start / BLOCK, sums);
            }
        });
    };
    tasks.into_par_iter().with_max_len(1).for_each(task);
}

/// The operands, and the rows per task.
struct Int8Matmul<'a> {
    x: &'a QuantizedRows,
    matrix: &'a Int8Matrix,
    /// Rows of a task.
    chunk: usize,
}

/// Bytes that each thread keeps for [`matmul`].
pub fn scratch_bytes() -> usize {
    2 * CHUNK * STRIP * size_of::<f32>()
}

/// Rows per task for `n` rows: pieces of equal size, about [`CHUNK`], a multiple of the tile's
/// rows.
fn chunk_rows(n: usize, tile: usize) -> usize {
    let pieces = n.div_ceil(CHUNK).max(1);
    n.div_ceil(pieces).next_multiple_of(tile).max(tile)
}

impl<'a> Int8Matmul<'a> {
    fn new(x: &'a QuantizedRows, matrix: &'a Int8Matrix, bias: Option<&[f32]>) -> Self {
        assert_eq!(
            x.width(),
            matrix.n_in(),
            "x must be as wide as the matrix's input"
        );
        assert!(
            bias.is_none_or(|b| b.len() == matrix.n_out()),
            "bias must have one element per output"
        );
        let chunk = chunk_rows(x.len(), matrix.kernel().rows);
        Self { x, matrix, chunk }
    }

    /// Multiplies rows by outputs and calls `finish` with a tile of rows, a strip of outputs, and
    /// the sums `[rows, STRIP]`; columns beyond the outputs are unspecified.
    ///
    /// It goes panel by panel, and within a panel [`DEPTH`] inputs at a time, so that what all rows
    /// share stays in the L1 cache.
    fn group(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        mut finish: impl FnMut(Range<usize>, Range<usize>, &mut [f32]),
    ) {
        let Int8Kernel {
            rows: tile, lanes, ..
        } = *self.matrix.kernel();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(rows.len() * STRIP, 0.0);
            for first in columns.clone().step_by(STRIP) {
                let strip = first..columns.end.min(first + STRIP);
                let panels = strip.start / lanes..strip.end.div_ceil(lanes);
                for panel in panels.clone() {
                    for blocks in pieces(self.matrix.blocks()) {
                        let last = panel + 1 == panels.end && blocks.end == self.matrix.blocks();
                        for (i, sums) in scratch.chunks_mut(tile * STRIP).enumerate() {
                            let row = rows.start + i * tile;
                            let lane = (panel - panels.start) * lanes;
                            self.tile(row, panel, blocks.clone(), &mut sums[lane..]);
                            if last {
                                finish(row..row + sums.len() / STRIP, strip.clone(), sums);
                            }
                        }
                    }
                }
            }
        });
    }

    /// Multiplies rows from `row` on by some blocks of a panel. `out` holds rows [`STRIP`] apart,
    /// as many as begin in it. The results are added to it unless `blocks` begins at zero.
    #[allow(unsafe_code)]
    fn tile(&self, row: usize, panel: usize, blocks: Range<usize>, out: &mut [f32]) {
        let kernel = self.matrix.kernel();
        let rows = out.len().div_ceil(STRIP);
        assert!(row + rows <= self.x.len() && self.x.width() == self.matrix.n_in());
        assert!(rows > 0 && (rows - 1) * STRIP + kernel.lanes <= out.len());
        let panel = self.matrix.panel(panel, blocks.clone());
        let (values, scales, init_sums) = self.x.tile(row, blocks.clone());
        let expected = kernel.rows * blocks.len() * BLOCK;
        assert_eq!(
            values.len(),
            expected,
            "the rows were quantized for another kernel"
        );
        let tile = Int8Tile {
            values: values.as_ptr(),
            scales: scales.as_ptr(),
            init_sums: init_sums.as_ptr(),
            panel: panel.as_ptr(),
            blocks: blocks.len(),
            out: out.as_mut_ptr(),
            stride: STRIP,
            add: blocks.start > 0,
        };
        // SAFETY: `Int8Matrix::pack` accepts only kernels of this CPU. The tile of values has the
        // length that the kernel takes (just asserted), and so do its scales and initial sums; the
        // panel is `blocks` long by `Int8Matrix::panel`; `out`, borrowed mutably, has room for
        // `lanes` elements in each of `rows` rows `STRIP` apart (asserted).
        unsafe { (kernel.tile)(&tile, rows) }
    }
}

/// Splits `blocks` blocks into pieces of [`DEPTH`] inputs.
fn pieces(blocks: usize) -> impl Iterator<Item = Range<usize>> {
    const PIECE: usize = DEPTH / BLOCK;
    (0..blocks)
        .step_by(PIECE)
        .map(move |first| first..blocks.min(first + PIECE))
}

#[cfg(test)]
mod tests;
