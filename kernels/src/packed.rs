//! What the f32 and the bf16 matmul share: `x` is packed once for all threads; then each task
//! computes the sums of one panel of outputs.
//!
//! ```text
//! x in the weights' type, in blocks of inputs               [blocks][n / 8][depth][8]
//! for some rows and each panel of 48 outputs, in parallel:
//!     for each block of inputs:
//!         c [rows, 48] += x block * W panel                 W's part stays in the L2 cache
//!     bias, activation, store in out
//! ```

use std::any::Any;
use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::epilogue::{Epilogue, finish};
use crate::tile::{Buffer, Element, LANES, ROWS, Start, Tile, WIDTH, prefetch, split_rows};

/// Inputs per block. With 48 outputs a block of weights is 192 kB, which fits the L2 cache. Blocks
/// that fit L1 would be read from L2 just as often, and need more passes over the sums.
pub(crate) const fn depth<E>() -> usize {
    4096 / size_of::<E>()
}

/// Rows of `x` in the order in which tiles read them, padded with zeros to whole panels.
pub(crate) struct PackedInput<E> {
    /// Rows, with padding.
    pub rows: usize,
    /// Inputs, with padding.
    pub n_in: usize,
    data: Buffer<E>,
}

impl<E: Element> PackedInput<E> {
    /// Bytes for `x: [n, n_in]`.
    pub(crate) fn bytes(n: usize, n_in: usize) -> usize {
        Buffer::<E>::bytes(n.next_multiple_of(ROWS) * n_in.next_multiple_of(E::GROUP))
    }

    /// Packs `x` on all threads.
    fn pack<K: Tile<Element = E>>(&mut self, kernels: K, x: &ArrayView2<f32>) {
        self.rows = x.nrows().next_multiple_of(ROWS);
        self.n_in = x.ncols().next_multiple_of(E::GROUP);
        self.data.resize(self.rows * self.n_in);
        if self.data.is_empty() {
            return;
        }
        let rows = self.rows;
        for (i, block) in self.data.chunks_mut(depth::<E>() * rows).enumerate() {
            let inputs = i * depth::<E>()..x.ncols().min((i + 1) * depth::<E>());
            let depth = block.len() / rows;
            let panels = block.par_chunks_mut(ROWS * depth);
            let pack = |rows: &mut Vec<E>, (panel, x): (&mut [E], ArrayView2<f32>)| {
                let row =
                    |r| &x.row(r).to_slice().expect("rows must be contiguous")[inputs.clone()];
                if x.nrows() == ROWS && E::borrow_f32(row(0)).is_some() {
                    let rows = std::array::from_fn(|r| {
                        E::borrow_f32(row(r)).expect("the element type is f32")
                    });
                    return kernels.transpose(rows, ROWS, panel);
                }
                for (r, placed) in rows.chunks_exact_mut(depth).enumerate().take(x.nrows()) {
                    kernels.convert(row(r), 1.0, &mut placed[..inputs.len()]);
                }
                rows[x.nrows() * depth..].fill(E::default());
                kernels.transpose(split_rows(rows), ROWS, panel);
            };
            panels
                .zip(x.axis_chunks_iter(Axis(0), ROWS))
                .for_each_init(|| vec![E::default(); ROWS * depth], pack);
        }
    }

    /// Computes `epilogue(x W^T + bias)` for the rows of `out`, which start at `row`, and a panel
    /// `[n_in / GROUP][width][GROUP]`. `sums` has room for `[rows, width]`.
    pub(crate) fn multiply<K: Tile<Element = E>>(
        &self,
        kernels: K,
        row: usize,
        (panel, width): (&[E], usize),
        sums: &mut [f32],
        (bias, epilogue): (Option<&[f32]>, Epilogue),
        out: &mut ArrayViewMut2<f32>,
    ) {
        let sums = &mut sums[..out.nrows().next_multiple_of(ROWS) * width];
        let rows = sums.len() / width;
        let blocks = self.data.chunks(depth::<E>() * self.rows);
        let n_blocks = blocks.len();
        for (i, (x, w)) in blocks.zip(panel.chunks(depth::<E>() * width)).enumerate() {
            let depth = w.len() / width;
            let x = &x[row * depth..][..rows * depth];
            let start = if i == 0 { Start::Zero } else { Start::Add };
            if i + 1 < n_blocks {
                kernels.multiply(x, w, width, start, sums);
                continue;
            }
            // Panel by panel: the epilogue runs while the sums are in the L1 cache, and `out` is
            // prefetched during the multiplication.
            let panels = x
                .chunks_exact(ROWS * depth)
                .zip(sums.chunks_exact_mut(ROWS * width));
            for ((x, sums), mut out) in panels.zip(out.axis_chunks_iter_mut(Axis(0), ROWS)) {
                for row in out.rows().into_iter().filter(|_| epilogue == Epilogue::Add) {
                    prefetch(row.to_slice().expect("rows must be contiguous"));
                }
                kernels.multiply(x, w, width, start, sums);
                let sums = &mut sums[..out.nrows() * width];
                finish(sums, width, bias, epilogue, &mut out);
            }
        }
    }
}

/// Calls `f` with the packed `x`. This thread keeps the memory for its next matmul.
pub(crate) fn with_packed<K: Tile>(
    kernels: K,
    x: &ArrayView2<f32>,
    f: impl FnOnce(&PackedInput<K::Element>),
) {
    thread_local! {
        static KEPT: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    // Taken, not borrowed: while this thread waits for the others, it may begin another matmul.
    let kept = KEPT.take().and_then(|kept| kept.downcast().ok());
    let mut packed = kept.unwrap_or_else(|| {
        Box::new(PackedInput::<K::Element> {
            rows: 0,
            n_in: 0,
            data: Buffer::zeros(0),
        })
    });
    packed.pack(kernels, x);
    f(&packed);
    KEPT.set(Some(packed));
}

/// Width of the panel that begins at output `column`, with padding.
pub(crate) fn panel_width(column: usize, n_out: usize) -> usize {
    WIDTH.min((n_out - column).next_multiple_of(LANES))
}

/// Splits `out` into chunks of rows and panels of columns: (first row, first column, part). The
/// panels of a chunk are consecutive, so that a thread finds its rows in the cache.
pub(crate) fn tasks(
    mut out: ArrayViewMut2<f32>,
    chunk: usize,
) -> Vec<(usize, usize, ArrayViewMut2<f32>)> {
    let mut tasks = Vec::new();
    let (n, n_out) = out.dim();
    for row in (0..n).step_by(chunk) {
        let (mut rows, below) = out.split_at(Axis(0), chunk.min(n - row));
        for column in (0..n_out).step_by(WIDTH) {
            let (part, right) = rows.split_at(Axis(1), WIDTH.min(n_out - column));
            tasks.push((row, column, part));
            rows = right;
        }
        out = below;
    }
    tasks
}
