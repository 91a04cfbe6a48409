//! Operations fused after a matmul.

use std::ops::Range;

use ndarray::ArrayViewMut2;

use crate::{activation, vectorized};

/// What happens to `x W^T + b` while it is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Store it.
    Store,
    /// Add it to the output: a residual connection.
    Add,
    /// Store its [quick GELU](crate::activation::quick_gelu).
    QuickGelu,
    /// Store its [exact GELU](crate::activation::gelu).
    Gelu,
}

/// Applies bias and activation to a block of results and stores it in `out`, while both are in the
/// cache.
///
/// `block: [out.nrows(), width]` holds the results; columns beyond those of `out` are ignored.
///
/// # Panics
/// If the shapes do not agree, or rows of `out` are not contiguous.
pub fn finish(
    block: &mut [f32],
    width: usize,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: &mut ArrayViewMut2<f32>,
) {
    let (rows, columns) = (0..out.nrows(), 0..out.ncols());
    finish_part(block, width, bias, epilogue, out, (rows, columns));
}

/// The same for some rows and columns of `out`.
pub(crate) fn finish_part(
    block: &mut [f32],
    width: usize,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: &mut ArrayViewMut2<f32>,
    (rows, columns): (Range<usize>, Range<usize>),
) {
    assert!(
        columns.len() <= width && block.len() == rows.len() * width,
        "block must be [rows, width] and at least as wide as the columns"
    );
    // Activations take a pass of their own over the block in the cache; everything else is one
    // pass.
    let mut bias = bias;
    if !matches!(epilogue, Epilogue::Store | Epilogue::Add) {
        transform(block, width, bias.take(), epilogue);
    }
    let add = epilogue == Epilogue::Add;
    vectorized(|| {
        for (i, row) in rows.zip(block.chunks_exact(width)) {
            let mut out = out.row_mut(i);
            let out = out.as_slice_mut().expect("rows must be contiguous");
            let out = out[columns.clone()].iter_mut().zip(row);
            match (add, bias) {
                (false, None) => out.for_each(|(out, v)| *out = *v),
                (false, Some(bias)) => out.zip(bias).for_each(|((out, v), b)| *out = v + b),
                (true, None) => out.for_each(|(out, v)| *out += v),
                (true, Some(bias)) => out.zip(bias).for_each(|((out, v), b)| *out += v + b),
            }
        }
    });
}

/// Applies bias and activation to `block: [.., width]` in place. The caller does the addition of
/// [`Epilogue::Add`].
pub(crate) fn transform(block: &mut [f32], width: usize, bias: Option<&[f32]>, epilogue: Epilogue) {
    if let Some(bias) = bias {
        vectorized(|| {
            for row in block.chunks_exact_mut(width) {
                row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
            }
        });
    }
    match epilogue {
        Epilogue::Store | Epilogue::Add => {}
        Epilogue::QuickGelu => activation::quick_gelu(block),
        Epilogue::Gelu => activation::gelu(block),
    }
}
