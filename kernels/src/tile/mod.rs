//! The small matrix product that attention and the bf16 products are made of: `c = start + a b`, all
//! operands packed and in the cache.
//!
//! ```text
//! a: panels of ROWS rows     [panels][depth / GROUP][ROWS][GROUP]    one number is spread over a vector
//! b: up to WIDTH columns     [depth / GROUP][width][GROUP]           loaded as vectors
//! c: row-major               [panels * ROWS][width]                  f32
//! ```
//!
//! `GROUP` is what one instruction sums: 1 for f32, 2 for bf16 (`vdpbf16ps`, `bfdot`). A tile of 8
//! rows by 48 columns takes 24 of AVX-512's 32 registers, and 11 loads for 24 multiplications. The
//! layout is the same for every instruction set; one with fewer registers walks a tile in parts.
//!
//! [`Tile`] is what an instruction set's file provides, `scalar` the reference and the fallback.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod scalar;

use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
pub(crate) use scalar::Scalar;

/// Rows in a panel of `a`.
pub(crate) const ROWS: usize = 8;
/// Widths are multiples of it: a vector of AVX-512.
pub(crate) const LANES: usize = 16;
/// The most columns of `b`.
pub(crate) const WIDTH: usize = 3 * LANES;

/// A number that operands are made of.
pub(crate) trait Element: Copy + Default + PartialEq + Send + Sync + 'static {
    /// How many along the summed dimension lie side by side.
    const GROUP: usize;
    /// To the nearest; of two equally near, to the even one.
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const GROUP: usize = 1;
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const GROUP: usize = 2;
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// What `c` starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Nothing: what it held does not matter, not even if it was no number.
    Zero,
    /// What it held.
    Add,
    /// What it held, each column times one of these `[width]`.
    Scaled(&'a [f32]),
}

/// The micro-kernels of one instruction set for one type of operands. A value is the proof that this
/// CPU has the set.
pub(crate) trait Tile: Copy + Send + Sync {
    type Element: Element;

    /// `to[i] = scale * from[i]` in the operands' type; both of the same length, whatever it is.
    fn narrow(self, from: &[f32], scale: f32, to: &mut [Self::Element]);

    /// `c = start + a b` in the layout above.
    ///
    /// A column of `c` depends on nothing but its column of `b`, so the cut into widths changes
    /// no number.
    ///
    /// # Panics
    /// If the lengths do not agree, or `width` is not 16, 32 or 48.
    fn multiply(
        self,
        a: &[Self::Element],
        b: &[Self::Element],
        width: usize,
        start: Start,
        c: &mut [f32],
    );
}

/// Whether the operands of [`Tile::multiply`] fit together; gives the depth.
fn check<E: Element>(a: &[E], b: &[E], width: usize, start: Start, c: &[f32]) -> usize {
    assert!(
        width > 0 && width <= WIDTH && width.is_multiple_of(LANES),
        "width"
    );
    let depth = b.len() / width;
    assert_eq!(b.len(), depth * width, "whole rows of b");
    assert!(depth.is_multiple_of(E::GROUP), "whole groups");
    let rows = c.len() / width;
    assert_eq!(c.len(), rows * width, "whole rows of c");
    assert!(rows.is_multiple_of(ROWS), "whole panels");
    assert_eq!(a.len(), rows * depth, "rows of a as of c, depth as of b");
    if let Start::Scaled(scale) = start {
        assert_eq!(scale.len(), width, "a factor for each column");
    }
    depth
}

/// Where row `row` and step `k` of the summed dimension lie in panels of `a`.
#[inline(always)]
pub(crate) fn at<E: Element>(row: usize, k: usize, depth: usize) -> usize {
    row / ROWS * ROWS * depth
        + k / E::GROUP * ROWS * E::GROUP
        + row % ROWS * E::GROUP
        + k % E::GROUP
}

/// Copies a row of `depth` numbers to its place in panels of `a`.
#[inline(always)]
pub(crate) fn place_row<E: Element>(row: usize, values: &[E], panels: &mut [E]) {
    let depth = values.len();
    let panel = &mut panels[row / ROWS * ROWS * depth..][..ROWS * depth];
    let lane = row % ROWS * E::GROUP;
    let steps = panel.chunks_exact_mut(ROWS * E::GROUP);
    for (step, group) in steps.zip(values.chunks_exact(E::GROUP)) {
        step[lane..lane + E::GROUP].copy_from_slice(group);
    }
}

/// Copies a column of `depth` numbers to its place in `b` of `width` columns.
#[inline(always)]
pub(crate) fn place_column<E: Element>(column: usize, values: &[E], width: usize, b: &mut [E]) {
    let lane = column * E::GROUP;
    let steps = b.chunks_exact_mut(width * E::GROUP);
    for (step, group) in steps.zip(values.chunks_exact(E::GROUP)) {
        step[lane..lane + E::GROUP].copy_from_slice(group);
    }
}

/// Numbers that begin at a cache line, so that no vector of them lies across two.
pub(crate) struct Buffer<E> {
    data: Vec<E>,
    first: usize,
    len: usize,
}

impl<E: Element> Buffer<E> {
    const LINE_BYTES: usize = 64;

    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let data = vec![E::default(); len + Self::LINE_BYTES / size_of::<E>()];
        let first = data.as_ptr().align_offset(Self::LINE_BYTES);
        // The offset is only a matter of speed: where it is unknown, none is as good.
        let first = if first + len <= data.len() { first } else { 0 };
        Self { data, first, len }
    }

    /// Bytes that a buffer of `len` takes.
    pub(crate) fn bytes(len: usize) -> usize {
        len * size_of::<E>() + Self::LINE_BYTES
    }
}

impl<E> std::ops::Deref for Buffer<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.data[self.first..self.first + self.len]
    }
}

impl<E> std::ops::DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.data[self.first..self.first + self.len]
    }
}
