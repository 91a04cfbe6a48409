//! Activations, quantized to int8 in blocks.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::BLOCK;
use super::kernel::{Int8Kernel, MAX_ROWS};
use crate::{quantize::quantize_block, vectorized};

/// Rows of int8 values with one scale per block of [`BLOCK`], in the order in which a kernel reads
/// them.
///
/// An element is `scale * value`, with `value` in -127..=127 rounded to the nearest, and `scale`
/// the largest magnitude of the block divided by 127: llama.cpp's Q8_0 with an f32 scale.
///
/// The rows of a tile are interleaved block by block, so that a kernel reads one stream. Twelve
/// separate streams would be more than the hardware prefetcher follows.
#[derive(Default)]
pub struct QuantizedRows {
    len: usize,
    width: usize,
    /// Rows of a tile.
    tile: usize,
    /// `[tiles][width / BLOCK][tile][BLOCK]`
    values: Vec<i8>,
    /// `[tiles][width / BLOCK][tile]`
    scales: Vec<f32>,
    /// Initial sums of the blocks, for kernels whose weights are offset by 128: `[tiles][width /
    /// BLOCK][tile]`. See [`SUM_ZERO`].
    init_sums: Vec<i32>,
}

/// The initial sum of a block, minus 128 times the sum of its values if the kernel needs that.
///
/// As f32 these bits are [`SUM_ZERO_F32`], and adding 1 to the bits adds 1 to the number. A block's
/// sum is below 2^20, so a subtraction converts it to f32. A conversion instruction would compete
/// for the ports of the multiplications.
pub const SUM_ZERO: i32 = SUM_ZERO_F32.to_bits() as i32;
/// 1.5 * 2^23
pub const SUM_ZERO_F32: f32 = 12_582_912.0;

impl QuantizedRows {
    /// Replaces the contents with the quantized rows of `x: [n, width]`, in the layout of `kernel`.
    /// Allocates only if they do not fit.
    ///
    /// # Panics
    /// If a row is not contiguous or not a whole number of blocks.
    pub fn quantize(&mut self, x: &ArrayView2<f32>, kernel: &Int8Kernel) {
        self.fill(x.dim(), kernel, |i, row| {
            let x = x.row(i);
            row.copy_from_slice(x.to_slice().expect("rows must be contiguous"));
        });
    }

    /// Replaces the contents with `n` rows that `row` writes: it gets the number of the row and a
    /// slice of length `width`. Allocates only if they do not fit.
    ///
    /// # Panics
    /// If `width` is not a multiple of [`BLOCK`].
    pub(crate) fn fill(
        &mut self,
        (n, width): (usize, usize),
        kernel: &Int8Kernel,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.resize(n, width, kernel.rows);
        if self.values.is_empty() {
            return;
        }
        let (tile, blocks) = (self.tile, self.width / BLOCK);
        let values = self.values.par_chunks_exact_mut(tile * self.width);
        let scales = self.scales.par_chunks_exact_mut(tile * blocks);
        let init_sums = self.init_sums.par_chunks_exact_mut(tile * blocks);
        let tiles = (values, scales, init_sums).into_par_iter().enumerate();
        let make = |room: &mut Vec<f32>,
                    (t, (values, scales, init_sums)): (usize, TileSlices<'_>)| {
            for i in 0..tile.min(n - t * tile) {
                vectorized(|| row(t * tile + i, room));
                quantize_row(room, tile, i, (values, scales, init_sums));
            }
        };
        tiles.for_each_init(|| vec![0.0; width], make);
    }

