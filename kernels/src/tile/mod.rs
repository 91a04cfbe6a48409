//! The small matmul inside attention and the float matmuls: `c = start + a b`, with all operands
//! packed and in the cache.
//!
//! ```text
//! a: panels of ROWS rows     [panels][depth / GROUP][ROWS][GROUP]    one element is broadcast to a vector
//! b: up to E::WIDTH columns  [depth / GROUP][width][GROUP]           loaded as vectors
//! c: row-major               [panels * ROWS][width]                  f32
//! ```
//!
//! `GROUP` is the number of products that one instruction sums: 1 for f32 and f16, 2 for bf16
//! (`vdpbf16ps`, `bfdot`). A tile of 8 rows by 48 columns (96 in f16) takes 24 of AVX-512's 32
//! registers, and 11 loads for 24 multiplications. All instruction sets have the same layout; those
//! with fewer registers compute a tile in parts.
//!
//! The file of each instruction set implements [`Tile`]; `scalar` is the reference and the
//! fallback.

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

/// Rows of a panel of `a`.
pub(crate) const ROWS: usize = 8;
/// f32 elements of an AVX-512 vector. Widths are multiples of it.
pub(crate) const LANES: usize = 16;
/// Most columns of `b` in f32 and bf16.
pub(crate) const WIDTH: usize = 3 * LANES;
/// Most columns of `b` in any type, which is that of f16.
pub(crate) const MAX_WIDTH: usize = 2 * WIDTH;

/// The type of the operands.
pub(crate) trait Element: Copy + Default + PartialEq + Send + Sync + 'static {
    /// Consecutive elements of the summed dimension that are stored side by side.
    const GROUP: usize;
    /// Widths are multiples of this.
    const LANES: usize = LANES;
    /// Most columns of `b`.
    const WIDTH: usize = 3 * Self::LANES;
    /// Whether products are summed in this type, so that only sums of products of numbers in -1..1
    /// are safe from overflow.
    const SUMS_IN_TYPE: bool = false;
    /// Rounds to the nearest, ties to even.
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

/// The initial value of `c`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Zero. The old contents do not matter, even if they are NaN.
    Zero,
    /// The old contents.
    Add,
    /// The old contents, each column times its factor `[width]`.
    Scaled(&'a [f32]),
}

/// The micro-kernels of one instruction set for one type of operands. A value proves that this CPU
/// has the set.
pub(crate) trait Tile: Copy + Send + Sync {
    type Element: Element;

    /// `to[i] = scale * from[i]` in the operands' type, for slices of the same length.
    fn convert(self, from: &[f32], scale: f32, to: &mut [Self::Element]);

    /// The largest finite absolute value, or zero.
    fn max_finite_abs(self, values: &[f32]) -> f32 {
        let finite = values.iter().map(|v| v.abs()).filter(|v| v.is_finite());
        finite.fold(0.0, f32::max)
    }

    /// Transposes eight rows into columns of `to`, which is `width` columns wide: `to[(k / GROUP *
    /// width + r) * GROUP + k % GROUP] = rows[r][k]`. With a width of eight they are a panel of
    /// `a`, else a part of `b`.
    ///
    /// # Panics
    /// If the rows differ in length, or their length is not a multiple of `GROUP`.
    fn transpose(self, rows: [&[Self::Element]; ROWS], width: usize, to: &mut [Self::Element]) {
        transpose(rows, width, to);
    }

