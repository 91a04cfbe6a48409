//! Rearranges rows of the checkpoint into rows of the file.

use std::ops::Range;

use crate::checkpoint::{CheckpointError, SourceTensor};

/// How to rearrange the rows of a tensor, with the sizes needed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearrange {
    /// Unchanged.
    Keep,
    /// See [`Rows::Qkv`](crate::tensor_map::Rows::Qkv).
    Qkv {
        /// Query heads.
        n_head: usize,
        /// Key and value heads.
        n_head_kv: usize,
        /// Rows of a head.
        d_head: usize,
    },
    /// The position table of `from` x `from` patches and one class token, resized to `to` x `to`.
    Positions {
        /// Stored grid.
        from: usize,
        /// Target grid.
        to: usize,
    },
}

/// Reusable buffers of a thread.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    rows: Vec<f32>,
}

/// Neighbouring rows of the source, and the order in which they are in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRows {
    /// The rows.
    pub source: Range<usize>,
    /// Offsets within `source`.
    pub order: Vec<usize>,
}

/// A weight that is not finite.
#[derive(Debug)]
pub struct NonFinite {
    /// Index in the checkpoint's tensor.
    pub index: Vec<usize>,
    /// NaN or an infinity.
    pub value: f32,
}

/// Why rows could not be read.
#[derive(Debug)]
pub enum FetchError {
    /// They could not be read.
    Read(CheckpointError),
    /// They contain a NaN or an infinity.
    NonFinite(NonFinite),
}

impl Rearrange {
    /// Number of rows in the file for a tensor of the checkpoint.
    pub fn n_rows(self, source: &SourceTensor) -> usize {
        match self {
            Self::Positions { to, .. } => to * to + 1,
            _ => source.n_rows(),
        }
    }

    /// Rows that must be made together: pieces of a tensor are multiples of this.
    pub fn unit(self, source: &SourceTensor) -> usize {
        match self {
            Self::Keep => 1,
            Self::Qkv { d_head, .. } => d_head,
            Self::Positions { .. } => self.n_rows(source),
        }
    }

    /// The source rows of the file's rows in `range`, which covers whole units, where rows are only moved.
    ///
    /// # Panics
    /// If rows are resized.
    pub fn source_rows(self, range: Range<usize>) -> Vec<SourceRows> {
        match self {
            Self::Keep => vec![SourceRows {
                order: (0..range.len()).collect(),
                source: range,
            }],
            Self::Qkv {
                n_head,
                n_head_kv,
                d_head,
            } => (range.start / d_head..range.end / d_head)
                .map(|block| {
                    let (from, rotated) = qkv_source_block(block, n_head, n_head_kv);
                    let half = d_head / 2;
                    let order = (0..d_head).map(|i| match rotated {
                        true => i / 2 + i % 2 * half,
                        false => i,
                    });
                    SourceRows {
                        source: from * d_head..(from + 1) * d_head,
                        order: order.collect(),
                    }
                })
                .collect(),
            Self::Positions { .. } => panic!("rows are resized"),
        }
    }

    /// Makes the file's rows in `range`, which covers whole units.
    ///
    /// # Errors
    /// If they cannot be read or are not finite.
    pub fn fetch(
        self,
        source: &SourceTensor,
        range: Range<usize>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), FetchError> {
        match self {
            Self::Keep => read(source, range, &mut scratch.bytes, out),
            Self::Qkv {
                n_head,
                n_head_kv,
                d_head,
            } => {
                let block_len = d_head * source.row_len();
                scratch.rows.resize(block_len, 0.0);
                for (block, out) in (range.start / d_head..).zip(out.chunks_exact_mut(block_len)) {
                    let (from, rotated) = qkv_source_block(block, n_head, n_head_kv);
                    let rows = from * d_head..(from + 1) * d_head;
                    if rotated {
                        read(source, rows, &mut scratch.bytes, &mut scratch.rows)?;
                        interleave_halves(&scratch.rows, d_head, out);
                    } else {
                        read(source, rows, &mut scratch.bytes, out)?;
                    }
                }
                Ok(())
            }
            Self::Positions { from, to } => {
                scratch.rows.resize(source.n_elements(), 0.0);
                read(
                    source,
                    0..source.n_rows(),
                    &mut scratch.bytes,
                    &mut scratch.rows,
                )?;
                resize_positions(&scratch.rows, from, to, out);
                Ok(())
            }
        }
    }
}

fn read(
    source: &SourceTensor,
    range: Range<usize>,
    bytes: &mut Vec<u8>,
    out: &mut [f32],
) -> Result<(), FetchError> {
    let first = range.start * source.row_len();
    source
        .read_rows(range, bytes, out)
        .map_err(FetchError::Read)?;
    if is_finite(out) {
        return Ok(());
    }
    match out.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(FetchError::NonFinite(NonFinite {
            index: unravel(first + at, &source.shape),
            value: out[at],
        })),
        None => Ok(()),
    }
}

/// Whether all values are finite. As bits, NaN and infinity are the largest magnitudes, and unlike a search, an
/// integer maximum is vectorized.
fn is_finite(values: &[f32]) -> bool {
    let magnitudes = values.iter().map(|x| x.abs().to_bits());
    magnitudes.fold(0, u32::max) < f32::INFINITY.to_bits()
}

/// Index along each dimension of the element at `flat` in row-major order.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&len| {
            let i = flat % len;
            flat /= len;
            i
        })
        .collect();
    index.reverse();
    index
}

