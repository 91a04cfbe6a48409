//! Activations, in the order and the numbers in which they are multiplied by halves.
#![allow(unsafe_code)]

use super::kernel::{Float16Kernel, with_tile};
use crate::packed::depth;
use crate::tile::{Element, ROWS, Tile, split_rows};

/// Rows at most that are multiplied by weights as they lie.
pub const MAX_GEMV_ROWS: usize = 8;
/// Inputs that are packed at a time, in the first-level cache.
const STEP: usize = 256;

/// Where rows of activations lie, for several threads that write them and, when all have, read them.
///
/// A gemv are f32 `[n, width]`. More are panels of eight rows, for a block of inputs after the other, in the
/// kernel's numbers: `[blocks][n / 8][depth / GROUP][8][GROUP]`, filled up with zeros.
#[derive(Clone, Copy, Debug)]
pub struct Float16Activations {
    n: usize,
    width: usize,
    /// What numbers are multiplied by as they are packed.
    factor: f32,
    kernel: Float16Kernel,
    memory: *mut u8,
}

// SAFETY: the functions that touch the memory are unsafe and say who may do it when.
unsafe impl Send for Float16Activations {}
// SAFETY: as above.
unsafe impl Sync for Float16Activations {}

impl Float16Activations {
    /// Bytes of memory that rows `[n, width]` take for a kernel.
    pub fn bytes(n: usize, width: usize, kernel: Float16Kernel) -> usize {
        fn bytes<K: Tile>(_: K, n: usize, width: usize) -> usize {
            let width = width.next_multiple_of(K::Element::GROUP);
            n.next_multiple_of(ROWS) * width * size_of::<K::Element>()
        }
        if n <= MAX_GEMV_ROWS {
            n * width * size_of::<f32>()
        } else {
            with_tile!(kernel.tile, |tile| bytes(tile, n, width))
        }
    }

    /// Rows `[n, width]` that lie at `memory`.
    ///
    /// # Safety
    /// - There are [`Self::bytes`], aligned to 4 bytes, initialized.
    /// - They stay there as long as this and its copies are used.
    pub unsafe fn new(memory: *mut u8, n: usize, width: usize, kernel: Float16Kernel) -> Self {
        Self {
            n,
            width,
            factor: 1.0,
            kernel,
            memory,
        }
    }

    /// The same, for rows that are multiplied by a number as they are packed.
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

    /// For which kernel.
    pub fn kernel(&self) -> Float16Kernel {
        self.kernel
    }

    /// Whether they are gemv.
    pub(super) fn use_gemv(&self) -> bool {
        self.n <= MAX_GEMV_ROWS
    }

    /// Pieces that can be packed independently: rows of a gemv, else a panel's block of inputs.
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

    /// Packs a piece of rows `x: [n, width]`.
    ///
    /// # Safety
    /// Nobody else writes this piece or reads meanwhile.
    ///
    /// # Panics
    /// If there is no such piece, or `x` has another size.
    pub unsafe fn pack(&self, x: &[f32], piece: usize) {
        assert!(piece < self.pieces() && x.len() == self.n * self.width);
        if self.use_gemv() {
            let place = piece * self.width;
            // SAFETY: a row's place in the memory that `new`'s caller vouches for, and this caller that
            // nobody else has it.
            let to = unsafe {
                let to = self.memory.cast::<f32>().add(place);
                std::slice::from_raw_parts_mut(to, self.width)
            };
            for (to, x) in to.iter_mut().zip(&x[place..]) {
                *to = self.factor * x;
            }
            return;
        }
        // SAFETY: handed on.
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
        // SAFETY: the panel's place in the memory that `new`'s caller vouches for, and this caller that
        // nobody else has it.
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

    /// Where the panels of `n` rows from one on lie in a block of inputs, and how many numbers they are.
    fn place<E: Element>(&self, row: usize, n: usize, block: usize) -> (usize, usize) {
        let padded = self.width.next_multiple_of(E::GROUP);
        let first = block * depth::<E>();
        let depth = depth::<E>().min(padded - first);
        let from = first * self.n.next_multiple_of(ROWS) + row * depth;
        (from, n.next_multiple_of(ROWS) * depth)
    }

    /// The panels of `n` rows from one on, a multiple of eight, in a block of inputs.
    ///
    /// # Safety
    /// All pieces are packed, in `E`, and stay as they are.
    ///
    /// # Panics
    /// If there are no such rows or inputs.
    pub(super) unsafe fn panels<E: Element>(&self, row: usize, n: usize, block: usize) -> &[E] {
        assert!(row.is_multiple_of(ROWS) && row + n <= self.n && block * depth::<E>() < self.width);
        let (from, len) = self.place::<E>(row, n, block);
        // SAFETY: within the memory, as just asserted; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.memory.cast::<E>().add(from), len) }
    }

    /// All rows, `[n, width]`, if they are gemv.
    ///
    /// # Safety
    /// All pieces are packed, and stay as they are.
    pub(super) unsafe fn gemv(&self) -> &[f32] {
        assert!(self.use_gemv());
        // SAFETY: so many numbers are there; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.memory.cast(), self.n * self.width) }
    }
}