    /// `c = start + a b` in the layout above.
    ///
    /// A column of `c` depends only on its column of `b`, so results do not depend on the width.
    /// f16 products are summed in f16, up to 64 of them, then in f32.
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

/// Checks that the operands of [`Tile::multiply`] fit together and returns the depth.
fn check<E: Element>(a: &[E], b: &[E], width: usize, start: Start, c: &[f32]) -> usize {
    assert!(
        width > 0 && width <= E::WIDTH && width.is_multiple_of(E::LANES),
        "width must be 1 to 3 times LANES"
    );
    let depth = b.len() / width;
    assert_eq!(b.len(), depth * width, "b must be whole rows");
    assert!(
        depth.is_multiple_of(E::GROUP),
        "the depth must be a multiple of GROUP"
    );
    let rows = c.len() / width;
    assert_eq!(c.len(), rows * width, "c must be whole rows");
    assert!(rows.is_multiple_of(ROWS), "c must be whole panels");
    assert_eq!(a.len(), rows * depth, "a must be [rows of c, depth of b]");
    if let Start::Scaled(scale) = start {
        assert_eq!(scale.len(), width, "one factor per column");
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

/// The common length of rows for [`Tile::transpose`].
fn depth_of<E: Element>(rows: &[&[E]; ROWS]) -> usize {
    let depth = rows[0].len();
    assert!(
        rows.iter().all(|row| row.len() == depth),
        "rows must have the same length"
    );
    assert!(
        depth.is_multiple_of(E::GROUP),
        "the depth must be a multiple of GROUP"
    );
    depth
}

/// Splits `rows: [ROWS, depth]` for [`Tile::transpose`].
pub(crate) fn split_rows<E>(rows: &[E]) -> [&[E]; ROWS] {
    let depth = rows.len() / ROWS;
    std::array::from_fn(|r| &rows[r * depth..][..depth])
}

/// Index of row `row` and step `k` of the summed dimension in panels of `a`.
#[inline(always)]
pub(crate) fn at<E: Element>(row: usize, k: usize, depth: usize) -> usize {
    row / ROWS * ROWS * depth
        + k / E::GROUP * ROWS * E::GROUP
        + row % ROWS * E::GROUP
        + k % E::GROUP
}

/// Copies a row of `depth` elements to its place in panels of `a`.
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

/// Copies a column of `depth` elements to its place in `b` of `width` columns.
#[inline(always)]
pub(crate) fn place_column<E: Element>(column: usize, values: &[E], width: usize, b: &mut [E]) {
    let lane = column * E::GROUP;
    let steps = b.chunks_exact_mut(width * E::GROUP);
    for (step, group) in steps.zip(values.chunks_exact(E::GROUP)) {
        step[lane..lane + E::GROUP].copy_from_slice(group);
    }
}

/// A buffer that starts at a cache line, so that no vector load crosses two lines.
pub(crate) struct Buffer<E> {
    data: Vec<E>,
    first: usize,
    len: usize,
}

impl<E: Element> Buffer<E> {
    const LINE_BYTES: usize = 64;

    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let data = vec![E::default(); len + Self::LINE_BYTES / size_of::<E>()];
        let first = data.as_ptr().align_offset(Self::LINE_BYTES);
        // The alignment matters only for speed. If the offset is unknown, zero is as good.
        let first = if first + len <= data.len() { first } else { 0 };
        Self { data, first, len }
    }

    /// Sets the length and reuses the memory if it suffices. The contents are unspecified.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.first + len > self.data.len() {
            self.data = Vec::new(); // free it before the new one is allocated
            *self = Self::zeros(len);
        }
        self.len = len;
    }

    /// Bytes that a buffer of `len` elements takes.
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
    /// The same, with each step rounded to f16: sums are below 16, so the error is at most 0.004
    /// per step.
    const F16_TOLERANCE: f32 = 0.03;

    fn numbers<E: Element>(len: usize, seed: u32) -> Vec<E> {
        noise(1, len, seed).into_iter().map(E::from_f32).collect()
    }

    /// Compares with the definition for all widths and starts, 0 to 2 panels, and depths from zero
    /// on.
    fn equals_the_definition<K: Tile>(kernels: K) {
        let group = K::Element::GROUP;
        let tolerance = if K::Element::SUMS_IN_TYPE {
            F16_TOLERANCE
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

    /// Transposes into a panel, and into the last columns of a wider one whose other columns must
    /// not change.
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

    /// Every length up to a few vectors, and numbers that test the rounding.
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

    /// Every length up to a few vectors with the largest value at the end, and values that must be
    /// ignored.
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
    fn arm_levels_do_not_enable_wider_kernels() {
        assert!(Neon::new(Cpu::Scalar).is_none());
        assert!(NeonBf16::new(Cpu::NeonDotprod).is_none());
        assert!(
            Neon::new(Cpu::Avx512Bf16).is_none(),
            "this is a level of another architecture"
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn x86_levels_do_not_enable_wider_kernels() {
        assert!(Avx2::new(Cpu::Scalar).is_none());
        assert!(Avx512::new(Cpu::Avx2).is_none());
        assert!(Avx512Bf16::new(Cpu::Avx512).is_none());
        assert!(Avx512Fp16::new(Cpu::Avx512Bf16).is_none());
        assert!(
            Avx512::new(Cpu::Neon).is_none(),
            "this is a level of another architecture"
        );
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
