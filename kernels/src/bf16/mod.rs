//! `x W^T + b` with BF16 weights and activations, and f32 sums.
//!
//! Weights are packed once, into panels of 48 outputs `[panels][n_in / 2][48][2]`; the rest is in
//! `packed`.
//!
//! Activations are rounded to the nearest bf16 (ties to even) once per matmul, for all threads. NaN
//! and infinities propagate as in f32. Subnormal bf16 numbers may count as zero, because the
//! instruction flushes them.
//!
//! The inner matmul is `Tile`'s. On CPUs without BF16 dot products it is plain Rust, which is
//! correct but slower than f32; see [`Bf16Matrix::is_fast`].

use std::cell::RefCell;

use half::bf16;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use crate::cpu::Cpu;
use crate::epilogue::Epilogue;
use crate::pack::{pack_panels, rows_of};
use crate::packed::{PackedInput, panel_width, tasks, with_packed};
use crate::tile::{Buffer, LANES, Scalar, Tile, WIDTH};

/// Rows per task: the sums of 48 outputs are 48 kB, and 1226 rows make five tasks.
const CHUNK: usize = 256;

/// Weights `[n_out, n_in]`, packed.
pub struct Bf16Matrix {
    n_in: usize,
    n_out: usize,
    /// Panels of [`WIDTH`] outputs, the last one as wide as needed, each `[depth / 2][width][2]`,
    /// where `depth` is `n_in` rounded up to even. The padding is zero.
    panels: Buffer<bf16>,
}

impl Bf16Matrix {
    /// Packs rows of `n_in` little-endian bf16. The rows of a part follow those of the part before.
    ///
    /// # Panics
    /// If `n_in` is zero, or a part is not a whole number of rows.
    pub fn new(parts: &[&[u8]], n_in: usize) -> Self {
        assert!(n_in > 0, "n_in must not be zero");
        let rows = rows_of(parts, 2 * n_in);
        let (n_out, depth) = (rows.len(), n_in.next_multiple_of(2));
        let mut panels = Buffer::zeros(n_out.next_multiple_of(LANES) * depth);
        pack_panels(&mut panels, WIDTH * depth, &rows, WIDTH, |rows, panel| {
            pack_panel(rows, n_in, panel);
        });
        Self {
            n_in,
            n_out,
            panels,
        }
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        Buffer::<bf16>::bytes(self.panels.len())
    }

    /// Whether this process multiplies bf16 faster than f32.
    pub fn is_fast() -> bool {
        crate::cpu::bf16_is_fast(Cpu::chosen())
    }

    /// Bytes that a matmul of `n` rows of `n_in` takes while it runs, for all threads together.
    pub fn shared_bytes(n: usize, n_in: usize) -> usize {
        PackedInput::<bf16>::bytes(n, n_in)
    }

    /// Bytes that each thread keeps, for any matrix.
    pub fn scratch_bytes() -> usize {
        Buffer::<f32>::bytes(CHUNK * WIDTH)
    }

