//! The tower's arithmetic: products, norms, activations, attention.
//!
//! This is the one interface between the model (`tower.rs`, `projector.rs`, which know shapes and
//! order) and the kernels (which know caches and instructions). [`Linear::new`] is the place where
//! a kernel may repack a matrix once; the functions choose the kernel. Here everything computes in
//! f32, whatever type the matrices are stored in.
//!
//! All of them run on rayon's current pool. Work is cut into pieces of fixed size, and every number
//! is summed in one fixed order, so the result does not depend on the number of threads.

mod activation;
mod attention;
mod gemm;
mod layer_norm;
mod linear;

pub use attention::{attention, scratch_bytes as attention_scratch_bytes};
pub use layer_norm::LayerNorm;
pub use linear::{Epilogue, Linear};

/// Runs `f`, compiled for the widest vectors that this CPU has: the crate `pulp` compiles it once for
/// each instruction set and chooses at run time.
///
/// What `f` calls takes part only if it is inlined. No sums are reordered and nothing is fused, so
/// the result is the same with every set.
#[inline(always)]
fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

#[cfg(test)]
pub(super) mod testing {
    use ndarray::Array2;

    /// Numbers in -1..1 that look random and are the same in every run.
    pub fn noise(rows: usize, cols: usize, seed: u32) -> Array2<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        Array2::from_shape_simple_fn((rows, cols), || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    /// Runs `f` in a pool of so many threads.
    pub fn with_threads<T: Send>(n: usize, f: impl FnOnce() -> T + Send) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
        pool.unwrap().install(f)
    }

    /// The largest absolute difference.
    pub fn max_diff(a: &Array2<f32>, b: &Array2<f32>) -> f32 {
        assert_eq!(a.dim(), b.dim());
        a.iter()
            .zip(b)
            .fold(0.0, |m, (a, b)| f32::max(m, (a - b).abs()))
    }
}
