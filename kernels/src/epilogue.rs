//! Operations fused after a matmul, and where its results go.
#![allow(unsafe_code)]

use crate::quantized::QuantizedActivations;
use crate::{SharedOutput, activation, vectorized};

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

/// Where the results of a matmul go, from some column on.
#[derive(Clone, Copy)]
pub(crate) enum Destination<'a> {
    /// To rows of f32.
    F32(SharedOutput),
    /// To activations of the next matmul, in a fine scheme. The column is a multiple of a block.
    Quantized(&'a QuantizedActivations, usize),
}

/// The last steps of a matmul: bias and epilogue, then its destination.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// One per output.
    pub bias: Option<&'a [f32]>,
    pub epilogue: Epilogue,
    pub to: Destination<'a>,
}

impl Finish<'_> {
    /// Stores results as they are.
    pub(crate) fn store(to: SharedOutput) -> Self {
        Self {
            bias: None,
            epilogue: Epilogue::Store,
            to: Destination::F32(to),
        }
    }

    /// The output, if results are stored in it as they are.
    pub(crate) fn plain(&self) -> Option<SharedOutput> {
        match (self.bias, self.epilogue, self.to) {
            (None, Epilogue::Store, Destination::F32(to)) => Some(to),
            _ => None,
        }
    }

    /// Whether results are quantized, in blocks of outputs.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.to, Destination::Quantized(..))
    }

    /// Prefetches `n` elements of `row`, from `output` on.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: usize, output: usize, n: usize) {
        if let Destination::F32(to) = self.to {
            to.prefetch(row, output, n);
        }
    }

    /// Finishes `sums: [rows][lanes]`, the results of some rows from `row` on and of `width` outputs
    /// from `output` on, if they are not quantized. Changes them.
    ///
    /// # Safety
    /// The destination is valid for writes there, and no other thread accesses it.
    #[inline(always)]
    pub(crate) unsafe fn f32_tile(
        &self,
        row: usize,
        (output, width): (usize, usize),
        sums: &mut [f32],
        lanes: usize,
    ) {
        let Destination::F32(to) = self.to else {
            unreachable!("quantized results are finished by blocks");
        };
        self.transform((output, width), sums, lanes);
        let rows = sums.chunks_exact(lanes).enumerate();
        vectorized(|| {
            for (i, sums) in rows {
                // SAFETY: the caller's promise.
                unsafe {
                    match (self.epilogue, sums.first_chunk::<32>()) {
                        (Epilogue::Add, _) => to.add(row + i, output, &sums[..width]),
                        // A constant length saves a call to memcpy for this few bytes.
                        (_, Some(sums)) if width == 32 => to.store(row + i, output, sums),
                        _ => to.store(row + i, output, &sums[..width]),
                    }
                }
            }
        });
    }

    /// Quantizes `sums: [rows][lanes]`, the results of some rows from `row` on and of `width` outputs
    /// from `output` on. Changes them.
    ///
    /// # Safety
    /// The destination is valid for writes there, and no other thread accesses it.
    ///
    /// # Panics
    /// If results are not quantized, or the outputs are not whole blocks.
    pub(crate) unsafe fn quantize_tile(
        &self,
        row: usize,
        (output, width): (usize, usize),
        sums: &mut [f32],
        lanes: usize,
    ) {
        let Destination::Quantized(to, column) = self.to else {
            unreachable!("the results are f32");
        };
        self.transform((output, width), sums, lanes);
        let block = (column + output) / crate::quantized::BLOCK;
        for (i, sums) in sums.chunks_exact(lanes).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.quantize_blocks(row + i, block, &sums[..width]) }
        }
    }

    /// Applies bias and activation to `sums: [..][lanes]`.
    #[inline(always)]
    fn transform(&self, (output, width): (usize, usize), sums: &mut [f32], lanes: usize) {
        if let Some(bias) = self.bias {
            let bias = &bias[output..][..width];
            vectorized(|| {
                for row in sums.chunks_exact_mut(lanes) {
                    row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                }
            });
        }
        match self.epilogue {
            Epilogue::Store | Epilogue::Add => {}
            Epilogue::QuickGelu => activation::quick_gelu(sums),
            Epilogue::Gelu => activation::gelu(sums),
        }
    }
}
