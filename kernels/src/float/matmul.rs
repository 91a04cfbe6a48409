//! A 16-bit matmul, partitioned into tasks that any thread may run.
#![allow(unsafe_code)]

use std::cell::RefCell;

use half::bf16;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use super::depth;
use super::gemv::{Float16Gemv, MAX_OUTPUTS};
use super::kernel::{FloatKernel, FloatOps, with_tile};
use super::{Expand, Float16Slice, FloatActivations, FloatMatrix, FloatWeights};
use crate::epilogue::{Destination, Epilogue, Finish};
use crate::partition::{CHUNK, Partition};
use crate::tile::{Buffer, Element, LANES, ROWS, Start, Tile, WIDTH, split_rows};
use crate::{Cpu, SharedOutput};

/// Inputs that are converted at a time, in the L1 cache.
const STEP: usize = 256;

/// Buffers that a thread keeps for its tasks.
struct FloatScratch {
    /// `[depth / GROUP][width][GROUP]`
    in_f32: Buffer<f32>,
    /// `[depth / GROUP][width][GROUP]`
    in_bf16: Buffer<bf16>,
    /// `[rows][width]`
    sums: Buffer<f32>,
}

/// The type in which a kernel multiplies.
trait Operand: Element {
    /// The thread's buffers for a panel and for the sums.
    fn buffers(scratch: &mut FloatScratch) -> (&mut Buffer<Self>, &mut Buffer<f32>);
    /// Converts 16-bit weights to this type.
    fn from_float16(ops: &FloatOps, from: Float16Slice, to: &mut [Self]);
    /// The same weights, if they are of this type.
    fn borrow(from: Float16Slice<'_>) -> Option<&[Self]>;
    /// Expands weights of a row, from `first` on.
    fn expand(from: &dyn Expand, row: usize, first: usize, to: &mut [Self]);
}

impl Operand for f32 {
    fn buffers(scratch: &mut FloatScratch) -> (&mut Buffer<Self>, &mut Buffer<f32>) {
        (&mut scratch.in_f32, &mut scratch.sums)
    }
    fn from_float16(ops: &FloatOps, from: Float16Slice, to: &mut [Self]) {
        // SAFETY: a kernel exists only if the CPU has its instructions.
        unsafe { (ops.to_f32)(from, to) }
    }
    fn borrow(_: Float16Slice<'_>) -> Option<&[Self]> {
        None
    }
    fn expand(from: &dyn Expand, row: usize, first: usize, to: &mut [Self]) {
        from.expand(row, first, to);
    }
}

impl Operand for bf16 {
    fn buffers(scratch: &mut FloatScratch) -> (&mut Buffer<Self>, &mut Buffer<f32>) {
        (&mut scratch.in_bf16, &mut scratch.sums)
    }
    fn from_float16(_: &FloatOps, from: Float16Slice, to: &mut [Self]) {
        let Float16Slice::Bf16(from) = from else {
            unreachable!("bf16 kernels take bf16 weights only");
        };
        to.copy_from_slice(from);
    }
    fn borrow(from: Float16Slice<'_>) -> Option<&[Self]> {
        match from {
            Float16Slice::Bf16(from) => Some(from),
            Float16Slice::F16(_) => None,
        }
    }
    fn expand(_: &dyn Expand, _: usize, _: usize, _: &mut [Self]) {
        unreachable!("expanded weights are multiplied in f32");
    }
}

/// A matrix and the activations that it multiplies.
#[derive(Clone, Copy)]
struct FloatTerm<'a> {
    matrix: FloatMatrix<'a>,
    rows: FloatActivations,
}

impl<'a> FloatTerm<'a> {
    fn new(matrix: FloatMatrix<'a>, rows: FloatActivations) -> Self {
        assert_eq!(
            rows.width(),
            matrix.n_in(),
            "x must be as wide as the matrix's input"
        );
        assert!(
            rows.kernel().takes(&matrix.weights()),
            "the kernel does not take this type of weights"
        );
        Self { matrix, rows }
    }
}

/// `rows W^T`, stored in `out`.
#[derive(Clone, Copy)]
pub struct FloatMatmul<'a> {
    base: FloatTerm<'a>,
    /// A second matmul that is added to it.
    added: Option<FloatTerm<'a>>,
    finish: Finish<'a>,
}

impl<'a> FloatMatmul<'a> {
    /// The matmul of `rows: [n, n_in]` with `matrix: [n_out, n_in]`, to `out: [n, n_out]`.
    ///
    /// # Panics
    /// If the rows have another width than the matrix, or their kernel does not take its weights.
    pub fn new(matrix: FloatMatrix<'a>, rows: FloatActivations, out: SharedOutput) -> Self {
        Self::with_finish(matrix, rows, Finish::store(out))
    }