/// Which head-sized block of `wqkv` becomes block `block` of the file, and whether it is a query or key, whose
/// rows are rotated.
///
/// The checkpoint has, for every KV head, the query heads that share it, the key and the value;
/// the file has all queries, all keys, all values.
fn qkv_source_block(block: usize, n_head: usize, n_head_kv: usize) -> (usize, bool) {
    let n_shared = n_head / n_head_kv;
    let group_len = n_shared + 2;
    if block < n_head {
        return (block / n_shared * group_len + block % n_shared, true);
    }
    let head = (block - n_head) % n_head_kv;
    let is_value = block >= n_head + n_head_kv;
    (
        head * group_len + n_shared + usize::from(is_value),
        !is_value,
    )
}

/// Row i of the first half becomes row 2i, row i of the second half becomes row 2i + 1.
fn interleave_halves(rows: &[f32], d_head: usize, out: &mut [f32]) {
    let row_len = rows.len() / d_head;
    let half = d_head / 2;
    for (i, out) in out.chunks_exact_mut(row_len).enumerate() {
        let from = i / 2 + i % 2 * half;
        out.copy_from_slice(&rows[from * row_len..(from + 1) * row_len]);
    }
}

/// Resizes a position table as the published code does when it loads the weights: PyTorch's bicubic
/// interpolation (a = -0.75, corners not aligned, no antialiasing), computed in `f32` and rounded to `f16`. Row 0,
/// the class token's, is copied.
fn resize_positions(table: &[f32], from: usize, to: usize, out: &mut [f32]) {
    let n_embd = table.len() / (from * from + 1);
    let (class, patches) = table.split_at(n_embd);
    out[..n_embd].copy_from_slice(class);
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|i| bicubic_taps(i, from, to)).collect();
    for (i, row) in out[n_embd..].chunks_exact_mut(n_embd).enumerate() {
        row.fill(0.0);
        for (y, wy) in taps[i / to] {
            for (x, wx) in taps[i % to] {
                let source = &patches[(y * from + x) * n_embd..][..n_embd];
                for (out, value) in row.iter_mut().zip(source) {
                    *out += wy * wx * value;
                }
            }
        }
        for value in row {
            *value = half::f16::from_f32(*value).to_f32();
        }
    }
}

/// Positions and weights of the four neighbours of `i`; the edge is repeated beyond the edge.
fn bicubic_taps(i: usize, from: usize, to: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let at = (i as f32 + 0.5) * (from as f32 / to as f32) - 0.5;
    let floor = at.floor();
    [-1.0, 0.0, 1.0, 2.0].map(|step| {
        let d = (at - (floor + step)).abs();
        let weight = if d <= 1.0 {
            ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0
        } else {
            ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A
        };
        (
            (floor + step).clamp(0.0, (from - 1) as f32) as usize,
            weight,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_heads_become_all_queries_all_keys_all_values() {
        // Two KV heads of two query heads each: q0 q1 k0 v0 q2 q3 k1 v1.
        let blocks: Vec<usize> = (0..8).map(|b| qkv_source_block(b, 4, 2).0).collect();
        assert_eq!(blocks, [0, 1, 4, 5, 2, 6, 3, 7]);
        let rotated: Vec<bool> = (0..8).map(|b| qkv_source_block(b, 4, 2).1).collect();
        assert_eq!(rotated, [true, true, true, true, true, true, false, false]);
    }

    #[test]
    fn as_many_kv_heads_as_heads_works_too() {
        let blocks: Vec<usize> = (0..6).map(|b| qkv_source_block(b, 2, 2).0).collect();
        assert_eq!(blocks, [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn halves_are_interleaved() {
        let mut out = [0.0; 6];
        interleave_halves(&[0., 1., 2., 3., 4., 5.], 6, &mut out);
        assert_eq!(out, [0., 3., 1., 4., 2., 5.]);
    }

    #[test]
    fn bicubic_weights_sum_to_one_and_are_exact_at_the_same_size() {
        for (from, to) in [(24, 16), (24, 35), (24, 24)] {
            for i in 0..to {
                let taps = bicubic_taps(i, from, to);
                let sum: f32 = taps.iter().map(|t| t.1).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{from} to {to} at {i}: {sum}");
                assert!(taps.iter().all(|t| t.0 < from));
            }
        }
        assert_eq!(bicubic_taps(5, 24, 24)[1], (5, 1.0));
    }

    #[test]
    fn a_known_resize() {
        // torch.nn.functional.interpolate of [[0, 1], [2, 3]] to 4 x 4, bicubic: its first row.
        let mut out = [0.0; 17];
        resize_positions(&[9., 0., 1., 2., 3.], 2, 4, &mut out);
        assert_eq!(out[0], 9.0);
        let expected = [-0.316_406_25, 0.015_625, 0.5625, 0.894_531_25];
        for (found, expected) in out[1..5].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{:?}", &out[1..5]);
        }
    }

    #[test]
    fn nan_and_infinity_are_distinguished_from_the_largest_numbers() {
        assert!(is_finite(&[
            f32::MAX,
            f32::MIN,
            0.0,
            -0.0,
            f32::MIN_POSITIVE
        ]));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!is_finite(&[1.0, bad, 2.0]), "{bad}");
        }
    }

    #[test]
    fn flat_indices_become_indices() {
        assert_eq!(unravel(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(unravel(5, &[7]), [5]);
    }
}
