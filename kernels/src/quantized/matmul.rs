//! A quantized matmul, partitioned into tasks that any thread may run.
#![allow(unsafe_code)]

use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use super::activations::MAX_TILE;
use super::kernel::{Panel, PanelLayout, QuantizedGemv, QuantizedKernel, QuantizedTile};
use super::{
    BLOCK, OwnedQuantizedActivations, QuantScheme, QuantizedActivations, QuantizedMatrix, registers,
};
use crate::SharedOutput;
use crate::epilogue::{Destination, Epilogue, Finish};
use crate::partition::{CHUNK, Partition};
use crate::tile::{Buffer, prefetch};

/// Outputs per task: their panels take 22 kB of the L1 cache.
const OUTPUTS: usize = 64;
/// With at most this many rows, weights are multiplied faster than they come from memory. Then a
/// task computes one panel after the other, each from its first superblock to its last, and
/// prefetches the next meanwhile.
const SMALL_BATCH: usize = 12;
/// Outputs of such a task.
const SMALL_BATCH_OUTPUTS: usize = 128;

/// Buffers that a thread keeps for its tasks.
#[derive(Default)]
struct QuantizedScratch {
    panels: Vec<Panel>,
    /// `[panels][rows][lanes]`
    sums: Buffer<f32>,
}

/// Bytes that each thread keeps, for any matrix.
pub(crate) fn scratch_bytes() -> usize {
    let panels = OUTPUTS.max(SMALL_BATCH_OUTPUTS) / 8;
    panels * size_of::<Panel>() + Buffer::<f32>::bytes(CHUNK * OUTPUTS)
}

/// A matrix and the activations that it multiplies.
#[derive(Clone, Copy)]
struct QuantizedTerm<'a> {
    matrix: QuantizedMatrix<'a>,
    rows: QuantizedActivations,
}

impl<'a> QuantizedTerm<'a> {
    fn new(
        matrix: QuantizedMatrix<'a>,
        rows: QuantizedActivations,
        kernel: &QuantizedKernel,
    ) -> Self {
        assert_eq!(
            rows.width(),
            matrix.n_in(),
            "x must be as wide as the matrix's input"
        );
        let scheme = kernel.activation_scheme(matrix.format(), rows.n());
        let fine = matrix.format().scheme().with_fine_activations();
        assert!(
            rows.scheme() == scheme || rows.scheme() == fine,
            "the rows were quantized for another format"
        );
        assert_eq!(
            rows.tile_rows(),
            kernel.rows,
            "the rows were quantized for another kernel"
        );
        Self { matrix, rows }
    }

    /// Whether activations have a scale per 32, unlike in llama.cpp.
    fn is_finer(&self) -> bool {
        self.rows.scheme().fine && !self.matrix.format().scheme().fine
    }
}

/// `rows W^T`, stored in `out`.
#[derive(Clone, Copy)]
pub struct QuantizedMatmul<'a> {
    base: QuantizedTerm<'a>,
    /// A second matmul that is added to it.
    added: Option<QuantizedTerm<'a>>,
    finish: Finish<'a>,
    kernel: &'static QuantizedKernel,
}

impl<'a> QuantizedMatmul<'a> {
    /// The matmul of `rows: [n, n_in]` with `matrix: [n_out, n_in]`, to `out: [n, n_out]`.
    ///
    /// # Panics
    /// If the rows have another width than the matrix, or were quantized for another kernel or
    /// [scheme](QuantizedKernel::activation_scheme).
    pub fn new(
        matrix: QuantizedMatrix<'a>,
        rows: QuantizedActivations,
        out: SharedOutput,
        kernel: &'static QuantizedKernel,
    ) -> Self {
        Self::with_finish(matrix, rows, Finish::store(out), kernel)
    }

    /// The same with other last steps.
    pub(crate) fn with_finish(
        matrix: QuantizedMatrix<'a>,
        rows: QuantizedActivations,
        finish: Finish<'a>,
        kernel: &'static QuantizedKernel,
    ) -> Self {
        let kernel = kernel.for_rows(rows.n());
        Self {
            base: QuantizedTerm::new(matrix, rows, kernel),
            added: None,
            finish,
            kernel,
        }
    }