    /// The same with other last steps, for rows that are not for the GEMV unless results are stored
    /// as they are.
    pub(super) fn with_finish(
        matrix: FloatMatrix<'a>,
        rows: FloatActivations,
        finish: Finish<'a>,
    ) -> Self {
        Self {
            base: FloatTerm::new(matrix, rows),
            added: None,
            finish,
        }
    }

    /// The same plus `rows matrix^T` of a second matrix, such as an adapter's. It costs its
    /// multiplications, but no further pass over the output.
    ///
    /// # Panics
    /// If the second matmul has another number of rows or outputs or multiplies in another type, or
    /// for the reasons of [`Self::new`].
    pub fn plus(self, matrix: FloatMatrix<'a>, rows: FloatActivations) -> Self {
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
        let kernels = [rows.kernel(), self.kernel()];
        assert_eq!(
            kernels[0].is_bf16(),
            kernels[1].is_bf16(),
            "both kernels must multiply in the same type"
        );
        Self {
            added: Some(FloatTerm::new(matrix, rows)),
            ..self
        }
    }

    fn n(&self) -> usize {
        self.base.rows.n()
    }

    fn n_out(&self) -> usize {
        self.base.matrix.n_out()
    }

    fn kernel(&self) -> FloatKernel {
        self.base.rows.kernel()
    }

