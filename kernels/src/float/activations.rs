//! Activations, converted and packed for the 16-bit matmul.
#![allow(unsafe_code)]

use super::depth;
use super::kernel::{FloatKernel, with_tile};
use crate::tile::{Element, ROWS, Tile, split_rows};

/// Most rows for which the GEMV is used.
pub const MAX_GEMV_ROWS: usize = 8;
/// Inputs that are packed at a time, in the L1 cache.
const STEP: usize = 256;

/// A pointer to activations `[n, width]`: several threads write them, and read them once all are
/// written.
///
/// For the GEMV they are f32 `[n, width]`. Otherwise they are panels of eight rows, one block of
/// inputs after the other, in the kernel's type: `[blocks][n / 8][depth / GROUP][8][GROUP]`, padded
/// with zeros.
#[derive(Clone, Copy, Debug)]
pub struct FloatActivations {
    n: usize,
    width: usize,
    /// Factor applied while packing.
    factor: f32,
    kernel: FloatKernel,
    /// Whether they are for the GEMV.
    for_gemv: bool,
    memory: *mut u8,
}

// SAFETY: all functions that access the memory are unsafe and state what the caller must guarantee.
unsafe impl Send for FloatActivations {}
// SAFETY: as above.
unsafe impl Sync for FloatActivations {}

impl FloatActivations {
    /// Bytes that activations `[n, width]` take for `kernel`.
    pub fn bytes(n: usize, width: usize, kernel: FloatKernel) -> usize {
        if n <= MAX_GEMV_ROWS {
            n * width * size_of::<f32>()
        } else {
            Self::packed_bytes(n, width, kernel)
        }
    }

    /// The same without the GEMV.
    pub(crate) fn packed_bytes(n: usize, width: usize, kernel: FloatKernel) -> usize {
        fn bytes<K: Tile>(_: K, n: usize, width: usize) -> usize {
            let width = width.next_multiple_of(K::Element::GROUP);
            n.next_multiple_of(ROWS) * width * size_of::<K::Element>()
        }
        with_tile!(kernel.tile, |tile| bytes(tile, n, width))
    }

    /// Activations `[n, width]` at `memory`.
    ///
    /// # Safety
    /// `memory` points to [`Self::bytes`] initialized bytes, aligned to 4, which stay valid as long
    /// as this value and its copies are used.
    pub unsafe fn new(memory: *mut u8, n: usize, width: usize, kernel: FloatKernel) -> Self {
        Self {
            n,
            width,
            factor: 1.0,
            kernel,
            for_gemv: n <= MAX_GEMV_ROWS,
            memory,
        }
    }

    /// The same place for activations that are not for the GEMV, which takes
    /// [`Self::packed_bytes`].
    pub(super) fn without_gemv(self) -> Self {
        Self {
            for_gemv: false,
            ..self
        }
    }

    /// The same place for activations that [`Self::pack`] multiplies by `factor`.
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

    /// The kernel they are packed for.
    pub fn kernel(&self) -> FloatKernel {
        self.kernel
    }

    /// Whether they are for the GEMV.
    pub(super) fn use_gemv(&self) -> bool {
        self.for_gemv
    }

    /// Number of pieces that can be packed independently: rows for the GEMV, else a block of inputs
    /// of a panel.
    pub fn pieces(&self) -> usize {
        fn blocks<K: Tile>(_: K, width: usize) -> usize {
            width.div_ceil(depth::<K::Element>())
        }
        if self.use_gemv() {
            self.n
        } else {
            self.n.div_ceil(ROWS) * with_tile!(self.kernel.tile, |tile| blocks(tile, self.width))
        }
    }

    /// Packs piece `piece` of `x: [n, width]`.
    ///
    /// # Safety
    /// No other thread writes this piece or reads it meanwhile.
    ///
    /// # Panics
    /// If there is no such piece, or `x` has another size.
    pub unsafe fn pack(&self, x: &[f32], piece: usize) {
        assert!(piece < self.pieces() && x.len() == self.n * self.width);
        if self.use_gemv() {
            let place = piece * self.width;
            // SAFETY: a row within the memory, by the promise of `new`'s caller; no other thread
            // accesses it, by the promise of this one.
            let to = unsafe {
                let to = self.memory.cast::<f32>().add(place);
                std::slice::from_raw_parts_mut(to, self.width)
            };
            for (to, x) in to.iter_mut().zip(&x[place..]) {
                *to = self.factor * x;
            }
            return;
        }
        // SAFETY: the caller's promise.
        with_tile!(self.kernel.tile, |tile| unsafe {
            self.pack_panel(tile, x, piece);
        });
    }

    /// # Safety
    /// As [`Self::pack`].
    unsafe fn pack_panel<K: Tile>(&self, kernels: K, x: &[f32], piece: usize) {
        let panels = self.n.div_ceil(ROWS);
        let (block, row) = (piece / panels, piece % panels * ROWS);
        let first = block * depth::<K::Element>();
        let last = self.width.min(first + depth::<K::Element>());
        let (from, len) = self.place::<K::Element>(row, ROWS, block);
        // SAFETY: a panel within the memory, by the promise of `new`'s caller; no other thread
        // accesses it, by the promise of this one.
        let panel = unsafe {
            let to = self.memory.cast::<K::Element>().add(from);
            std::slice::from_raw_parts_mut(to, len)
        };
        let mut numbers = [K::Element::default(); ROWS * STEP];
        let steps = panel.chunks_mut(ROWS * STEP);
        for (panel, k) in steps.zip((first..last).step_by(STEP)) {
            let (depth, wanted) = (panel.len() / ROWS, k..last.min(k + STEP));
            let numbers = &mut numbers[..ROWS * depth];
            for (r, to) in numbers.chunks_exact_mut(depth).enumerate() {
                let (to, added) = to.split_at_mut(wanted.len());
                match x.chunks_exact(self.width).nth(row + r) {
                    Some(x) => kernels.convert(&x[wanted.clone()], self.factor, to),
                    None => to.fill(K::Element::default()),
                }
                added.fill(K::Element::default());
            }
            kernels.transpose(split_rows(numbers), ROWS, panel);
        }
    }

    /// Offset and length, in elements, of the panels of `n` rows from `row` on in a block of
    /// inputs.
    fn place<E: Element>(&self, row: usize, n: usize, block: usize) -> (usize, usize) {
        let padded = self.width.next_multiple_of(E::GROUP);
        let first = block * depth::<E>();
        let depth = depth::<E>().min(padded - first);
        let from = first * self.n.next_multiple_of(ROWS) + row * depth;
        (from, n.next_multiple_of(ROWS) * depth)
    }

    /// The panels of `n` rows from `row` on, a multiple of eight, in a block of inputs.
    ///
    /// # Safety
    /// All pieces are packed, in `E`, and nobody writes them meanwhile.
    ///
    /// # Panics
    /// If there are no such rows or inputs.
    pub(super) unsafe fn panels<E: Element>(&self, row: usize, n: usize, block: usize) -> &[E] {
        assert!(row.is_multiple_of(ROWS) && row + n <= self.n && block * depth::<E>() < self.width);
        let (from, len) = self.place::<E>(row, n, block);
        // SAFETY: within the memory, as just asserted; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.memory.cast::<E>().add(from), len) }
    }

    /// All rows, f32 `[n, width]`, for the GEMV.
    ///
    /// # Safety
    /// All pieces are packed, and nobody writes them meanwhile.
    pub(super) unsafe fn gemv(&self) -> &[f32] {
        assert!(self.use_gemv());
        // SAFETY: `bytes` counts this many elements; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.memory.cast(), self.n * self.width) }
    }
}