    /// Room for `[n, width]`, to be filled tile by tile and block by block.
    pub(crate) fn cells(&mut self, n: usize, width: usize, kernel: &Int8Kernel) -> Cells<'_> {
        self.resize(n, width, kernel.rows);
        Cells {
            n,
            blocks: width / BLOCK,
            tile: self.tile,
            values: self.values.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            init_sums: self.init_sums.as_mut_ptr(),
            rows: PhantomData,
        }
    }

    /// Most bytes that `[n, width]` takes.
    pub fn bytes(n: usize, width: usize) -> usize {
        let n = n.next_multiple_of(MAX_ROWS);
        n * width + n * width / BLOCK * (size_of::<f32>() + size_of::<i32>())
    }

    /// Makes room for `[n, width]` and leaves the old contents.
    fn resize(&mut self, n: usize, width: usize, tile: usize) {
        assert_eq!(width % BLOCK, 0, "the width must be a multiple of {BLOCK}");
        (self.len, self.width, self.tile) = (n, width, tile);
        let numbers = n.next_multiple_of(tile) * width;
        self.values.resize(numbers, 0);
        self.scales.resize(numbers / BLOCK, 0.0);
        self.init_sums.resize(numbers / BLOCK, 0);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values, scales and initial sums of some blocks of the tile that begins at `row`.
    ///
    /// # Panics
    /// If no tile begins there.
    pub(super) fn tile(&self, row: usize, blocks: Range<usize>) -> (&[i8], &[f32], &[i32]) {
        assert_eq!(row % self.tile, 0, "row {row} is not the first of a tile");
        let first = row * (self.width / BLOCK);
        let cells = first + blocks.start * self.tile..first + blocks.end * self.tile;
        (
            &self.values[cells.start * BLOCK..cells.end * BLOCK],
            &self.scales[cells.clone()],
            &self.init_sums[cells],
        )
    }

    /// Row `i`, dequantized.
    pub fn to_f32(&self, i: usize) -> Vec<f32> {
        let first = i / self.tile * self.tile;
        let (values, scales, _) = self.tile(first, 0..self.width / BLOCK);
        let numbers = (0..self.width).map(|k| {
            let block = k / BLOCK * self.tile + i % self.tile;
            f32::from(values[block * BLOCK + k % BLOCK]) * scales[block]
        });
        numbers.collect()
    }
}

/// Values, scales and initial sums of a tile.
type TileSlices<'a> = (&'a mut [i8], &'a mut [f32], &'a mut [i32]);

/// [`QuantizedRows`] that several threads fill, each with its own tiles and blocks.
pub(crate) struct Cells<'a> {
    n: usize,
    /// Blocks in a row.
    blocks: usize,
    /// Rows of a tile.
    tile: usize,
    values: *mut i8,
    scales: *mut f32,
    init_sums: *mut i32,
    rows: PhantomData<&'a mut QuantizedRows>,
}

// SAFETY: the pointers belong to one `QuantizedRows`, borrowed mutably for `'a`; by the contract of
// `quantize` the threads write disjoint parts.
unsafe impl Sync for Cells<'_> {}
// SAFETY: as above; the elements may be written from any thread.
unsafe impl Send for Cells<'_> {}

impl Cells<'_> {
    /// Quantizes the columns of one block of the rows from `row` on, where a tile begins.
    ///
    /// # Safety
    /// No other thread accesses the same tile and block meanwhile.
    ///
    /// # Panics
    /// If there are more rows than a tile has, or than there are left.
    pub(crate) unsafe fn quantize(&self, row: usize, block: usize, x: &[[f32; BLOCK]]) {
        assert!(row.is_multiple_of(self.tile) && block < self.blocks);
        assert!(x.len() <= self.tile && row + x.len() <= self.n);
        let first = row * self.blocks + block * self.tile;
        // SAFETY: tiles and blocks are in range (asserted), so these are parts of the three
        // vectors, which cover all tiles; no other thread accesses them, by the caller's promise.
        let (values, scales, init_sums) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.values.add(first * BLOCK), x.len() * BLOCK),
                std::slice::from_raw_parts_mut(self.scales.add(first), x.len()),
                std::slice::from_raw_parts_mut(self.init_sums.add(first), x.len()),
            )
        };
        let (values, _) = values.as_chunks_mut();
        quantize_each(cells(
            x,
            values.iter_mut(),
            scales.iter_mut(),
            init_sums.iter_mut(),
        ));
    }
}

/// A block, and where its quantized form goes.
pub(super) struct Cell<'a> {
    pub x: &'a [f32; BLOCK],
    pub values: &'a mut [i8; BLOCK],
    pub scale: &'a mut f32,
    pub init_sum: &'a mut i32,
}

/// Quantizes a row, the `i`th of its tile.
fn quantize_row(row: &[f32], tile: usize, i: usize, (values, scales, init_sums): TileSlices<'_>) {
    let (blocks, _) = row.as_chunks::<BLOCK>();
    let (values, _) = values.as_chunks_mut::<BLOCK>();
    let values = values.iter_mut().skip(i).step_by(tile);
    let scales = scales.iter_mut().skip(i).step_by(tile);
    let init_sums = init_sums.iter_mut().skip(i).step_by(tile);
    quantize_each(cells(blocks, values, scales, init_sums));
}