    /// Computes `epilogue(x W^T + bias)` for `x: [n, n_in]` and stores it in `out: [n, n_out]`.
    /// Rows are contiguous; `out` may be part of a wider array.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn matmul(
        &self,
        x: &ArrayView2<f32>,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        out: ArrayViewMut2<f32>,
    ) {
        self.matmul_on(Cpu::chosen(), x, bias, epilogue, out);
    }

    /// The same with the instructions of `cpu`, as far as this CPU has them.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn matmul_on(
        &self,
        cpu: Cpu,
        x: &ArrayView2<f32>,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        out: ArrayViewMut2<f32>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(kernels) = crate::tile::Avx512Bf16::new(cpu) {
            return self.run(kernels, x, bias, epilogue, out);
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(kernels) = crate::tile::NeonBf16::new(cpu) {
            return self.run(kernels, x, bias, epilogue, out);
        }
        let _ = cpu;
        self.run(Scalar::default(), x, bias, epilogue, out);
    }

    fn run<K: Tile<Element = bf16>>(
        &self,
        kernels: K,
        x: &ArrayView2<f32>,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        out: ArrayViewMut2<f32>,
    ) {
        assert_eq!(
            x.ncols(),
            self.n_in,
            "x must be as wide as the matrix's input"
        );
        assert_eq!(
            out.dim(),
            (x.nrows(), self.n_out),
            "out must be [rows of x, outputs]"
        );
        assert!(
            bias.is_none_or(|b| b.len() == self.n_out),
            "bias must have one element per output"
        );
        with_packed(kernels, x, |packed| {
            let task = |(row, column, mut out): (usize, usize, ArrayViewMut2<f32>)| {
                let bias = bias.map(|b| &b[column..column + out.ncols()]);
                let width = panel_width(column, self.n_out);
                let panel = &self.panels[column * packed.n_in..][..width * packed.n_in];
                SUMS.with_borrow_mut(|sums| {
                    let sums = sums.get_or_insert_with(|| Buffer::zeros(CHUNK * WIDTH));
                    let (panel, then) = ((panel, width), (bias, epilogue));
                    packed.multiply(kernels, row, panel, sums, then, &mut out);
                });
            };
            tasks(out, CHUNK)
                .into_par_iter()
                .with_max_len(1)
                .for_each(task);
        });
    }
}

thread_local! {
    /// A task's sums, kept for the thread's next task. While they are borrowed nothing waits for
    /// another task, so rayon cannot start one on this thread.
    static SUMS: RefCell<Option<Buffer<f32>>> = const { RefCell::new(None) };
}

