//! What is fused behind a matrix product.

use std::ops::Range;

use ndarray::ArrayViewMut2;

use crate::{activation, vectorized};

/// What happens to `x W^T + b`, while it is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// It is stored.
    Store,
    /// It is added to what the result held before: a residual connection.
    Add,
    /// Its [quick-GELU](crate::activation::quick_gelu) is stored.
    QuickGelu,
    /// Its [exact GELU](crate::activation::gelu) is stored.
    Gelu,
}

/// Bias and activation on a block of results, then into `out`, while both are in the cache.
///
/// `block: [out.nrows(), width]` holds the results; its columns beyond `out`'s are ignored.
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

/// The same into some rows and columns of `out`.
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
        "as many results as there is room for"
    );
    // An activation in the cache, then the store; all else in one pass.
    let mut bias = bias;
    if !matches!(epilogue, Epilogue::Store | Epilogue::Add) {
        transform(block, width, bias.take(), epilogue);
    }
    let add = epilogue == Epilogue::Add;
    vectorized(|| {
        for (i, row) in rows.zip(block.chunks_exact(width)) {
            let mut out = out.row_mut(i);
            let out = out.as_slice_mut().expect("rows are contiguous");
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

/// Bias and activation, on `block: [.., width]` in place; an addition is left to the caller.
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
