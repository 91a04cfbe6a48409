//! What is fused behind a matrix product.

use crate::activation;

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

/// Bias and activation on `row`, then into `out`.
pub fn finish(row: &mut [f32], bias: Option<&[f32]>, epilogue: Epilogue, out: &mut [f32]) {
    if let Some(bias) = bias {
        row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
    }
    match epilogue {
        Epilogue::Store => {}
        Epilogue::Add => {
            out.iter_mut().zip(row).for_each(|(out, v)| *out += *v);
            return;
        }
        Epilogue::QuickGelu => activation::quick_gelu(row),
        Epilogue::Gelu => activation::gelu(row),
    }
    out.copy_from_slice(row);
}