    /// The same plus `rows matrix^T` of a second matrix, such as an adapter's. It costs its
    /// multiplications, but no further pass over the output.
    ///
    /// # Panics
    /// If the second matmul has another number of rows or outputs, or for the reasons of
    /// [`Self::new`].
    pub fn plus(self, matrix: QuantizedMatrix<'a>, rows: QuantizedActivations) -> Self {
        assert_eq!(
            rows.n(),
            self.base.rows.n(),
            "both inputs must have the same number of rows"
        );
        assert_eq!(
            matrix.n_out(),
            self.n_out(),
            "both matrices must have the same number of outputs"
        );
        Self {
            added: Some(QuantizedTerm::new(matrix, rows, self.kernel)),
            ..self
        }
    }

    fn n(&self) -> usize {
        self.base.rows.n()
    }

    fn n_out(&self) -> usize {
        self.base.matrix.n_out()
    }

    /// Superblocks of both terms, in the order in which they are summed.
    fn steps(&self) -> usize {
        let added = self.added.map_or(0, |part| part.matrix.superblocks());
        self.base.matrix.superblocks() + added
    }

    /// The term that a step belongs to, and the superblock of its matrix.
    fn step(&self, step: usize) -> (&QuantizedTerm<'a>, usize) {
        let superblocks = self.base.matrix.superblocks();
        match &self.added {
            Some(part) if step >= superblocks => (part, step - superblocks),
            _ => (&self.base, step),
        }
    }

    /// Whether a task computes one panel after the other. A block of quantized results takes several
    /// panels.
    fn is_small_batch(&self) -> bool {
        self.n() <= SMALL_BATCH && !self.finish.is_quantized()
    }

    fn partition(&self, n_threads: usize) -> Partition {
        let outputs = match self.kernel.layout {
            // A single panel, because it takes twice the memory.
            PanelLayout::Amx => self.kernel.lanes,
            _ if self.is_small_batch() => SMALL_BATCH_OUTPUTS,
            _ => OUTPUTS,
        };
        let group = outputs.next_multiple_of(self.kernel.lanes);
        Partition::new((self.n(), self.n_out()), group, self.kernel.rows, n_threads)
    }

    /// Number of tasks for `n_threads`. It does not change the result.
    pub fn tasks(&self, n_threads: usize) -> usize {
        self.partition(n_threads).tasks()
    }

    /// Runs task `i` of those for `n_threads`.
    ///
    /// # Safety
    /// - The CPU has the kernel's instructions.
    /// - All pieces of the rows are quantized and nobody writes them meanwhile.
    /// - `out` is valid for writes, and no other thread accesses what this task writes.
    ///
    /// # Panics
    /// If there is no such task.
    pub unsafe fn run(&self, i: usize, n_threads: usize) {
        let (rows, outputs) = self.partition(n_threads).task(i);
        // SAFETY: the caller's promise.
        let _guard = unsafe { registers::prepare(self.kernel) };
        // SAFETY: the caller's promise. Nothing within waits for another task, so the scratch is
        // not borrowed twice.
        SCRATCH.with_borrow_mut(|scratch| unsafe { self.run_with(rows, outputs, scratch) });
    }

