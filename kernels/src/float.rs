//! Matmul in f32, with weights of any type.
//!
//! A task expands the weights of some outputs, transposes them, and multiplies all rows by them. So
//! each weight is expanded once per matmul. That costs a few percent of the time and saves an f32
//! copy of the weights. The inner matmul is `Tile`'s.

use std::cell::RefCell;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::cpu::Cpu;
use crate::epilogue::Epilogue;
use crate::packed::{PackedInput, with_packed};
use crate::tile::{Buffer, LANES, ROWS, Scalar, Tile, WIDTH, split_rows};

/// A matrix `[n_out, n_in]` that can be expanded to f32.
pub trait Weights: Sync {
    /// `(n_in, n_out)`
    fn dim(&self) -> (usize, usize);
    /// Expands some rows into `out: [rows.len(), n_in]`.
    fn expand(&self, rows: Range<usize>, out: &mut [f32]);
}

/// A thread's buffers, kept for its next task. They are borrowed only where nothing waits for
/// another task, so rayon cannot start a second task on this thread meanwhile.
struct FloatScratch {
    strip: Vec<f32>,     // [ROWS, n_in]
    panels: Buffer<f32>, // one or two of [n_in, WIDTH]
    sums: Buffer<f32>,   // [chunk, WIDTH]
}

thread_local! {
    static SCRATCH: RefCell<Option<FloatScratch>> = const { RefCell::new(None) };
}

/// Bytes that each thread keeps for inputs of width `n_in`.
pub fn scratch_bytes(n_in: usize) -> usize {
    ROWS * n_in * size_of::<f32>()
        + Buffer::<f32>::bytes(n_in * group_width(n_in, usize::MAX))
        + Buffer::<f32>::bytes(chunk_rows(n_in) * WIDTH)
}

/// Bytes that a matmul of `n` rows of width `n_in` takes, for all threads together.
pub fn shared_bytes(n: usize, n_in: usize) -> usize {
    PackedInput::<f32>::bytes(n, n_in)
}

/// Computes `epilogue(x W^T + bias)` for `x: [n, n_in]` and stores it in `out: [n, n_out]`. Rows
/// are contiguous; `out` may be part of a wider array.
///
/// # Panics
/// If the shapes do not agree.
pub fn matmul(
    x: &ArrayView2<f32>,
    weights: &impl Weights,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: ArrayViewMut2<f32>,
) {
    matmul_on(Cpu::chosen(), x, weights, bias, epilogue, out);
}

