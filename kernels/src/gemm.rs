//! The fenced room around the `gemm` crate: `out = alpha * a * b` in f32, on one thread.
//!
//! Why this crate and not ndarray's `general_mat_mul` (matrixmultiply 0.3): on two cores with
//! AVX-512 (peak 236 GFLOP/s), for 1226 rows and panels of 256 outputs, it makes 170 to 186 GFLOP/s
//! against 144 to 172; on one core, for the two products of attention, 95 to 109 against 62 to 84.
//! It detects the instruction set at run time (`x86-v4` of its features is AVX-512).
#![allow(unsafe_code)]

use ndarray::{ArrayView2, ArrayViewMut2};

/// `out = alpha * a * b` for `a: [m, k]`, `b: [k, n]`, `out: [m, n]`, any strides.
///
/// What `out` held before does not matter, not even if it was infinite or no number. The sum over
/// `k` has the same order wherever it is called.
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

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;
    use crate::testing::{max_diff, noise};

    #[test]
    fn equals_the_definition_for_any_strides_and_sizes_around_the_tiles() {
        for (m, n, k) in [
            (1, 1, 1),
            (7, 9, 3),
            (16, 24, 64),
            (17, 97, 65),
            (33, 5, 300),
        ] {
            let a = noise(m, k + 3, 1);
            let b = noise(n, k, 2);
            let (a, b) = (a.slice(s![.., 1..=k]), b.t());
            let mut out = Array2::from_elem((m, n + 2), f32::NAN);
            gemm(0.5, &a, &b, &mut out.slice_mut(s![.., 1..=n]));
            let expected = Array2::from_shape_fn((m, n), |(i, j)| {
                let sum: f64 = (0..k)
                    .map(|l| f64::from(a[[i, l]]) * f64::from(b[[l, j]]))
                    .sum();
                (0.5 * sum) as f32
            });
            let found = out.slice(s![.., 1..=n]).to_owned();
            assert!(max_diff(&found, &expected) < 1e-5, "{m} x {n} x {k}");
            assert!(
                out.column(0)
                    .iter()
                    .chain(out.column(n + 1))
                    .all(|v| v.is_nan())
            );
        }
    }
}
