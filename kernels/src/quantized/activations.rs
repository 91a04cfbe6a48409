//! Activations, quantized to int8 for one quantization scheme of weights.
#![allow(unsafe_code)]

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::kernel::{PanelLayout, QuantizedKernel};
use super::{QuantScheme, SUPERBLOCK};
use crate::{quantize::quantize_block, tile::Buffer, vectorized};

/// Most runs per superblock: the sums that a kernel may need.
pub const RUNS: usize = 16;
/// Most scales per superblock.
pub const SCALES: usize = 8;
/// Elements that share a scale if the scheme is fine.
pub const BLOCK: usize = SUPERBLOCK / SCALES;
/// Rows of the tallest tile of fine activations.
pub(super) const MAX_TILE: usize = 8;
/// Values of a row that are stored beside those of the other row of a pair.
const PAIRED: usize = 8;
/// Bytes of a row's superblock: values, scales and sums.
const BYTES: usize = SUPERBLOCK + 4 * SCALES + 4 * RUNS;

/// Owned rows of int8 values, in the order in which a kernel reads them.
///
/// An element is `scale * value`, with `value` in -127..=127 rounded to the nearest. `scale` is the
/// largest magnitude of its 256 elements, or of its 32 if the scheme is [fine](QuantScheme::fine),
/// divided by 127. Rows are padded with zeros to whole superblocks.
#[derive(Default)]
pub struct OwnedQuantizedActivations {
    memory: Buffer<f32>,
    /// Where they are, and the kernel that reads them.
    rows: Option<(QuantizedActivations, &'static QuantizedKernel)>,
}

impl OwnedQuantizedActivations {
    /// Replaces the contents with the quantized rows of `x: [n, width]`, contiguous. `scheme` is
    /// the [kernel's](QuantizedKernel::activation_scheme).
    ///
    /// # Panics
    /// If the rows are not contiguous.
    pub fn quantize(
        &mut self,
        x: &ArrayView2<f32>,
        scheme: QuantScheme,
        kernel: &'static QuantizedKernel,
    ) {
        let rows = self.prepare_for(x.dim(), scheme, kernel);
        let x = x.as_slice().expect("rows must be contiguous");
        (0..rows.pieces()).into_par_iter().for_each(|piece| {
            // SAFETY: each piece is written once, and nobody reads it meanwhile.
            unsafe { rows.quantize(x, piece) }
        });
    }

    /// The same for this process's kernel and a fine scheme.
    ///
    /// # Panics
    /// If the rows are not contiguous, or the scheme is not fine.
    pub fn quantize_fine(&mut self, x: &ArrayView2<f32>, scheme: QuantScheme) {
        assert!(scheme.fine, "expected a scale per {BLOCK} activations");
        self.quantize(x, scheme, QuantizedKernel::fine());
    }

    /// Replaces the contents with `n` rows that `row` writes: it gets the number of the row and a
    /// slice of length `width`. The scheme must be fine.
    ///
    /// # Panics
    /// If the scheme is not fine, or `width` is not a multiple of [`BLOCK`].
    pub(crate) fn fill(
        &mut self,
        (n, width): (usize, usize),
        scheme: QuantScheme,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = self.prepare((n, width), scheme);
        let tile = |room: &mut Vec<f32>, first: usize| {
            for i in first..n.min(first + rows.tile) {
                vectorized(|| row(i, room));
                // SAFETY: each row is written once, those of a tile by one thread, and nobody reads
                // them meanwhile.
                unsafe { rows.quantize_blocks(i, 0, room) }
            }
        };
        (0..n.div_ceil(rows.tile))
            .into_par_iter()
            .for_each_init(|| vec![0.0; width], |room, i| tile(room, i * rows.tile));
    }

    /// Makes room for rows of a fine scheme, `[n, width]`, and returns where they go. Old contents
    /// are lost.
    pub(crate) fn prepare(
        &mut self,
        dim: (usize, usize),
        scheme: QuantScheme,
    ) -> QuantizedActivations {
        assert!(scheme.fine, "expected a scale per {BLOCK} activations");
        self.prepare_for(dim, scheme, QuantizedKernel::fine())
    }