    fn parts(&self) -> impl Iterator<Item = &FloatTerm<'a>> + Clone {
        std::iter::once(&self.base).chain(&self.added)
    }

    fn partition(&self, n_threads: usize) -> Partition {
        let group = if self.base.rows.use_gemv() {
            MAX_OUTPUTS
        } else {
            WIDTH
        };
        Partition::new((self.n(), self.n_out()), group, ROWS, n_threads)
    }

    /// Number of tasks for `n_threads`. It does not change the result.
    pub fn tasks(&self, n_threads: usize) -> usize {
        self.partition(n_threads).tasks()
    }

    /// Runs task `i` of those for `n_threads`.
    ///
    /// # Safety
    /// - All pieces of the rows are packed and nobody writes them meanwhile.
    /// - `out` is valid for writes, and no other thread accesses what this task writes.
    ///
    /// # Panics
    /// If there is no such task.
    pub unsafe fn run(&self, i: usize, n_threads: usize) {
        let (rows, outputs) = self.partition(n_threads).task(i);
        // SAFETY: the caller's promise. Nothing within waits for another task, so the scratch is
        // not borrowed twice.
        unsafe {
            if self.base.rows.use_gemv() {
                return self.run_gemv(outputs);
            }
            SCRATCH.with_borrow_mut(|scratch| {
                let scratch = scratch.get_or_insert_with(FloatScratch::new);
                with_tile!(self.kernel().tile, |tile| self
                    .run_packed(tile, rows, outputs, scratch));
            });
        }
    }

    /// All rows times `n_out` outputs from `output` on, with weights as they are in memory.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn run_gemv(&self, (output, n_out): (usize, usize)) {
        let out = self.finish.plain().expect("a GEMV stores its results");
        for (i, FloatTerm { matrix, rows }) in self.parts().enumerate() {
            let n_in = matrix.n_in();
            let FloatWeights::Float16(weights) = matrix.weights() else {
                unreachable!("the GEMV takes 16-bit weights");
            };
            // SAFETY: a kernel exists only if the CPU has its instructions; the rest is the
            // caller's promise.
            unsafe {
                (rows.kernel().ops.gemv)(&Float16Gemv {
                    rows: rows.gemv(),
                    n_in,
                    weights: weights.part(output * n_in, n_out * n_in),
                    out: out.at(0, output),
                    stride: out.stride(),
                    add: i > 0,
                });
            }
        }
    }

    /// `n` rows from `row` on times `n_out` outputs from `output` on.
    ///
    /// # Safety
    /// As [`Self::run`], and the rows are packed for `kernels`.
    unsafe fn run_packed<K: Tile<Element: Operand>>(
        &self,
        kernels: K,
        (row, n): (usize, usize),
        (output, n_out): (usize, usize),
        scratch: &mut FloatScratch,
    ) {
        let deep = depth::<K::Element>();
        let width = panel_width(n_out);
        let (panel, sums) = K::Element::buffers(scratch);
        sums.resize(n.next_multiple_of(ROWS) * width);
        let blocks = self
            .parts()
            .flat_map(|part| (0..part.matrix.n_in().div_ceil(deep)).map(move |b| (part, b)));
        let last = blocks.clone().count() - 1;
        for (i, (part, block)) in blocks.enumerate() {
            self.fill(kernels, part, (output, n_out), block, panel);
            // SAFETY: packed, by the caller's promise.
            let x = unsafe { part.rows.panels::<K::Element>(row, n, block) };
            let start = if i == 0 { Start::Zero } else { Start::Add };
            if i < last {
                kernels.multiply(x, panel, width, start, sums);
                continue;
            }
            // Panel by panel: sums are stored while they are in the L1 cache, and the output is
            // prefetched during the multiplication.
            let xs = x.chunks_exact(ROWS * panel.len() / width);
            let sums = sums.chunks_exact_mut(ROWS * width);
            for ((x, sums), first) in xs.zip(sums).zip((0..n).step_by(ROWS)) {
                let n = ROWS.min(n - first);
                for row in row + first..row + first + n {
                    self.finish.prefetch(row, output, n_out);
                }
                kernels.multiply(x, panel, width, start, sums);
                let sums = &mut sums[..n * width];
                // SAFETY: a part of the output that this task may write.
                unsafe {
                    self.finish
                        .f32_tile(row + first, (output, n_out), sums, width);
                }
            }
        }
    }

    /// Converts and transposes a block of inputs of `n_out` outputs from `output` on into a panel,
    /// padded with zero columns.
    fn fill<K: Tile<Element: Operand>>(
        &self,
        kernels: K,
        part: &FloatTerm<'a>,
        (output, n_out): (usize, usize),
        block: usize,
        panel: &mut Buffer<K::Element>,
    ) {
        let (matrix, ops) = (&part.matrix, part.rows.kernel().ops);
        let (deep, group) = (depth::<K::Element>(), K::Element::GROUP);
        let width = panel_width(n_out);
        let (first, n_in) = (block * deep, matrix.n_in());
        let inputs = deep.min(n_in - first);
        panel.resize(inputs.next_multiple_of(group) * width);
        let weights = |of: Float16Slice<'a>, column: usize, k: usize, n: usize| {
            of.part((output + column.min(n_out - 1)) * n_in + first + k, n)
        };
        let mut numbers = [K::Element::default(); ROWS * STEP];
        for (panel, k) in panel.chunks_mut(STEP * width).zip((0..).step_by(STEP)) {
            let (depth, wanted) = (panel.len() / width, STEP.min(inputs - k));
            let numbers = &mut numbers[..ROWS * depth];
            for column in (0..width).step_by(ROWS) {
                let next = if column + ROWS < width {
                    (column + ROWS, k)
                } else {
                    (0, (k + STEP).min(inputs - wanted))
                };
                if let FloatWeights::Float16(all) = matrix.weights()
                    && column + ROWS <= n_out
                    && wanted == depth
                    && K::Element::borrow(weights(all, column, k, wanted)).is_some()
                {
                    let rows = std::array::from_fn(|r| {
                        weights(all, next.0 + r, next.1, wanted).prefetch();
                        K::Element::borrow(weights(all, column + r, k, wanted))
                            .expect("rows have the same type")
                    });
                    kernels.transpose(rows, width, &mut panel[column * group..]);
                    continue;
                }
                for (r, to) in numbers.chunks_exact_mut(depth).enumerate() {
                    let (to, added) = to.split_at_mut(wanted);
                    match matrix.weights() {
                        _ if column + r >= n_out => to.fill(K::Element::default()),
                        FloatWeights::Float16(all) => {
                            weights(all, next.0 + r, next.1, wanted).prefetch();
                            K::Element::from_float16(ops, weights(all, column + r, k, wanted), to);
                        }
                        FloatWeights::Expanded(all) => {
                            K::Element::expand(all, output + column + r, first + k, to);
                        }
                    }
                    added.fill(K::Element::default());
                }
                kernels.transpose(split_rows(numbers), width, &mut panel[column * group..]);
            }
        }
    }
}

/// Width of a panel of `n_out` outputs, with padding.
fn panel_width(n_out: usize) -> usize {
    n_out.next_multiple_of(LANES)
}

/// Bytes that each thread keeps, for any matrix.
pub(crate) fn scratch_bytes() -> usize {
    Buffer::<f32>::bytes(depth::<f32>() * WIDTH)
        + Buffer::<bf16>::bytes(depth::<bf16>() * WIDTH)
        + Buffer::<f32>::bytes(CHUNK * WIDTH)
}

