//! The crate `gemm`: `out = alpha * a * b` in f32, on one thread.
#![allow(unsafe_code)]

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// `out = alpha * a * b` for `a: [m, k]`, `b: [k, n]`, `out: [m, n]`, with any strides.
///
/// The old contents of `out` do not matter, even if they are NaN. The sum over `k` always has the
/// same order.
///
/// # Panics
/// If the shapes do not agree.
pub fn gemm(alpha: f32, a: &ArrayView2<f32>, b: &ArrayView2<f32>, out: &mut ArrayViewMut2<f32>) {
    let (m, k) = a.dim();
    let n = b.ncols();
    assert_eq!(b.nrows(), k, "inner dimensions");
    assert_eq!(out.dim(), (m, n), "shape of the result");

    let (rs, cs) = row_col(out.strides());
    let (a_rs, a_cs) = row_col(a.strides());
    let (b_rs, b_cs) = row_col(b.strides());
    // SAFETY: pointers and strides come from views of exactly these shapes (asserted above), so
    // every element that the product reads or writes lies within them; `out` is borrowed mutably,
    // hence overlaps neither operand, and ndarray's mutable views have no element twice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            cs,
            rs,
            false, // do not read `out`
            a.as_ptr(),
            a_cs,
            a_rs,
            b.as_ptr(),
            b_cs,
            b_rs,
            0.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn row_col(strides: &[isize]) -> (isize, isize) {
    (strides[0], strides[1])
}

/// `out = x W^T` with `transposed: [n_in, n_out]`, 64 outputs per task: the tower's f32 matmul
/// before it had its own.
pub fn product(x: &Array2<f32>, transposed: &Array2<f32>, out: &mut Array2<f32>) {
    let panels: Vec<_> = out.axis_chunks_iter_mut(Axis(1), 64).collect();
    let panels = panels.into_par_iter().enumerate().with_max_len(1);
    panels.for_each(|(i, mut out)| {
        let weights = transposed.slice(s![.., i * 64..i * 64 + out.ncols()]);
        gemm(1.0, &x.view(), &weights, &mut out);
    });
}