    pub(super) fn prepare_for(
        &mut self,
        (n, width): (usize, usize),
        scheme: QuantScheme,
        kernel: &'static QuantizedKernel,
    ) -> QuantizedActivations {
        let bytes = QuantizedActivations::bytes(n, width, kernel);
        self.memory.resize(bytes.div_ceil(4));
        // SAFETY: `memory` was just resized to this many bytes, nobody else uses it, and it stays
        // valid as long as `rows`: until the next call.
        let rows = unsafe {
            QuantizedActivations::new(self.memory.as_mut_ptr().cast(), n, width, scheme, kernel)
        };
        rows.clear_end();
        self.rows = Some((rows, kernel));
        rows
    }

    /// Most bytes that `[n, width]` takes, with any kernel.
    pub fn most_bytes(n: usize, width: usize) -> usize {
        Buffer::<f32>::bytes((n + MAX_TILE) * width.div_ceil(SUPERBLOCK) * BYTES / 4)
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.rows.map_or(0, |(rows, _)| rows.n)
    }

    /// A view for the matmul, valid until the rows are replaced.
    pub(crate) fn shared(&self) -> QuantizedActivations {
        self.rows.expect("quantize must be called first").0
    }

    /// The kernel that reads them.
    pub(super) fn kernel(&self) -> &'static QuantizedKernel {
        self.rows.expect("quantize must be called first").1
    }

    /// Row `i`, dequantized.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn to_f32(&self, i: usize) -> Vec<f32> {
        let rows = self.shared();
        assert!(i < rows.n, "row {i} of {}", rows.n);
        let number = |k: usize| {
            let within = k % SUPERBLOCK;
            let scale = if rows.scheme.fine { within / BLOCK } else { 0 };
            let (values, scales, _) = rows.tile(i / rows.tile * rows.tile, k / SUPERBLOCK);
            let (value, scale) = (
                rows.place::<SUPERBLOCK, PAIRED>(i, within),
                rows.place::<SCALES, 1>(i, scale),
            );
            // SAFETY: the row and the superblock exist, and nobody writes them.
            unsafe { f32::from(*values.add(value)) * *scales.add(scale) }
        };
        (0..rows.width).map(number).collect()
    }
}

/// A pointer to quantized activations: several threads write them, and read them once all are
/// written.
///
/// For each superblock, tiles of as many rows as the kernel takes are stored one after the other,
/// in the order in which a panel is multiplied by them. For kernels that take [pairs of
/// rows](PanelLayout::RowPairs), `[tile][LEN]` below is `[tile / 2][LEN / part][2][part]`, except
/// for a last row without a second.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedActivations {
    n: usize,
    width: usize,
    scheme: QuantScheme,
    /// Factor applied while quantizing.
    factor: f32,
    /// Rows per tile.
    tile: usize,
    /// The kernel's layout.
    layout: PanelLayout,
    /// `[superblocks][tiles][tile][SUPERBLOCK]`, in parts of eight.
    values: *mut i8,
    /// `[superblocks][tiles][tile][SCALES]`, in parts of one. If the scheme is not fine, only the
    /// first is used.
    scales: *mut f32,
    /// Initial sums of the runs: minus `zero` times the sum of the values. If the scheme has
    /// minima, the sums of the runs instead, two of 16 bits in one word, or for
    /// [`PanelLayout::Amx`] one split into two bf16; if it is fine as well, eight zeros, then the
    /// sums times their scale as f32. `[superblocks][tiles][tile][RUNS]`, in parts of one.
    sums: *mut i32,
}

// SAFETY: all functions that access the memory are unsafe and state what the caller must guarantee.
unsafe impl Send for QuantizedActivations {}
// SAFETY: as above.
unsafe impl Sync for QuantizedActivations {}

impl QuantizedActivations {
    /// Bytes that activations `[n, width]` take for `kernel`.
    pub fn bytes(n: usize, width: usize, kernel: &QuantizedKernel) -> usize {
        n.next_multiple_of(kernel.for_rows(n).rows) * width.div_ceil(SUPERBLOCK) * BYTES
    }