fn cells<'a>(
    blocks: &'a [[f32; BLOCK]],
    values: impl Iterator<Item = &'a mut [i8; BLOCK]>,
    scales: impl Iterator<Item = &'a mut f32>,
    init_sums: impl Iterator<Item = &'a mut i32>,
) -> impl Iterator<Item = Cell<'a>> {
    let places = values.zip(scales).zip(init_sums);
    let cells = blocks.iter().zip(places);
    cells.map(|(x, ((values, scale), init))| Cell {
        x,
        values,
        scale,
        init_sum: init,
    })
}

fn quantize_each<'a>(cells: impl Iterator<Item = Cell<'a>>) {
    #[cfg(target_arch = "x86_64")]
    if crate::Cpu::chosen() >= crate::Cpu::Avx512 {
        return super::quantize_avx512::quantize_each(cells);
    }
    quantize_anywhere(cells);
}

/// The same in plain Rust.
fn quantize_anywhere<'a>(cells: impl Iterator<Item = Cell<'a>>) {
    vectorized(|| {
        for cell in cells {
            *cell.scale = quantize_block(cell.x, cell.values);
            let sum: i32 = cell.values.iter().map(|v| i32::from(*v)).sum();
            *cell.init_sum = SUM_ZERO - 128 * sum;
        }
    });
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{Cpu, testing::noise};

    fn quantized(x: &Array2<f32>) -> QuantizedRows {
        let mut rows = QuantizedRows::default();
        rows.quantize(&x.view(), Int8Kernel::for_cpu(Cpu::chosen()));
        rows
    }

    #[test]
    fn every_element_is_within_half_a_step() {
        let mut x = noise(3, 96, 1);
        x[[1, 40]] = 500.0; // an outlier makes only its own block coarser
        let rows = quantized(&x);
        for (i, row) in x.rows().into_iter().enumerate() {
            let found = rows.to_f32(i);
            for (k, (&v, w)) in row.iter().zip(&found).enumerate() {
                let block = row.iter().skip(k / BLOCK * BLOCK).take(BLOCK);
                let step = block.fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
                assert!(
                    (v - w).abs() <= 0.501 * step,
                    "row {i}, column {k}: {v} became {w}"
                );
            }
        }
    }

    #[test]
    fn initial_sums_are_minus_128_times_the_values() {
        let rows = quantized(&noise(2, 64, 3));
        let (values, _, init_sums) = rows.tile(0, 0..2);
        let first = &values[..BLOCK];
        let sum: i32 = first.iter().map(|&v| i32::from(v)).sum();
        assert_eq!(init_sums[0], SUM_ZERO - 128 * sum);
    }

    #[test]
    fn zeros_and_the_smallest_numbers_become_zero() {
        let mut x = Array2::zeros((1, 64));
        x[[0, 33]] = 1e-38;
        assert!(quantized(&x).to_f32(0).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn nan_and_infinity_make_the_scale_non_finite() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = noise(1, 64, 5);
            x[[0, 7]] = bad;
            let rows = quantized(&x);
            assert!(!rows.scales[0].is_finite(), "{bad}");
            assert!(rows.scales[rows.tile].is_finite(), "{bad}");
        }
    }

    #[test]
    fn the_chosen_level_quantizes_like_plain_rust_bit_for_bit() {
        let mut x = noise(40, 64, 7);
        for (i, mut row) in x.rows_mut().into_iter().enumerate() {
            row *= 10_f32.powi(i as i32 - 33); // includes magnitudes around MIN_MAGNITUDE
        }
        x[[39, 3]] = 127.5;
        x.row_mut(38).fill(0.0);
        let (blocks, _) = x.as_slice().unwrap().as_chunks::<BLOCK>();
        let quantized = |plain: bool| {
            let n = blocks.len();
            let (mut values, mut scales) = (vec![[0; BLOCK]; n], vec![0.0; n]);
            let mut init_sums = vec![0; n];
            let cells = cells(
                blocks,
                values.iter_mut(),
                scales.iter_mut(),
                init_sums.iter_mut(),
            );
            if plain {
                quantize_anywhere(cells);
            } else {
                quantize_each(cells);
            }
            (values, scales, init_sums)
        };
        assert_eq!(quantized(false), quantized(true));
    }
}