/// Packs rows of little-endian bytes into a panel.
fn pack_panel(rows: &[&[u8]], n_in: usize, panel: &mut [bf16]) {
    let width = panel.len() / n_in.next_multiple_of(2);
    for (column, row) in rows.iter().enumerate() {
        let (values, _) = row.as_chunks::<2>();
        for (k, value) in values.iter().enumerate() {
            panel[(k / 2 * width + column) * 2 + k % 2] = bf16::from_le_bytes(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;
    use crate::cpu::available;
    use crate::epilogue::finish;
    use crate::packed::depth;
    use crate::testing::{max_diff, noise, with_threads};

    /// Sums of up to a thousand products of numbers in -1..1, added in f32 in another order.
    /// `bfdot` rounds each pair to odd, which makes up to 2.3e-5.
    const TOLERANCE: f32 = 3e-5;

    fn matrix(weights: &Array2<f32>) -> Bf16Matrix {
        let n_in = weights.ncols();
        let bytes: Vec<u8> = weights
            .iter()
            .flat_map(|&w| bf16::from_f32(w).to_le_bytes())
            .collect();
        Bf16Matrix::new(&[&bytes], n_in)
    }

    /// Plain loops in f64, over operands rounded to bf16.
    fn reference(x: &Array2<f32>, weights: &Array2<f32>) -> Array2<f32> {
        let round = |v: f32| f64::from(bf16::from_f32(v).to_f32());
        Array2::from_shape_fn((x.nrows(), weights.nrows()), |(i, j)| {
            let pairs = x.row(i).into_iter().zip(weights.row(j));
            pairs.map(|(&x, &w)| round(x) * round(w)).sum::<f64>() as f32
        })
    }

    /// Runs every case on every level of this CPU and lists those whose error is too large.
    fn failures(cases: impl Iterator<Item = (usize, usize, usize)>) -> Vec<String> {
        let mut failures = Vec::new();
        for (n, n_in, n_out) in cases {
            let (x, weights) = (noise(n, n_in, 1), noise(n_out, n_in, 2));
            let (matrix, expected) = (matrix(&weights), reference(&x, &weights));
            for cpu in available() {
                let mut out = Array2::from_elem((n, n_out), f32::NAN);
                matrix.matmul_on(cpu, &x.view(), None, Epilogue::Store, out.view_mut());
                let diff = max_diff(&out, &expected);
                if out.iter().any(|v| v.is_nan())
                    || diff > TOLERANCE * (n_in as f32 / 1000.0).max(1.0)
                {
                    failures.push(format!("{cpu:?} {n} x {n_in} x {n_out}: {diff}"));
                }
            }
        }
        failures
    }

    #[test]
    fn equals_plain_loops_at_every_tail() {
        let rows = (0..=17).map(|n| (n, 6, 5));
        let inputs = (1..=67).map(|n_in| (3, n_in, 17));
        let outputs = (0..=97).map(|n_out| (9, 7, n_out));
        assert_eq!(failures(rows.chain(inputs).chain(outputs)), [""; 0]);
    }

    #[test]
    fn equals_plain_loops_around_the_blocks() {
        let around = |size: usize| [size - 1, size, size + 1];
        let rows = around(CHUNK).map(|n| (n, 33, 49));
        let inputs = around(depth::<bf16>()).map(|n_in| (9, n_in, 50));
        let more = around(2 * depth::<bf16>()).map(|n_in| (10, n_in, 95));
        assert_eq!(
            failures(rows.into_iter().chain(inputs).chain(more)),
            [""; 0]
        );
    }

    #[test]
    fn bias_and_every_epilogue_are_applied() {
        let (x, weights) = (noise(20, 40, 1), noise(70, 40, 2));
        let bias = noise(1, 70, 3).into_raw_vec_and_offset().0;
        let matrix = matrix(&weights);
        use Epilogue::{Add, Gelu, QuickGelu, Store};
        for epilogue in [Store, Add, QuickGelu, Gelu] {
            let before = noise(20, 70, 4);
            let (mut out, mut expected) = (before.clone(), before);
            let mut sums = reference(&x, &weights);
            let sums = sums.as_slice_mut().unwrap();
            finish(sums, 70, Some(&bias), epilogue, &mut expected.view_mut());
            matrix.matmul(&x.view(), Some(&bias), epilogue, out.view_mut());
            assert!(max_diff(&out, &expected) < TOLERANCE, "{epilogue:?}");
        }
    }

    #[test]
    fn nan_and_infinity_propagate_within_their_row_or_column() {
        let (mut x, mut weights) = (noise(12, 30, 1).abs() + 0.1, noise(50, 30, 2).abs() + 0.1);
        x[[3, 29]] = f32::NAN;
        x[[5, 0]] = f32::INFINITY;
        x[[6, 1]] = 3.4e38; // above the largest bf16
        weights[[48, 7]] = f32::NAN;
        let matrix = matrix(&weights);
        for cpu in available() {
            let mut out = Array2::zeros((12, 50));
            matrix.matmul_on(cpu, &x.view(), None, Epilogue::Store, out.view_mut());
            for ((i, j), v) in out.indexed_iter() {
                let none = i == 3 || j == 48;
                let infinite = !none && (i == 5 || i == 6);
                assert_eq!(
                    (v.is_nan(), *v == f32::INFINITY),
                    (none, infinite),
                    "{i} {j}"
                );
            }
        }
    }

    #[test]
    fn out_may_be_a_slice_of_a_wider_array() {
        let matrix = matrix(&noise(70, 64, 3));
        let x = noise(4, 64, 1);
        let mut alone = Array2::zeros((4, 70));
        matrix.matmul(&x.view(), None, Epilogue::Store, alone.view_mut());
        let mut wide = Array2::from_elem((4, 90), 9.0);
        let part = wide.slice_mut(s![.., 10..80]);
        matrix.matmul(&x.view(), None, Epilogue::Store, part);
        assert_eq!(wide.slice(s![.., 10..80]), alone);
        assert!(wide.slice(s![.., ..10]).iter().all(|&v| v == 9.0));
        assert!(wide.slice(s![.., 80..]).iter().all(|&v| v == 9.0));
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let matrix = matrix(&noise(130, 300, 3));
        let x = noise(530, 300, 1);
        let run = || {
            let mut out = Array2::zeros((530, 130));
            matrix.matmul(&x.view(), None, Epilogue::QuickGelu, out.view_mut());
            out
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