    /// Activations `[n, width]` at `memory`. `scheme` is the
    /// [kernel's](QuantizedKernel::activation_scheme).
    ///
    /// # Safety
    /// `memory` points to [`Self::bytes`] initialized bytes, aligned to 4, which stay valid as long
    /// as this value and its copies are used.
    pub unsafe fn new(
        memory: *mut u8,
        n: usize,
        width: usize,
        scheme: QuantScheme,
        kernel: &QuantizedKernel,
    ) -> Self {
        let kernel = kernel.for_rows(n);
        let count = n.next_multiple_of(kernel.rows) * width.div_ceil(SUPERBLOCK);
        // SAFETY: within the bytes that the caller promises.
        let (scales, sums) = unsafe {
            let scales = memory.add(count * SUPERBLOCK);
            (scales, scales.add(count * SCALES * 4))
        };
        Self {
            n,
            width,
            scheme,
            factor: 1.0,
            tile: kernel.rows,
            layout: kernel.layout,
            values: memory.cast(),
            scales: scales.cast(),
            sums: sums.cast(),
        }
    }

    /// The same place for activations that [`Self::quantize`] multiplies by `factor`.
    pub fn scaled(self, factor: f32) -> Self {
        Self { factor, ..self }
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The scheme of the weights for which they are quantized.
    pub fn scheme(&self) -> QuantScheme {
        self.scheme
    }

    /// Rows per tile.
    pub(super) fn tile_rows(&self) -> usize {
        self.tile
    }

    /// Number of pieces that can be quantized independently: superblocks of tiles.
    pub fn pieces(&self) -> usize {
        self.n.div_ceil(self.tile) * self.width.div_ceil(SUPERBLOCK)
    }

    /// Quantizes piece `piece` of `x: [n, width]`.
    ///
    /// # Safety
    /// No other thread writes this piece or reads it meanwhile.
    ///
    /// # Panics
    /// If there is no such piece, or `x` has another size.
    pub unsafe fn quantize(&self, x: &[f32], piece: usize) {
        assert!(piece < self.pieces() && x.len() == self.n * self.width);
        let superblocks = self.width.div_ceil(SUPERBLOCK);
        let (row, from) = (
            piece / superblocks * self.tile,
            piece % superblocks * SUPERBLOCK,
        );
        let to = self.width.min(from + SUPERBLOCK);
        let n = self.tile.min(self.n - row);
        let rows = x.chunks_exact(self.width).skip(row).take(n);
        let first = self.first_of_tile(row, from / SUPERBLOCK);
        for (i, x) in rows.enumerate() {
            let at = first + i;
            // SAFETY: the piece and the row are within the memory, by the promise of `new`'s
            // caller; no other thread accesses them, by the promise of this one. The arrays need no
            // alignment beyond that of their elements.
            let mut row = unsafe {
                Quantized {
                    values: &mut *self.values.add(at * SUPERBLOCK).cast(),
                    scales: &mut *self.scales.add(at * SCALES).cast(),
                    sums: &mut *self.sums.add(at * RUNS).cast(),
                }
            };
            let mut padded = [0.0; SUPERBLOCK];
            let x = &x[from..to];
            let x = x.try_into().unwrap_or_else(|_| {
                padded[..x.len()].copy_from_slice(x);
                &padded
            });
            row.quantize(x, self.scheme);
            if self.layout == PanelLayout::Amx && self.scheme.minima {
                row.split_sums();
            }
            for scale in &mut *row.scales {
                *scale *= self.factor;
            }
            if self.scheme.fine && self.scheme.minima {
                row.scale_sums();
            }
        }
        if self.layout == PanelLayout::RowPairs {
            for at in (first..first + n / 2 * 2).step_by(2) {
                // SAFETY: as above, for two rows each.
                unsafe {
                    let values = self.values.add(at * SUPERBLOCK);
                    pair::<[i8; PAIRED], { SUPERBLOCK / PAIRED }>(&mut *values.cast());
                    pair::<f32, SCALES>(&mut *self.scales.add(at * SCALES).cast());
                    pair::<i32, RUNS>(&mut *self.sums.add(at * RUNS).cast());
                }
            }
        }
    }

    /// Quantizes some blocks of 32 of a row, from `block` on, for a fine scheme.
    ///
    /// # Safety
    /// No other thread accesses these blocks meanwhile.
    ///
    /// # Panics
    /// If the scheme is not fine, `x` is not whole blocks, or the row or its blocks do not exist.
    pub(crate) unsafe fn quantize_blocks(&self, row: usize, block: usize, x: &[f32]) {
        let (x, rest) = x.as_chunks::<BLOCK>();
        assert!(self.scheme.fine && rest.is_empty());
        assert!(row < self.n && (block + x.len()) * BLOCK <= self.width);
        let row = self.row_place(row);
        #[cfg(target_arch = "x86_64")]
        if crate::Cpu::chosen() >= crate::Cpu::Avx512 {
            use super::activations_avx512::quantize_each;
            // SAFETY: a chosen set is available, and on x86-64 all sets from AVX-512 on include it.
            // The blocks exist (asserted).
            return unsafe {
                quantize_each(x, |i, quantized| {
                    self.store_block(row, block + i, quantized);
                });
            };
        }
        vectorized(|| {
            for (i, x) in x.iter().enumerate() {
                // SAFETY: the block exists (asserted); the rest is the caller's promise.
                unsafe { self.store_block(row, block + i, &QuantizedBlock::new(x)) }
            }
        });
    }

    /// Stores a quantized block of a row.
    ///
    /// # Safety
    /// The row and the block exist, and no other thread accesses the block.
    #[inline(always)]
    unsafe fn store_block(&self, row: RowPlace, block: usize, from: &QuantizedBlock) {
        let (at, block) = (row.first + block / SCALES * row.height, block % SCALES);
        // SAFETY: places within the tile's superblock, which is within the memory.
        unsafe {
            let values = self.values.add(at * SUPERBLOCK);
            let place = |i: usize| values.add(row.element::<SUPERBLOCK, PAIRED>(i));
            if row.is_paired {
                for (i, eight) in from.values.as_chunks::<PAIRED>().0.iter().enumerate() {
                    let to = place(block * BLOCK + i * PAIRED);
                    to.cast::<[i8; PAIRED]>().write(*eight);
                }
            } else {
                let to = place(block * BLOCK);
                to.cast::<[i8; BLOCK]>().write(from.values);
            }
            let scale = self.scales.add(at * SCALES);
            *scale.add(row.element::<SCALES, 1>(block)) = self.factor * from.scale;
            let sums = self.sums.add(at * RUNS);
            let sum = |run: usize| sums.add(row.element::<RUNS, 1>(run));
            let all = from.sums[0] + from.sums[1];
            if self.scheme.minima {
                *sum(block) = 0;
                *sum(SCALES + block) = scaled_sum(all, self.factor * from.scale);
            } else if self.scheme.run == BLOCK {
                *sum(block) = -self.scheme.zero * all;
            } else {
                *sum(2 * block) = -self.scheme.zero * from.sums[0];
                *sum(2 * block + 1) = -self.scheme.zero * from.sums[1];
            }
        }
    }

    /// Clears the superblock in which rows end, unless they fill it.
    fn clear_end(&self) {
        if self.width.is_multiple_of(SUPERBLOCK) {
            return;
        }
        let height = self.n.next_multiple_of(self.tile);
        let at = self.width / SUPERBLOCK * height;
        // SAFETY: the last superblock of all rows. Nobody else accesses it: the rows are new.
        unsafe {
            self.values
                .add(at * SUPERBLOCK)
                .write_bytes(0, height * SUPERBLOCK);
            self.scales.add(at * SCALES).write_bytes(0, height * SCALES);
            self.sums.add(at * RUNS).write_bytes(0, height * RUNS);
        }
    }

    /// Subtracts minima from `out: [rows][lanes]`, the sums of the tile that begins at `row` in a
    /// superblock, for a fine scheme: for each run, the minimum times the sum of the activations.
    ///
    /// # Safety
    /// All pieces are quantized and nobody writes them meanwhile.
    pub(super) unsafe fn subtract_minima<const LANES: usize>(
        &self,
        (row, n): (usize, usize),
        superblock: usize,
        minima: &[f32],
        out: &mut [f32],
    ) {
        let (_, _, sums) = self.tile(row, superblock);
        let (minima, _) = minima.as_chunks::<LANES>();
        let (out, _) = out.as_chunks_mut::<LANES>();
        let first = self.row_place(row);
        vectorized(|| {
            for (r, out) in out.iter_mut().enumerate().take(n) {
                let is_paired = first.is_paired && (row + r) | 1 < self.n;
                let place = RowPlace {
                    row: r,
                    is_paired,
                    ..first
                };
                let mut total = *out;
                for (run, minima) in minima.iter().enumerate().take(SCALES) {
                    let at = place.element::<RUNS, 1>(SCALES + run);
                    // SAFETY: the row is one of the tile's, which has this many sums.
                    let sum = f32::from_bits(unsafe { *sums.add(at) }.cast_unsigned());
                    for (total, min) in total.iter_mut().zip(minima) {
                        *total = (-sum).mul_add(*min, *total);
                    }
                }
                *out = total;
            }
        });
    }

    /// Index of the first row of the tile that begins at `row` in a superblock, counted over all
    /// superblocks.
    fn first_of_tile(&self, row: usize, superblock: usize) -> usize {
        superblock * self.n.next_multiple_of(self.tile) + row
    }

    /// Index, within its tile, of element `i` of a row's `LEN`, if pairs are interleaved in
    /// `PART`s.
    fn place<const LEN: usize, const PART: usize>(&self, row: usize, i: usize) -> usize {
        self.row_place(row).element::<LEN, PART>(i)
    }

    /// Where a row is.
    fn row_place(&self, row: usize) -> RowPlace {
        let in_tile = row % self.tile;
        RowPlace {
            first: row - in_tile,
            height: self.n.next_multiple_of(self.tile),
            row: in_tile,
            is_paired: self.layout == PanelLayout::RowPairs && row | 1 < self.n,
        }
    }

    /// Values, scales and sums of the tile that begins at `row`, in one superblock.
    pub(super) fn tile(
        &self,
        row: usize,
        superblock: usize,
    ) -> (*const i8, *const f32, *const i32) {
        assert!(
            row.is_multiple_of(self.tile) && row < self.n && superblock * SUPERBLOCK < self.width
        );
        let at = self.first_of_tile(row, superblock);
        // SAFETY: the row and the superblock exist (just asserted).
        unsafe {
            (
                self.values.add(at * SUPERBLOCK),
                self.scales.add(at * SCALES),
                self.sums.add(at * RUNS),
            )
        }
    }
}

/// The place of a row.
#[derive(Clone, Copy)]
struct RowPlace {
    /// The first row of its tile.
    first: usize,
    /// Rows of a superblock, with those that fill the last tile.
    height: usize,
    /// Index in its tile.
    row: usize,
    /// Whether it is interleaved with another row.
    is_paired: bool,
}

impl RowPlace {
    /// Index, within its tile, of element `i` of `LEN`, if pairs are interleaved in `PART`s.
    #[inline(always)]
    fn element<const LEN: usize, const PART: usize>(&self, i: usize) -> usize {
        let row = self.row;
        if self.is_paired {
            row / 2 * 2 * LEN + (i / PART * 2 + row % 2) * PART + i % PART
        } else {
            row * LEN + i
        }
    }
}

/// Interleaves two consecutive rows.
fn pair<T: Copy, const N: usize>(rows: &mut [[T; N]; 2]) {
    let [first, second] = *rows;
    let (pairs, _) = rows.as_flattened_mut().as_chunks_mut();
    for ((to, first), second) in pairs.iter_mut().zip(first).zip(second) {
        *to = [first, second];
    }
}

/// A sum of activations times their scale, as the bits of an f32.
#[inline(always)]
fn scaled_sum(sum: i32, scale: f32) -> i32 {
    (sum as f32 * scale).to_bits().cast_signed()
}

/// A block of a row, quantized.
pub(super) struct QuantizedBlock {
    pub values: [i8; BLOCK],
    pub scale: f32,
    /// Sums of each half.
    pub sums: [i32; 2],
}

impl QuantizedBlock {
    /// The reference implementation.
    #[inline(always)]
    pub fn new(x: &[f32; BLOCK]) -> Self {
        let mut values = [0; BLOCK];
        let scale = quantize_block(x, &mut values);
        let (halves, _) = values.as_chunks::<{ BLOCK / 2 }>();
        let sum = |half: &[i8; BLOCK / 2]| half.iter().map(|v| i32::from(*v)).sum();
        Self {
            values,
            scale,
            sums: [sum(&halves[0]), sum(&halves[1])],
        }
    }
}

/// A superblock of a row, quantized.
pub(super) struct Quantized<'a> {
    pub values: &'a mut [i8; SUPERBLOCK],
    pub scales: &'a mut [f32; SCALES],
    pub sums: &'a mut [i32; RUNS],
}