/// The same with the instructions of `cpu`, as far as this CPU has them.
///
/// # Panics
/// If the shapes do not agree.
pub fn matmul_on(
    cpu: Cpu,
    x: &ArrayView2<f32>,
    weights: &impl Weights,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: ArrayViewMut2<f32>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(kernels) = crate::tile::Avx512::new(cpu) {
            return run(kernels, x, weights, bias, epilogue, out);
        }
        if let Some(kernels) = crate::tile::Avx2::new(cpu) {
            return run(kernels, x, weights, bias, epilogue, out);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(kernels) = crate::tile::Neon::new(cpu) {
        return run(kernels, x, weights, bias, epilogue, out);
    }
    let _ = cpu;
    run(Scalar::<f32>::default(), x, weights, bias, epilogue, out);
}

fn run<K: Tile<Element = f32>>(
    kernels: K,
    x: &ArrayView2<f32>,
    weights: &impl Weights,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    mut out: ArrayViewMut2<f32>,
) {
    let (n_in, n_out) = weights.dim();
    assert_eq!(x.ncols(), n_in, "x must be as wide as the matrix's input");
    assert_eq!(
        out.dim(),
        (x.nrows(), n_out),
        "out must be [rows of x, outputs]"
    );
    assert!(
        bias.is_none_or(|b| b.len() == n_out),
        "bias must have one element per output"
    );
    if out.is_empty() {
        return;
    }
    let group = group_width(n_in, n_out);
    with_packed(kernels, x, |packed| {
        let task = |(column, out): (usize, ArrayViewMut2<f32>)| {
            SCRATCH.with_borrow_mut(|scratch| {
                let scratch = scratch.get_or_insert_with(FloatScratch::new);
                let bias = bias.map(|b| &b[column..column + out.ncols()]);
                scratch.expand(kernels, weights, column..column + out.ncols());
                scratch.task(kernels, packed, bias, epilogue, out);
            });
        };
        let groups = out.axis_chunks_iter_mut(Axis(1), group).enumerate();
        let tasks: Vec<_> = groups.map(|(i, out)| (i * group, out)).collect();
        tasks.into_par_iter().with_max_len(1).for_each(task);
    });
}

/// Outputs per task. Two panels halve the reads of `x`, which may come from memory. One panel is
/// used where two do not fit the L2 cache, or where there would be too few tasks for threads to
/// finish together.
fn group_width(n_in: usize, n_out: usize) -> usize {
    if n_in <= 2048 && n_out >= 2048 {
        2 * WIDTH
    } else {
        WIDTH
    }
}

/// Rows that are multiplied by all panels of a task in turn: whole panels, about 256 kB.
fn chunk_rows(n_in: usize) -> usize {
    (ROWS * (8 * 1024 / n_in)).clamp(2 * ROWS, 8 * ROWS)
}

impl FloatScratch {
    fn new() -> Self {
        Self {
            strip: Vec::new(),
            panels: Buffer::zeros(0),
            sums: Buffer::zeros(0),
        }
    }

    /// Expands `rows` of the matrix into the columns of panels, padded with zeros.
    fn expand<K: Tile<Element = f32>>(
        &mut self,
        kernels: K,
        weights: &impl Weights,
        rows: Range<usize>,
    ) {
        let n_in = weights.dim().0;
        self.strip.resize(ROWS * n_in, 0.0);
        self.panels
            .resize(rows.len().next_multiple_of(LANES) * n_in);
        let panels = self.panels.chunks_mut(WIDTH * n_in);
        for (panel, first) in panels.zip(rows.clone().step_by(WIDTH)) {
            let width = panel.len() / n_in;
            for column in (0..width).step_by(ROWS) {
                let row = rows.end.min(first + column);
                let n_rows = ROWS.min(rows.end - row);
                let (strip, added) = self.strip.split_at_mut(n_rows * n_in);
                weights.expand(row..row + n_rows, strip);
                added.fill(0.0);
                kernels.transpose(split_rows(&self.strip), width, &mut panel[column..]);
            }
        }
    }

    /// Multiplies all rows by the expanded weights.
    fn task<K: Tile<Element = f32>>(
        &mut self,
        kernels: K,
        packed: &PackedInput<f32>,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        mut out: ArrayViewMut2<f32>,
    ) {
        let n_in = packed.n_in;
        let chunk = chunk_rows(n_in);
        self.sums.resize(chunk * WIDTH);
        for (i, mut out) in out.axis_chunks_iter_mut(Axis(0), chunk).enumerate() {
            let columns = out.axis_chunks_iter_mut(Axis(1), WIDTH).enumerate();
            for ((j, mut out), panel) in columns.zip(self.panels.chunks(WIDTH * n_in)) {
                let width = panel.len() / n_in;
                let bias = bias.map(|b| &b[j * WIDTH..][..out.ncols()]);
                let (panel, then) = ((panel, width), (bias, epilogue));
                packed.multiply(kernels, i * chunk, panel, &mut self.sums, then, &mut out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::cpu::available;
    use crate::packed::depth;
    use crate::testing::{max_diff, noise, with_threads};

    /// Sums of `n_in` products of numbers in -1..1, added in f32 in another order.
    fn tolerance(n_in: usize) -> f32 {
        2e-5 * (n_in as f32 / 300.0).max(1.0)
    }

    impl Weights for Array2<f32> {
        fn dim(&self) -> (usize, usize) {
            (self.ncols(), self.nrows())
        }
        fn expand(&self, rows: Range<usize>, out: &mut [f32]) {
            let n_in = self.ncols();
            let all = self.as_slice().expect("rows must be contiguous");
            out.copy_from_slice(&all[rows.start * n_in..rows.end * n_in]);
        }
    }

    fn reference(x: &Array2<f32>, weights: &Array2<f32>) -> Array2<f32> {
        let x = x.mapv(f64::from);
        x.dot(&weights.mapv(f64::from).t()).mapv(|v| v as f32)
    }

    #[test]
    fn every_level_equals_the_definition_at_tails_and_around_the_blocks() {
        let deep = depth::<f32>();
        let rows = (0..=17).map(|n| (n, 6, 5));
        let inputs = (1..=20).chain([deep - 1, deep, deep + 1, 2 * deep + 1]);
        let outputs = (0..=98).map(|n_out| (9, 7, n_out));
        let cases = rows.chain(inputs.map(|n_in| (9, n_in, 17))).chain(outputs);
        let mut failures = Vec::new();
        for (n, n_in, n_out) in cases {
            let (x, weights) = (noise(n, n_in, 1), noise(n_out, n_in, 2));
            let expected = reference(&x, &weights);
            for cpu in available() {
                let mut out = Array2::from_elem((n, n_out), f32::NAN);
                matmul_on(
                    cpu,
                    &x.view(),
                    &weights,
                    None,
                    Epilogue::Store,
                    out.view_mut(),
                );
                let diff = max_diff(&out, &expected);
                if out.iter().any(|v| v.is_nan()) || diff > tolerance(n_in) {
                    failures.push(format!("{cpu:?} {n} x {n_in} x {n_out}: {diff}"));
                }
            }
        }
        assert_eq!(failures, [""; 0]);
    }

    #[test]
    fn nan_and_infinity_propagate_within_their_row_or_column() {
        let (mut x, mut weights) = (noise(12, 30, 1).abs() + 0.1, noise(50, 30, 2).abs() + 0.1);
        x[[3, 29]] = f32::NAN;
        x[[5, 0]] = f32::INFINITY;
        weights[[48, 7]] = f32::NAN;
        for cpu in available() {
            let mut out = Array2::zeros((12, 50));
            matmul_on(
                cpu,
                &x.view(),
                &weights,
                None,
                Epilogue::Store,
                out.view_mut(),
            );
            for ((i, j), v) in out.indexed_iter() {
                let none = i == 3 || j == 48;
                let infinite = !none && i == 5;
                let found = (v.is_nan(), *v == f32::INFINITY);
                assert_eq!(found, (none, infinite), "{cpu:?} {i} {j}");
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let (x, weights) = (noise(130, 300, 1), noise(130, 300, 3));
        let run = || {
            let mut out = Array2::zeros((130, 130));
            let then = Epilogue::QuickGelu;
            matmul(&x.view(), &weights, None, then, out.view_mut());
            out
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