    /// `n` rows from `row` on times `n_out` outputs from `output` on.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn run_with(
        &self,
        (row, n): (usize, usize),
        (output, n_out): (usize, usize),
        scratch: &mut QuantizedScratch,
    ) {
        let lanes = self.kernel.lanes;
        // SAFETY: the caller's promise.
        if unsafe { self.run_gemv((row, n), output, n_out) } {
            return;
        }
        let panels = n_out.div_ceil(lanes);
        let rows = n.next_multiple_of(self.kernel.rows);
        if scratch.panels.len() < panels {
            scratch.panels.resize_with(panels, Panel::zeros);
        }
        scratch.sums.resize(panels * rows * lanes);
        let sums = &mut scratch.sums[..];
        // SAFETY: the caller's promise.
        unsafe {
            if self.is_small_batch() {
                for (p, sums) in sums.chunks_exact_mut(rows * lanes).enumerate() {
                    let panel = &mut scratch.panels[..1];
                    self.sum::<true>((row, n), output + p * lanes, panel, sums);
                }
            } else {
                let panels = &mut scratch.panels[..panels];
                self.sum::<false>((row, n), output, panels, sums);
            }
        }
    }

    /// Multiplies rows by `n_out` outputs with the kernel's GEMV, if it has one for this few rows.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn run_gemv(&self, (row, n): (usize, usize), output: usize, n_out: usize) -> bool {
        let QuantizedTerm { matrix, rows } = &self.base;
        let kernel = (self.kernel.gemv)(matrix.format(), self.n());
        let (Some(kernel), None, Some(out), false) = (
            kernel,
            self.added,
            self.finish.plain(),
            self.base.is_finer(),
        ) else {
            return false;
        };
        debug_assert!(n == self.n(), "rows of a GEMV are not split into tasks");
        let (values, scales, sums) = rows.tile(row, 0);
        let operands = QuantizedGemv {
            values,
            scales,
            sums,
            height: n.next_multiple_of(self.kernel.rows),
            superblocks: matrix.superblocks(),
            weights: matrix.bytes[output * matrix.row_bytes..].as_ptr(),
            n_out,
            row_bytes: matrix.row_bytes,
            out: out.at(row, output),
            stride: out.stride(),
        };
        // SAFETY: these are all rows, and those of a superblock are consecutive; the weights are
        // those of `n_out` outputs of the matrix. The rest is the caller's promise.
        unsafe { kernel(&operands) }
        true
    }

    /// Finishes the tile of `n` rows from `row` on: `sums: [panels][height][lanes]` hold its results
    /// from the row `first` on.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn finish(
        &self,
        (row, n): (usize, usize),
        output: usize,
        sums: &mut [f32],
        (first, height): (usize, usize),
    ) {
        let lanes = self.kernel.lanes;
        let panels = sums.chunks_exact_mut(height * lanes).enumerate();
        if self.finish.is_quantized() {
            let mut rows = [[0.0; OUTPUTS]; MAX_TILE];
            for (p, sums) in panels {
                let sums = sums[first * lanes..].chunks_exact(lanes);
                for (to, sums) in rows.iter_mut().zip(sums).take(n) {
                    to[p * lanes..][..lanes].copy_from_slice(sums);
                }
            }
            let width = OUTPUTS.min(self.n_out() - output);
            let rows = &mut rows.as_flattened_mut()[..n * OUTPUTS];
            // SAFETY: a part of the output that this task may write.
            unsafe {
                self.finish
                    .quantize_tile(row, (output, width), rows, OUTPUTS);
            }
            return;
        }
        for (p, sums) in panels {
            let output = output + p * lanes;
            let width = lanes.min(self.n_out() - output);
            let sums = &mut sums[first * lanes..][..n * lanes];
            // SAFETY: a part of the output that this task may write.
            unsafe { self.finish.f32_tile(row, (output, width), sums, lanes) }
        }
    }

    /// Prefetches what the task needs next, a part with each tile of rows: the weights of the next
    /// superblock, which are far apart, and in the last superblock the output, each row of which is
    /// on another page.
    #[inline(always)]
    fn prefetch_next_step(
        &self,
        (row, n): (usize, usize),
        first: usize,
        output: usize,
        n_out: usize,
        step: usize,
    ) {
        let tile_rows = self.kernel.rows;
        let end = self.n_out().min(output + n_out);
        if step + 1 < self.steps() {
            let (next, superblock) = self.step(step + 1);
            let share = n_out.div_ceil(n.div_ceil(tile_rows));
            let from = output + first / tile_rows * share;
            for output in from..end.min(from + share) {
                prefetch(next.matrix.superblock(output, superblock));
            }
        } else {
            for row in row + first..row + n.min(first + tile_rows) {
                self.finish.prefetch(row, output, end - output);
            }
        }
    }

    /// Sums the products of `n` rows from `row` on and the panels from `output` on in `sums:
    /// [panels][n][lanes]`, with `n` rounded up to whole tiles, and stores them while they are in
    /// the L1 cache. With `PREFETCH` there is one panel, and the weights of the next one are
    /// prefetched meanwhile.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn sum<const PREFETCH: bool>(
        &self,
        (row, n): (usize, usize),
        output: usize,
        panels: &mut [Panel],
        sums: &mut [f32],
    ) {
        let (lanes, tile_rows) = (self.kernel.lanes, self.kernel.rows);
        let height = sums.len() / panels.len() / lanes;
        for step in 0..self.steps() {
            let (term, superblock) = self.step(step);
            let QuantizedTerm { matrix, rows } = term;
            let has_minima = term.is_finer() && matrix.format().scheme().minima;
            let (is_first, is_last) = (step == 0, step + 1 == self.steps());
            let share = if PREFETCH {
                matrix.share_of_next(output, lanes, superblock)
            } else {
                &[]
            };
            // A part is prefetched while the panel is unpacked, the rest during the multiplication.
            // Too many prefetches at once fill the queue and stall the arithmetic.
            let (first, rest) = share.split_at(share.len() / 4);
            prefetch(first);
            for (p, panel) in panels.iter_mut().enumerate() {
                // SAFETY: the panel begins within the matrix; the CPU has the instructions, by the
                // caller's promise.
                unsafe { (self.kernel.unpack)(panel, matrix, output + p * lanes, superblock) }
                if has_minima {
                    panel.expand_minima(self.kernel);
                }
            }
            let mut rest = rest.chunks(rest.len().div_ceil(n.div_ceil(tile_rows)).max(1));
            for first in (0..n).step_by(tile_rows) {
                if !PREFETCH {
                    self.prefetch_next_step((row, n), first, output, panels.len() * lanes, step);
                }
                let to_prefetch = rest.next().unwrap_or_default();
                let n_rows = tile_rows.min(n - first);
                let (values, scales, row_sums) = rows.tile(row + first, superblock);
                for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(height * lanes)) {
                    let sums = &mut sums[first * lanes..][..tile_rows * lanes];
                    if is_first {
                        sums.fill(0.0);
                    }
                    let tile = QuantizedTile {
                        values,
                        scales,
                        sums: row_sums,
                        panel,
                        out: sums.as_mut_ptr(),
                        format: matrix.format(),
                        fine: rows.scheme().fine,
                        prefetch: to_prefetch,
                    };
                    // SAFETY: the tile of rows has the length that the kernel takes, by
                    // `QuantizedActivations`, and so has that of sums (just sliced); the CPU has
                    // the instructions, by the caller's promise.
                    unsafe { (self.kernel.tile)(&tile, n_rows) }
                    if has_minima {
                        let (tile, minima) = ((row + first, n_rows), &panel.f32_minima);
                        // SAFETY: the rows are quantized, by the caller's promise.
                        unsafe {
                            match lanes {
                                8 => rows.subtract_minima::<8>(tile, superblock, minima, sums),
                                16 => rows.subtract_minima::<16>(tile, superblock, minima, sums),
                                _ => rows.subtract_minima::<32>(tile, superblock, minima, sums),
                            }
                        }
                    }
                }
                if is_last {
                    // SAFETY: the caller's promise.
                    unsafe { self.finish((row + first, n_rows), output, sums, (first, height)) }
                }
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<QuantizedScratch> = RefCell::default();
}

/// Computes `epilogue(x W^T + bias)` on rayon's current pool and stores it in `out: [n, n_out]`,
/// rows contiguous; `out` may be part of a wider array. `W` consists of `parts`, one below the
/// other, and `x` is in the fine scheme of all of them.
///
/// # Panics
/// If the shapes do not agree.
pub(crate) fn matmul_of_parts(
    x: &OwnedQuantizedActivations,
    parts: &[QuantizedMatrix],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    mut out: ArrayViewMut2<f32>,
) {
    let n_out = parts.iter().map(QuantizedMatrix::n_out).sum::<usize>();
    assert_eq!(
        out.dim(),
        (x.n(), n_out),
        "out must be [rows of x, outputs]"
    );
    let to = SharedOutput::of(&mut out);
    run_parts(x, parts, bias, epilogue, |first| {
        Destination::F32(to.at_column(first))
    });
}

/// The same, with the output quantized for the next matmul, in a fine scheme, while it is in the
/// cache.
///
/// # Panics
/// If the shapes do not agree, `epilogue` is `Add`, or the outputs of a part are not a whole number
/// of blocks.
pub(crate) fn matmul_of_parts_quantized(
    x: &OwnedQuantizedActivations,
    parts: &[QuantizedMatrix],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    scheme: QuantScheme,
    out: &mut OwnedQuantizedActivations,
) {
    assert_ne!(epilogue, Epilogue::Add, "Epilogue::Add needs an f32 output");
    assert!(
        parts.iter().all(|part| part.n_out().is_multiple_of(BLOCK)),
        "the outputs must be whole blocks of {BLOCK}"
    );
    let n_out = parts.iter().map(QuantizedMatrix::n_out).sum();
    let to = out.prepare_for((x.n(), n_out), scheme, x.kernel());
    run_parts(x, parts, bias, epilogue, |first| {
        Destination::Quantized(&to, first)
    });
}

/// Runs the matmuls of all parts; `to` says where the outputs from the given one on go.
fn run_parts<'a>(
    x: &OwnedQuantizedActivations,
    parts: &[QuantizedMatrix],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    to: impl Fn(usize) -> Destination<'a>,
) {
    let n_out = parts.iter().map(QuantizedMatrix::n_out).sum::<usize>();
    assert!(
        bias.is_none_or(|b| b.len() == n_out),
        "bias must have one element per output"
    );
    if x.n() == 0 {
        return;
    }
    let (rows, n_threads) = (x.shared(), rayon::current_num_threads());
    let mut first = 0;
    let mut tasks = Vec::new();
    let mut matmuls = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let bias = bias.map(|bias| &bias[first..first + part.n_out()]);
        let to = to(first);
        let finish = Finish { bias, epilogue, to };
        let matmul = QuantizedMatmul::with_finish(*part, rows, finish, x.kernel());
        tasks.extend((0..matmul.tasks(n_threads)).map(|task| (i, task)));
        matmuls.push(matmul);
        first += part.n_out();
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(i, task)| {
        // SAFETY: the CPU has the kernel's instructions: it quantized for it. The rows are quantized and borrowed until the end; the
        // output is borrowed mutably by the caller and has the shape of the result; each task
        // runs once.
        unsafe { matmuls[i].run(task, n_threads) }
    });
}

