//! The small matrix product that attention and the bf16 products are made of: `c = start + a b`, all
//! operands packed and in the cache.
//!
//! ```text
//! a: panels of ROWS rows     [panels][depth / GROUP][ROWS][GROUP]    one number is spread over a vector
//! b: up to E::WIDTH columns  [depth / GROUP][width][GROUP]           loaded as vectors
//! c: row-major               [panels * ROWS][width]                  f32
//! ```
//!
//! `GROUP` is what one instruction sums: 1 for f32 and f16, 2 for bf16 (`vdpbf16ps`, `bfdot`). A tile
//! of 8 rows by 48 columns (96 in f16) takes 24 of AVX-512's 32 registers, and 11 loads for 24
//! multiplications. The layout is the same for every instruction set; one with fewer registers walks
//! a tile in parts.
//!
//! [`Tile`] is what an instruction set's file provides, `scalar` the reference and the fallback.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_fp16;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod prefetch;
mod scalar;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512_fp16::Avx512Fp16;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, NeonBf16};
pub(crate) use prefetch::{L1, L2, PrefetchStream, prefetch, prefetch_at, prefetch_l2};
pub(crate) use scalar::Scalar;

/// Rows in a panel of `a`.
pub(crate) const ROWS: usize = 8;
/// Columns of a vector of AVX-512 in f32, of which widths are multiples.
pub(crate) const LANES: usize = 16;
/// The most columns of `b` in f32 and bf16.
pub(crate) const WIDTH: usize = 3 * LANES;
/// The same in f16, and so of all.
pub(crate) const MAX_WIDTH: usize = 2 * WIDTH;

/// A number that operands are made of.
pub(crate) trait Element: Copy + Default + PartialEq + Send + Sync + 'static {
    /// How many along the summed dimension lie side by side.
    const GROUP: usize;
    /// Widths are multiples of it.
    const LANES: usize = LANES;
    /// The most columns of `b`.
    const WIDTH: usize = 3 * Self::LANES;
    /// Whether sums of products of numbers in -1..1 are safe and those of others may not be: they
    /// are made in the type itself.
    const SUMS_IN_TYPE: bool = false;
    /// The numbers as they are, if this is their type.
    fn borrow_f32(_: &[f32]) -> Option<&[Self]> {
        None
    }
    /// To the nearest; of two equally near, to the even one.
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const GROUP: usize = 1;
    fn borrow_f32(values: &[f32]) -> Option<&[Self]> {
        Some(values)
    }
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

impl Element for f16 {
    const GROUP: usize = 1;
    const LANES: usize = 2 * LANES;
    const SUMS_IN_TYPE: bool = true;
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
    fn convert(self, from: &[f32], scale: f32, to: &mut [Self::Element]);

    /// The largest finite absolute value, or zero.
    fn max_finite_abs(self, values: &[f32]) -> f32 {
        let finite = values.iter().map(|v| v.abs()).filter(|v| v.is_finite());
        finite.fold(0.0, f32::max)
    }

    /// Eight rows as columns of `to`, each step of which is `width` of them wide:
    /// `to[(k / GROUP * width + r) * GROUP + k % GROUP] = rows[r][k]`. With eight of width they are a
    /// panel of `a`, else a part of `b`.
    ///
    /// # Panics
    /// If the rows are not equally long, or not whole groups.
    fn transpose(self, rows: [&[Self::Element]; ROWS], width: usize, to: &mut [Self::Element]) {
        transpose(rows, width, to);
    }

    /// `c = start + a b` in the layout above.
    ///
    /// A column of `c` depends on nothing but its column of `b`, so the cut into widths changes
    /// no number. A narrow type's products are summed in that type, up to 64 of them, then in f32.
    ///
    /// # Panics
    /// If the lengths do not agree, or `width` is not one, two or three times [`Element::LANES`].
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
        width > 0 && width <= E::WIDTH && width.is_multiple_of(E::LANES),
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

/// [`Tile::transpose`] in plain Rust.
fn transpose<E: Element>(rows: [&[E]; ROWS], width: usize, to: &mut [E]) {
    let depth = depth_of(&rows);
    crate::vectorized(|| {
        let rows = rows.map(|row| &row[..depth]);
        let steps = to.chunks_mut(width * E::GROUP).take(depth / E::GROUP);
        for (step, groups) in steps.enumerate() {
            let groups = groups[..ROWS * E::GROUP].chunks_exact_mut(E::GROUP);
            for (group, row) in groups.zip(rows) {
                group.copy_from_slice(&row[step * E::GROUP..][..E::GROUP]);
            }
        }
    });
}

/// How long rows are that [`Tile::transpose`] takes.
fn depth_of<E: Element>(rows: &[&[E]; ROWS]) -> usize {
    let depth = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == depth), "equally long");
    assert!(depth.is_multiple_of(E::GROUP), "whole groups");
    depth
}

