//! Activations, quantized to int8 for one shape of weights.
#![allow(unsafe_code)]

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::kernel::{PanelLayout, QuantizedKernel};
use super::{QuantScheme, SUPER};
use crate::{quantize::quantize_block, tile::Buffer, vectorized};

/// Runs of a superblock at most: numbers for each that a kernel may need.
pub const RUNS: usize = 16;
/// Scales of a superblock at most.
pub const SCALES: usize = 8;
/// Values of a row that lie side by side with those of another, for a kernel that computes in pairs.
const PAIRED: usize = 8;
/// Bytes of a row's superblock: values, scales and sums.
const BYTES: usize = SUPER + 4 * SCALES + 4 * RUNS;

/// Rows of numbers in int8, in the order in which a kernel walks them.
///
/// A number is `scale * value` with `value` in -127..=127, the nearest one, and `scale` the largest
/// absolute value of its 256 numbers, or of its 32 where the shape is [fine](QuantScheme::fine), divided by 127.
/// Rows are filled up with zeros to whole superblocks.
#[derive(Default)]
pub struct OwnedQuantizedActivations {
    memory: Buffer<f32>,
    layout: Option<QuantizedActivations>,
}

impl OwnedQuantizedActivations {
    /// Rows of `x: [n, width]`, contiguous, in place of those that were here before, for the shape that is the
    /// [kernel's](QuantizedKernel::activation_scheme).
    ///
    /// # Panics
    /// If they are not contiguous.
    pub fn quantize(&mut self, x: &ArrayView2<f32>, scheme: QuantScheme, kernel: &QuantizedKernel) {
        let (n, width) = x.dim();
        let bytes = QuantizedActivations::bytes(n, width, kernel);
        self.memory.resize(bytes.div_ceil(4));
        // SAFETY: so many bytes were just made room for, they are ours alone, and they stay in place for
        // as long as `layout` does: until the next time.
        let rows = unsafe {
            QuantizedActivations::new(self.memory.as_mut_ptr().cast(), n, width, scheme, kernel)
        };
        self.layout = Some(rows);
        let x = x.as_slice().expect("rows are contiguous");
        (0..rows.pieces()).into_par_iter().for_each(|piece| {
            // SAFETY: each piece is written once, and nobody reads meanwhile.
            unsafe { rows.quantize(x, piece) }
        });
    }

    /// To multiply by, as long as these rows are not replaced.
    pub(super) fn shared(&self) -> QuantizedActivations {
        self.layout.expect("rows have been quantized")
    }

    /// Row `i` as numbers again.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn to_f32(&self, i: usize) -> Vec<f32> {
        let rows = self.shared();
        assert!(i < rows.n, "row {i} of {}", rows.n);
        let number = |k: usize| {
            let within = k % SUPER;
            let scale = if rows.scheme.fine {
                within / rows.scheme.run
            } else {
                0
            };
            let (values, scales, _) = rows.tile(i / rows.tile * rows.tile, k / SUPER);
            let (value, scale) = (
                rows.place::<SUPER, PAIRED>(i, within),
                rows.place::<SCALES, 1>(i, scale),
            );
            // SAFETY: the row and the superblock are there, and nobody writes.
            unsafe { f32::from(*values.add(value)) * *scales.add(scale) }
        };
        (0..rows.width).map(number).collect()
    }
}