/// Computes `out = x W^T` with `kernel` on rayon's current pool, for `x: [n, n_in]` and `out: [n,
/// n_out]`, rows contiguous. If a row of `x` holds a NaN or an infinity, its outputs are NaN.
///
/// # Panics
/// If the shapes do not agree, or this CPU lacks the kernel's instructions.
pub fn matmul(
    x: &ArrayView2<f32>,
    matrix: QuantizedMatrix,
    kernel: &'static QuantizedKernel,
    mut out: ArrayViewMut2<f32>,
) {
    assert_eq!(
        x.ncols(),
        matrix.n_in(),
        "x must be as wide as the matrix's input"
    );
    assert_eq!(
        out.dim(),
        (x.nrows(), matrix.n_out()),
        "out must be [rows of x, outputs]"
    );
    assert!(out.is_standard_layout(), "rows must be contiguous");
    assert!(
        kernel.cpu.is_available(),
        "this CPU lacks the kernel's instructions"
    );
    let mut rows = OwnedQuantizedActivations::default();
    let scheme = kernel.activation_scheme(matrix.format(), x.nrows());
    rows.quantize(x, scheme, kernel);
    let to = SharedOutput::new(out.as_mut_ptr(), matrix.n_out());
    let product = QuantizedMatmul::new(matrix, rows.shared(), to, kernel);
    let n_threads = rayon::current_num_threads();
    (0..product.tasks(n_threads))
        .into_par_iter()
        .with_max_len(1)
        .for_each(|i| {
            // SAFETY: the CPU has the instructions; the rows are quantized and borrowed until the
            // end; `out` is borrowed mutably and has the shape of the result; each task runs once.
            unsafe { product.run(i, n_threads) }
        });
}