/// `rows: [ROWS, depth]` as [`Tile::transpose`] takes them.
pub(crate) fn split_rows<E>(rows: &[E]) -> [&[E]; ROWS] {
    let depth = rows.len() / ROWS;
    std::array::from_fn(|r| &rows[r * depth..][..depth])
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

    /// Makes it so long, in the memory that is there if it suffices; what it holds has no meaning.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.first + len > self.data.len() {
            self.data = Vec::new(); // before there is the new one
            *self = Self::zeros(len);
        }
        self.len = len;
    }

    /// Bytes that a buffer of `len` takes.
    pub(crate) fn bytes(len: usize) -> usize {
        len * size_of::<E>() + Self::LINE_BYTES
    }
}

impl<E: Element> Default for Buffer<E> {
    fn default() -> Self {
        Self::zeros(0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::testing::noise;

    /// Sums of up to 130 products of numbers in -1..1, in another order or with fused additions.
    const TOLERANCE: f32 = 1e-5;
    /// The same, each step rounded to f16: sums are below 16, so by 0.004 at the most.
    const NARROW_TOLERANCE: f32 = 0.03;

    fn numbers<E: Element>(len: usize, seed: u32) -> Vec<E> {
        noise(1, len, seed).into_iter().map(E::from_f32).collect()
    }

    /// All widths, starts and numbers of panels, and depths from none on, against the definition.
    fn equals_the_definition<K: Tile>(kernels: K) {
        let group = K::Element::GROUP;
        let tolerance = if K::Element::SUMS_IN_TYPE {
            NARROW_TOLERANCE
        } else {
            TOLERANCE
        };
        for width in (K::Element::LANES..=K::Element::WIDTH).step_by(K::Element::LANES) {
            for depth in (0..20).chain([63, 64, 65]).map(|d| d * group) {
                for panels in 0..3 {
                    let rows = panels * ROWS;
                    let a = numbers::<K::Element>(rows * depth, 1);
                    let b = numbers::<K::Element>(depth * width, 2);
                    let before = numbers::<f32>(rows * width, 3);
                    let by = numbers::<f32>(width, 4);
                    for start in [Start::Zero, Start::Add, Start::Scaled(&by)] {
                        let mut c = before.clone();
                        kernels.multiply(&a, &b, width, start, &mut c);
                        for (i, c) in c.iter().enumerate() {
                            let (row, column) = (i / width, i % width);
                            let sum: f32 = (0..depth)
                                .map(|k| {
                                    let b = b[(k / group * width + column) * group + k % group];
                                    a[at::<K::Element>(row, k, depth)].to_f32() * b.to_f32()
                                })
                                .sum();
                            let expected = sum
                                + match start {
                                    Start::Zero => 0.0,
                                    Start::Add => before[i],
                                    Start::Scaled(by) => before[i] * by[column],
                                };
                            let case = format!("{panels} x {depth} x {width}, {start:?}, {i}");
                            assert!((c - expected).abs() < tolerance, "{case}: {c} {expected}");
                        }
                    }
                }
            }
        }
    }

    /// Into a panel, and into the last columns of a wider one whose others stay as they are.
    fn transposes_rows<K: Tile>(kernels: K) {
        let group = K::Element::GROUP;
        for depth in (0..=20).chain([63, 64]).map(|d| d * group) {
            let rows = numbers::<K::Element>(ROWS * depth, 7);
            for width in [ROWS, 2 * LANES, WIDTH] {
                let first = (width - ROWS) * group;
                let before = numbers::<K::Element>(depth * width, 8);
                let mut expected = before.clone();
                for (r, row) in rows.chunks(depth.max(1)).enumerate() {
                    for (k, value) in row.iter().enumerate() {
                        expected[first + (k / group * width + r) * group + k % group] = *value;
                    }
                }
                let mut found = before;
                kernels.transpose(
                    split_rows(&rows),
                    width,
                    &mut found[first.min(depth * width)..],
                );
                assert!(found == expected, "{depth} steps of {width}");
            }
        }
    }

    /// Every length up to some vectors, and the numbers at which rounding has to choose.
    fn converts_like_scalar<K: Tile>(kernels: K) {
        let mut values = vec![
            0.0,
            -0.0,
            1.0,
            1.003_906_2,
            1.011_718_7,
            3.4e38,
            -3.4e38,
            1e-30,
        ];
        values.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        values.extend(noise(1, 60, 5));
        for len in 0..values.len() {
            let mut found = vec![K::Element::default(); len];
            kernels.convert(&values[..len], 0.75, &mut found);
            for (found, value) in found.iter().zip(&values) {
                let (found, expected) = (found.to_f32(), K::Element::from_f32(0.75 * value));
                let expected = expected.to_f32();
                assert!(
                    found == expected || (found.is_nan() && expected.is_nan()),
                    "{value}"
                );
            }
        }
    }

    /// Every length up to some vectors, the largest at the end, and numbers that do not count.
    fn finds_the_largest<K: Tile>(kernels: K) {
        let mut values = noise(1, 70, 6).into_raw_vec_and_offset().0;
        for len in 1..values.len() {
            values[len - 1] = if len % 2 == 0 { 1e30 } else { -1e30 } * len as f32;
            assert_eq!(kernels.max_finite_abs(&values[..len]), 1e30 * len as f32);
        }
        values.fill(f32::NAN);
        assert_eq!(kernels.max_finite_abs(&values), 0.0);
        values[3] = f32::NEG_INFINITY;
        values[68] = -2.0;
        assert_eq!(kernels.max_finite_abs(&values), 2.0);
        assert_eq!(kernels.max_finite_abs(&[]), 0.0);
    }

    #[test]
    fn scalar_equals_the_definition() {
        equals_the_definition(Scalar::<f32>::default());
        equals_the_definition(Scalar::<bf16>::default());
        equals_the_definition(Scalar::<f16>::default());
        finds_the_largest(Scalar::<f16>::default());
        converts_like_scalar(Scalar::<bf16>::default());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_x86_level_equals_the_definition() {
        for cpu in crate::cpu::available() {
            if let Some(kernels) = Avx2::new(cpu) {
                equals_the_definition(kernels);
                converts_like_scalar(kernels);
                transposes_rows(kernels);
            }
            if let Some(kernels) = Avx512::new(cpu) {
                equals_the_definition(kernels);
                converts_like_scalar(kernels);
                transposes_rows(kernels);
            }
            if let Some(kernels) = Avx512Bf16::new(cpu) {
                equals_the_definition(kernels);
                converts_like_scalar(kernels);
                transposes_rows(kernels);
            }
            if let Some(kernels) = Avx512Fp16::new(cpu) {
                finds_the_largest(kernels);
                equals_the_definition(kernels);
                converts_like_scalar(kernels);
                transposes_rows(kernels);
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn every_arm_level_equals_the_definition() {
        for cpu in crate::cpu::available() {
            if let Some(kernels) = Neon::new(cpu) {
                equals_the_definition(kernels);
                converts_like_scalar(kernels);
                transposes_rows(kernels);
            }
            if let Some(kernels) = NeonBf16::new(cpu) {
                equals_the_definition(kernels);
                converts_like_scalar(kernels);
                transposes_rows(kernels);
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn no_arm_level_gives_kernels_of_a_wider_one() {
        assert!(Neon::new(Cpu::Scalar).is_none());
        assert!(NeonBf16::new(Cpu::NeonDotprod).is_none());
        assert!(Neon::new(Cpu::Avx512Bf16).is_none(), "this CPU has none");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn no_level_gives_kernels_of_a_wider_one() {
        assert!(Avx2::new(Cpu::Scalar).is_none());
        assert!(Avx512::new(Cpu::Avx2).is_none());
        assert!(Avx512Bf16::new(Cpu::Avx512).is_none());
        assert!(Avx512Fp16::new(Cpu::Avx512Bf16).is_none());
        assert!(Avx512::new(Cpu::Neon).is_none(), "this CPU has none");
    }

    #[test]
    fn buffers_begin_at_a_cache_line() {
        for len in [0, 1, 15, 16, 1000] {
            let buffer = Buffer::<bf16>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(64), 0);
            assert!(buffer.data.capacity() * 2 <= Buffer::<bf16>::bytes(len));
        }
    }
}
