//! What the products in f32 and in bf16 share: `x` packed for all threads, then task by task sums of
//! the outputs of a panel.
//!
//! ```text
//! x in the weights' type, in blocks of inputs               [blocks][n / 8][depth][8]
//! for some rows and each panel of 48 outputs, in parallel:
//!     for each block of inputs:
//!         c [rows, 48] += x block * W panel                 W's part stays in the first-level cache
//!     bias, activation, out
//! ```

use std::any::Any;
use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::tile::{Buffer, Element, LANES, ROWS, Start, Tile, WIDTH};
use crate::vectorized;

/// Inputs of a block: with 48 outputs they are 48 kB.
pub(crate) const fn depth<E>() -> usize {
    1024 / size_of::<E>()
}

/// Rows of `x` in the order in which tiles walk them; what is added to fill panels is zero.
pub(crate) struct Activations<E> {
    /// Rows, with those added.
    pub rows: usize,
    /// Inputs, with those added.
    pub n_in: usize,
    data: Buffer<E>,
}

impl<E: Element> Activations<E> {
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
                let placed = rows.chunks_exact_mut(depth);
                for (row, x) in placed.zip(x.rows()) {
                    let x = x.to_slice().expect("rows are contiguous");
                    kernels.narrow(&x[inputs.clone()], 1.0, &mut row[..inputs.len()]);
                }
                rows[x.nrows() * depth..].fill(E::default());
                interleave(rows, panel);
            };
            panels
                .zip(x.axis_chunks_iter(Axis(0), ROWS))
                .for_each_init(|| vec![E::default(); ROWS * depth], pack);
        }
    }

    /// `x W^T` of some rows from `row` on and a panel `[n_in / GROUP][width][GROUP]`, into `sums`.
    pub(crate) fn multiply<K: Tile<Element = E>>(
        &self,
        kernels: K,
        row: usize,
        panel: &[E],
        width: usize,
        sums: &mut [f32],
    ) {
        let rows = sums.len() / width;
        let blocks = self.data.chunks(depth::<E>() * self.rows);
        for (i, (x, w)) in blocks.zip(panel.chunks(depth::<E>() * width)).enumerate() {
            let depth = w.len() / width;
            let x = &x[row * depth..][..rows * depth];
            let start = if i == 0 { Start::Zero } else { Start::Add };
            kernels.multiply(x, w, width, start, sums);
        }
    }
}

/// `rows: [ROWS, depth]` to `panel: [depth / GROUP][ROWS][GROUP]`.
fn interleave<E: Element>(rows: &[E], panel: &mut [E]) {
    let depth = rows.len() / ROWS;
    vectorized(|| {
        let rows: [&[E]; ROWS] = std::array::from_fn(|r| &rows[r * depth..][..depth]);
        for (step, groups) in panel.chunks_exact_mut(ROWS * E::GROUP).enumerate() {
            for (group, row) in groups.chunks_exact_mut(E::GROUP).zip(rows) {
                group.copy_from_slice(&row[step * E::GROUP..][..E::GROUP]);
            }
        }
    });
}

/// Lends `f` the packed `x`, in memory that this thread keeps for its next product.
pub(crate) fn with_packed<K: Tile>(
    kernels: K,
    x: &ArrayView2<f32>,
    f: impl FnOnce(&Activations<K::Element>),
) {
    thread_local! {
        static KEPT: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    // Taken, not borrowed: while this thread waits for the others it may begin another product.
    let kept = KEPT.take().and_then(|kept| kept.downcast().ok());
    let mut packed = kept.unwrap_or_else(|| {
        Box::new(Activations::<K::Element> {
            rows: 0,
            n_in: 0,
            data: Buffer::zeros(0),
        })
    });
    packed.pack(kernels, x);
    f(&packed);
    KEPT.set(Some(packed));
}

/// Columns of the panel that begins at output `column`, with those added.
pub(crate) fn panel_width(column: usize, n_out: usize) -> usize {
    WIDTH.min((n_out - column).next_multiple_of(LANES))
}

/// `out` cut into chunks of rows and panels of columns: first row, first column, part. The panels of
/// a chunk follow each other, so that a thread finds its rows in the cache.
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