impl Quantized<'_> {
    fn quantize(&mut self, x: &[f32; SUPERBLOCK], scheme: QuantScheme) {
        #[cfg(target_arch = "x86_64")]
        if crate::Cpu::chosen() >= crate::Cpu::Avx512 {
            // SAFETY: a chosen set is available, and on x86-64 all sets from AVX-512 on include it.
            return unsafe { super::activations_avx512::fill(self, x, scheme) };
        }
        vectorized(|| self.fill(x, scheme));
    }

    /// Multiplies the sums of runs, stored for schemes with minima, by the scales of a fine scheme.
    fn scale_sums(&mut self) {
        let sums = *self.sums;
        *self.sums = std::array::from_fn(|i| match i.checked_sub(SCALES) {
            None => 0,
            Some(run) => {
                let sum = i32::from((sums[run / 2] >> (16 * (run % 2))) as i16);
                scaled_sum(sum, self.scales[run])
            }
        });
    }

    /// Splits the sums of runs, stored for schemes with minima, into two bf16 each: 13 bits with a
    /// sign do not fit in one.
    fn split_sums(&mut self) {
        let sums = *self.sums;
        *self.sums = std::array::from_fn(|run| {
            if run >= SUPERBLOCK / 32 {
                return 0;
            }
            let sum = i32::from((sums[run / 2] >> (16 * (run % 2))) as i16);
            // Numbers with this few bits have zeros in the lower half of their f32.
            let [low, high] = [sum & 15, sum & !15].map(|part| (part as f32).to_bits() as i32);
            high | (low >> 16)
        });
    }

    /// The reference implementation.
    #[inline(always)]
    pub fn fill(&mut self, x: &[f32; SUPERBLOCK], scheme: QuantScheme) {
        if scheme.fine {
            let (x, _) = x.as_chunks::<32>();
            let (values, _) = self.values.as_chunks_mut::<32>();
            for ((x, values), scale) in x.iter().zip(values).zip(&mut *self.scales) {
                *scale = quantize_block(x, values);
            }
        } else {
            *self.scales = [quantize_block(x, self.values); SCALES];
        }
        let mut runs = [0; RUNS];
        let (halves, _) = self.values.as_chunks::<16>();
        for (sum, values) in runs.iter_mut().zip(halves) {
            *sum = values.iter().map(|v| i32::from(*v)).sum();
        }
        if scheme.run == 32 {
            runs = std::array::from_fn(|i| match i {
                0..8 => runs[2 * i] + runs[2 * i + 1],
                _ => 0,
            });
        }
        if scheme.minima {
            for i in 0..4 {
                self.sums[i] = (runs[2 * i] & 0xffff) | (runs[2 * i + 1] << 16);
            }
        } else {
            *self.sums = runs.map(|sum| -scheme.zero * sum);
        }
    }
}