impl FloatScratch {
    fn new() -> Self {
        Self {
            in_f32: Buffer::zeros(0),
            in_bf16: Buffer::zeros(0),
            sums: Buffer::zeros(0),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Option<FloatScratch>> = const { RefCell::new(None) };
}

/// Computes `epilogue(x W^T + bias)` on rayon's current pool and stores it in `out: [n, n_out]`; rows
/// of both are contiguous, and `out` may be part of a wider array. `W` consists of `parts`, one below
/// the other, which are all multiplied in the same type.
///
/// # Panics
/// If the shapes do not agree.
pub(crate) fn matmul_of_parts(
    x: &ArrayView2<f32>,
    parts: &[FloatMatrix],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    cpu: Cpu,
    mut out: ArrayViewMut2<f32>,
) {
    thread_local! {
        static KEPT: RefCell<Buffer<f32>> = RefCell::default();
    }
    let (n, n_in) = x.dim();
    let n_out = parts.iter().map(FloatMatrix::n_out).sum::<usize>();
    assert_eq!(out.dim(), (n, n_out), "out must be [rows of x, outputs]");
    assert!(
        bias.is_none_or(|b| b.len() == n_out),
        "bias must have one element per output"
    );
    if out.is_empty() {
        return;
    }
    let x = x.as_slice().expect("rows must be contiguous");
    let kernel = parts[0].kernel(cpu);
    // Taken, not borrowed: while this thread waits for the others, it may begin another matmul.
    let mut memory = KEPT.take();
    memory.resize(FloatActivations::packed_bytes(n, n_in, kernel).div_ceil(4));
    // SAFETY: `memory` has this many bytes and lives until the end.
    let rows = unsafe { FloatActivations::new(memory.as_mut_ptr().cast(), n, n_in, kernel) };
    let rows = rows.without_gemv();
    (0..rows.pieces()).into_par_iter().for_each(|piece| {
        // SAFETY: each piece is written once, and nobody reads it meanwhile.
        unsafe { rows.pack(x, piece) }
    });
    let (to, n_threads) = (SharedOutput::of(&mut out), rayon::current_num_threads());
    let mut first = 0;
    let (mut matmuls, mut tasks) = (Vec::new(), Vec::new());
    for (i, part) in parts.iter().enumerate() {
        let finish = Finish {
            bias: bias.map(|bias| &bias[first..first + part.n_out()]),
            epilogue,
            to: Destination::F32(to.at_column(first)),
        };
        let matmul = FloatMatmul::with_finish(*part, rows, finish);
        tasks.extend((0..matmul.tasks(n_threads)).map(|task| (i, task)));
        matmuls.push(matmul);
        first += part.n_out();
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each(|(i, task)| {
        // SAFETY: the rows are packed and live until the end; `out` is borrowed mutably and has the
        // shape of the result; each task runs once.
        unsafe { matmuls[i].run(task, n_threads) }
    });
    KEPT.set(memory);
}

/// Computes `out = x W^T` on rayon's current pool, for `x: [n, n_in]` and `out: [n, n_out]`, rows
/// contiguous.
///
/// # Panics
/// If the shapes do not agree, or the kernel does not take the weights.
pub fn matmul(
    x: &ArrayView2<f32>,
    matrix: FloatMatrix,
    kernel: FloatKernel,
    mut out: ArrayViewMut2<f32>,
) {
    let (n, n_in) = x.dim();
    assert_eq!(
        n_in,
        matrix.n_in(),
        "x must be as wide as the matrix's input"
    );
    assert_eq!(
        out.dim(),
        (n, matrix.n_out()),
        "out must be [rows of x, outputs]"
    );
    assert!(out.is_standard_layout(), "rows must be contiguous");
    let x = x.as_slice().expect("rows must be contiguous");
    let mut memory = Buffer::<f32>::zeros(FloatActivations::bytes(n, n_in, kernel).div_ceil(4));
    // SAFETY: `memory` has this many bytes and lives until the end.
    let rows = unsafe { FloatActivations::new(memory.as_mut_ptr().cast(), n, n_in, kernel) };
    (0..rows.pieces()).into_par_iter().for_each(|piece| {
        // SAFETY: each piece is written once, and nobody reads it meanwhile.
        unsafe { rows.pack(x, piece) }
    });
    let to = SharedOutput::new(out.as_mut_ptr(), matrix.n_out());
    let product = FloatMatmul::new(matrix, rows, to);
    let n_threads = rayon::current_num_threads();
    let tasks = (0..product.tasks(n_threads)).into_par_iter();
    tasks.with_max_len(1).for_each(|i| {
        // SAFETY: the rows are packed and live until the end; `out` is borrowed mutably and has the
        // shape of the result; each task runs once.
        unsafe { product.run(i, n_threads) }
    });
}