/// Where such rows lie, for several threads that write them and, when all have, read them.
///
/// For each superblock tiles of as many rows as the kernel takes lie one after the other, as a panel meets
/// them. Where it
/// computes [in pairs](PanelLayout::Pairs), `[tile][LEN]` below is `[tile / 2][LEN / part][2][part]`, but for a
/// last row without a second.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedActivations {
    n: usize,
    width: usize,
    scheme: QuantScheme,
    /// What numbers are multiplied by as they are quantized.
    factor: f32,
    /// Rows of a tile.
    tile: usize,
    /// How they lie.
    layout: PanelLayout,
    /// `[superblocks][tiles][tile][SUPER]`, parts of eight
    values: *mut i8,
    /// `[superblocks][tiles][tile][SCALES]`, parts of one; only the first counts where the shape is not
    /// fine.
    scales: *mut f32,
    /// With what the sums of a run begin: less `zero` times its values. With minima instead the sums of
    /// runs, two neighbours of 16 bits in one number; for [`PanelLayout::Tiles`] each in two of bf16.
    /// `[superblocks][tiles][tile][RUNS]`, parts of one
    sums: *mut i32,
}

// SAFETY: the functions that touch the memory are unsafe and say who may do it when.
unsafe impl Send for QuantizedActivations {}
// SAFETY: as above.
unsafe impl Sync for QuantizedActivations {}

impl QuantizedActivations {
    /// Bytes of memory that rows `[n, width]` take for a kernel.
    pub fn bytes(n: usize, width: usize, kernel: &QuantizedKernel) -> usize {
        n.next_multiple_of(kernel.for_rows(n).rows) * width.div_ceil(SUPER) * BYTES
    }

    /// Rows `[n, width]` that lie at `memory`, for the shape that is the [kernel's](QuantizedKernel::activation_scheme).
    ///
    /// # Safety
    /// - There are [`Self::bytes`], aligned to 4 bytes, initialized.
    /// - They stay there as long as this and its copies are used.
    pub unsafe fn new(
        memory: *mut u8,
        n: usize,
        width: usize,
        scheme: QuantScheme,
        kernel: &QuantizedKernel,
    ) -> Self {
        let kernel = kernel.for_rows(n);
        let count = n.next_multiple_of(kernel.rows) * width.div_ceil(SUPER);
        // SAFETY: within the bytes that the caller vouches for.
        let (scales, sums) = unsafe {
            let scales = memory.add(count * SUPER);
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

    /// The same, for rows that are multiplied by a number as they are quantized.
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

    /// For which weights they are quantized.
    pub fn scheme(&self) -> QuantScheme {
        self.scheme
    }

    /// Rows of a tile.
    pub(super) fn tile_rows(&self) -> usize {
        self.tile
    }

    /// Pieces that can be quantized independently: superblocks of tiles.
    pub fn pieces(&self) -> usize {
        self.n.div_ceil(self.tile) * self.width.div_ceil(SUPER)
    }

    /// Quantizes a piece of rows `x: [n, width]`.
    ///
    /// # Safety
    /// Nobody else writes this piece or reads meanwhile.
    ///
    /// # Panics
    /// If there is no such piece, or `x` has another size.
    pub unsafe fn quantize(&self, x: &[f32], piece: usize) {
        assert!(piece < self.pieces() && x.len() == self.n * self.width);
        let superblocks = self.width.div_ceil(SUPER);
        let (row, from) = (piece / superblocks * self.tile, piece % superblocks * SUPER);
        let to = self.width.min(from + SUPER);
        let n = self.tile.min(self.n - row);
        let rows = x.chunks_exact(self.width).skip(row).take(n);
        let first = self.first_of_tile(row, from / SUPER);
        for (i, x) in rows.enumerate() {
            let at = first + i;
            // SAFETY: the piece and the row are within the memory that `new`'s caller vouches for, and
            // this caller that nobody else has it. The arrays have no alignment beyond their elements'.
            let mut row = unsafe {
                Quantized {
                    values: &mut *self.values.add(at * SUPER).cast(),
                    scales: &mut *self.scales.add(at * SCALES).cast(),
                    sums: &mut *self.sums.add(at * RUNS).cast(),
                }
            };
            let mut padded = [0.0; SUPER];
            let x = &x[from..to];
            let x = x.try_into().unwrap_or_else(|_| {
                padded[..x.len()].copy_from_slice(x);
                &padded
            });
            row.quantize(x, self.scheme);
            if self.layout == PanelLayout::Tiles && self.scheme.minima {
                row.split_sums();
            }
            for scale in row.scales {
                *scale *= self.factor;
            }
        }
        if self.layout == PanelLayout::Pairs {
            for at in (first..first + n / 2 * 2).step_by(2) {
                // SAFETY: as above, two rows each.
                unsafe {
                    let values = self.values.add(at * SUPER);
                    pair::<[i8; PAIRED], { SUPER / PAIRED }>(&mut *values.cast());
                    pair::<f32, SCALES>(&mut *self.scales.add(at * SCALES).cast());
                    pair::<i32, RUNS>(&mut *self.sums.add(at * RUNS).cast());
                }
            }
        }
    }

    /// The first row of the tile that begins with row `row`, in one superblock, among all of all superblocks.
    fn first_of_tile(&self, row: usize, superblock: usize) -> usize {
        superblock * self.n.next_multiple_of(self.tile) + row
    }

    /// Where the `i`th of a row's `LEN` numbers lies in its tile, if pairs are made of `PART`s.
    fn place<const LEN: usize, const PART: usize>(&self, row: usize, i: usize) -> usize {
        let has_second = row | 1 < self.n;
        let row = row % self.tile;
        if self.layout == PanelLayout::Pairs && has_second {
            row / 2 * 2 * LEN + (i / PART * 2 + row % 2) * PART + i % PART
        } else {
            row * LEN + i
        }
    }

    /// Values, scales and sums of the tile that begins with a row, in one superblock.
    pub(super) fn tile(
        &self,
        row: usize,
        superblock: usize,
    ) -> (*const i8, *const f32, *const i32) {
        assert!(row.is_multiple_of(self.tile) && row < self.n && superblock * SUPER < self.width);
        let at = self.first_of_tile(row, superblock);
        // SAFETY: the row and the superblock are there (just asserted).
        unsafe {
            (
                self.values.add(at * SUPER),
                self.scales.add(at * SCALES),
                self.sums.add(at * RUNS),
            )
        }
    }
}

/// Two rows, one behind the other, to numbers of both side by side.
fn pair<T: Copy, const N: usize>(rows: &mut [[T; N]; 2]) {
    let [first, second] = *rows;
    let (pairs, _) = rows.as_flattened_mut().as_chunks_mut();
    for ((to, first), second) in pairs.iter_mut().zip(first).zip(second) {
        *to = [first, second];
    }
}

/// A superblock of a row, and what of it is in integers.
pub(super) struct Quantized<'a> {
    pub values: &'a mut [i8; SUPER],
    pub scales: &'a mut [f32; SCALES],
    pub sums: &'a mut [i32; RUNS],
}

impl Quantized<'_> {
    fn quantize(&mut self, x: &[f32; SUPER], scheme: QuantScheme) {
        #[cfg(target_arch = "x86_64")]
        if crate::Cpu::chosen() >= crate::Cpu::Avx512 {
            // SAFETY: what is chosen was found, and on x86-64 only sets with AVX-512 are that wide.
            return unsafe { super::activations_avx512::fill(self, x, scheme) };
        }
        vectorized(|| self.fill(x, scheme));
    }

    /// Sums of runs, as they are beside minima, to two numbers in bf16 each: 13 bits with a sign do not fit in one.
    fn split_sums(&mut self) {
        let sums = *self.sums;
        *self.sums = std::array::from_fn(|run| {
            if run >= SUPER / 32 {
                return 0;
            }
            let sum = i32::from((sums[run / 2] >> (16 * (run % 2))) as i16);
            // Floats of so few bits have zeros in their lower half.
            let [low, high] = [sum & 15, sum & !15].map(|part| (part as f32).to_bits() as i32);
            high | (low >> 16)
        });
    }

    /// The definition.
    #[inline(always)]
    pub fn fill(&mut self, x: &[f32; SUPER], scheme: QuantScheme) {
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
