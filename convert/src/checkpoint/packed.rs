//! Linear layers in the 4-bit layouts of AutoGPTQ and AWQ, read as if they were dense.
//!
//! Both store an integer `q` of 4 bits per weight, and per group of inputs and output a scale and a zero point `z`:
//! `W[out, in] = scale * (q - z)`. Words of 32 bits hold eight numbers. With I inputs, O outputs and groups of g:
//!
//! ```text
//!           qweight            qzeros              scales       number k of a word belongs to
//! GPTQ      [I / 8, O]         [I / g, O / 8]      [I / g, O]   input 8 r + k; zero point: output 8 c + k
//! AWQ       [I, O / 8]         [I / g, O / 8]      [I / g, O]   output 8 c + [0, 2, 4, 6, 1, 3, 5, 7][k]
//! ```
//!
//! GPTQ's zero points are stored less one, except in the format `gptq_v2`. Its `g_idx` gives the group of each input;
//! groups may be unordered (`desc_act`).

use std::{ops::Range, sync::Arc};

use half::f16;
use xc2_edge::model::quant::GgmlType;

use super::{CheckpointError, SourceTensor};

/// Numbers per word.
const PER_WORD: usize = 8;
/// The output within a word of AWQ, for each number of the word.
const AWQ_ORDER: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Inputs of a block of ggml's Q4_0 and Q5_0.
pub const BLOCK: usize = 32;

/// A packed layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedFormat {
    /// AutoGPTQ's. `stored_minus_one` is whether zero points are stored less one.
    Gptq {
        /// See above.
        stored_minus_one: bool,
    },
    /// AutoAWQ's and LMDeploy's.
    Awq,
}

impl PackedFormat {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gptq { .. } => "GPTQ",
            Self::Awq => "AWQ",
        }
    }
}

/// A packed linear layer, `[n_out, n_in]`.
#[derive(Debug)]
pub struct PackedLinear {
    format: PackedFormat,
    n_out: usize,
    n_in: usize,
    qweight: SourceTensor,
    /// `[groups][n_out]`
    zeros: Vec<u8>,
    /// `[groups][n_out]`
    scales: Vec<f32>,
    /// Whether ggml's blocks can hold the scales exactly.
    has_f16_scales: bool,
    /// The group of each input.
    groups: Vec<u32>,
}

/// The tensors of a packed layer.
pub struct PackedParts<'a> {
    /// The integers.
    pub qweight: &'a SourceTensor,
    /// The zero points.
    pub qzeros: &'a SourceTensor,
    /// The scales.
    pub scales: &'a SourceTensor,
    /// The group of each input, if that is stored.
    pub g_idx: Option<&'a SourceTensor>,
}

impl PackedLinear {
    /// Reads scales and zero points, and checks all shapes.
    ///
    /// # Errors
    /// If shapes or types do not fit together, or a file cannot be read.
    pub fn new(
        format: PackedFormat,
        parts: &PackedParts<'_>,
    ) -> Result<Arc<Self>, CheckpointError> {
        let (n_groups, n_out) = matrix(parts.scales)?;
        let (rows, cols) = matrix(parts.qweight)?;
        let n_in = match format {
            PackedFormat::Gptq { .. } => rows * PER_WORD,
            PackedFormat::Awq => rows,
        };
        let expected = match format {
            PackedFormat::Gptq { .. } => n_out,
            PackedFormat::Awq => n_out / PER_WORD,
        };
        require(
            parts.qweight,
            cols == expected && n_out.is_multiple_of(PER_WORD),
            || vec![rows, expected],
        )?;
        let zeros = vec![n_groups, n_out / PER_WORD];
        require(parts.qzeros, parts.qzeros.shape == zeros, || zeros.clone())?;
        require(parts.scales, n_groups > 0 && n_groups <= n_in, || {
            vec![n_in.div_ceil(128), n_out]
        })?;
        let scales = parts.scales.to_f32()?;
        let has_f16_scales = scales
            .iter()
            .all(|scale| f16::from_f32(*scale).to_f32() == *scale);
        Ok(Arc::new(Self {
            format,
            n_out,
            n_in,
            zeros: zero_points(format, parts.qzeros)?,
            scales,
            has_f16_scales,
            groups: groups(parts.g_idx, n_in, n_groups)?,
            qweight: parts.qweight.clone(),
        }))
    }

    /// The layout.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> [usize; 2] {
        [self.n_out, self.n_in]
    }

    /// Bytes in the checkpoint.
    pub fn n_bytes(&self) -> usize {
        self.n_out * self.n_in / 2
    }

    /// Whether ggml's blocks can hold the numbers exactly: each block of 32 inputs belongs to one group.
    fn fits_blocks(&self) -> bool {
        self.has_f16_scales
            && self.n_in.is_multiple_of(BLOCK)
            && self
                .groups
                .chunks(BLOCK)
                .all(|block| block.iter().all(|group| *group == block[0]))
    }

    /// The type of ggml that holds the numbers exactly, if there is one.
    pub fn exact_type(&self) -> Option<GgmlType> {
        let ty = match self.is_symmetric() {
            true => GgmlType::Q4_0,
            false => GgmlType::Q5_0,
        };
        self.fits_blocks().then_some(ty)
    }

    /// Whether all zero points are 8, as in symmetric quantization.
    fn is_symmetric(&self) -> bool {
        self.zeros.iter().all(|z| *z == 8)
    }

    /// The integers of the outputs in `range`, `[range.len(), n_in]`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn codes(&self, range: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let n = range.len();
        let mut q = vec![0; n * self.n_in];
        match self.format {
            PackedFormat::Gptq { .. } => {
                let words = self.qweight.read_words(0..self.n_in / PER_WORD, range)?;
                for (r, words) in words.chunks_exact(n).enumerate() {
                    for (row, word) in words.iter().enumerate() {
                        let to = &mut q[row * self.n_in + r * PER_WORD..][..PER_WORD];
                        (0..PER_WORD).for_each(|k| to[k] = nibble(*word, k));
                    }
                }
            }
            PackedFormat::Awq => {
                let columns = range.start / PER_WORD..range.end.div_ceil(PER_WORD);
                let n_columns = columns.len();
                let first = columns.start * PER_WORD;
                let words = self.qweight.read_words(0..self.n_in, columns)?;
                for (input, words) in words.chunks_exact(n_columns).enumerate() {
                    for (c, word) in words.iter().enumerate() {
                        for (k, order) in AWQ_ORDER.iter().enumerate() {
                            let output = first + c * PER_WORD + order;
                            if range.contains(&output) {
                                q[(output - range.start) * self.n_in + input] = nibble(*word, k);
                            }
                        }
                    }
                }
            }
        }
        Ok(q)
    }

    /// The weights of the outputs in `range` as `f32`, `[range.len(), n_in]`. They are exact: 11 bits of the scale times
    /// 5 bits of the integer.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read_rows(&self, range: Range<usize>, out: &mut [f32]) -> Result<(), CheckpointError> {
        let codes = self.codes(range.clone())?;
        let rows = out
            .chunks_exact_mut(self.n_in)
            .zip(codes.chunks_exact(self.n_in));
        for (output, (out, q)) in range.zip(rows) {
            for ((out, q), group) in out.iter_mut().zip(q).zip(&self.groups) {
                let at = *group as usize * self.n_out + output;
                *out = self.scales[at] * (f32::from(*q) - f32::from(self.zeros[at]));
            }
        }
        Ok(())
    }

    /// The blocks of [`Self::exact_type`] of the outputs in `range`: the scale as it is stored, and `q` for Q4_0 or
    /// `q - z + 16` for Q5_0.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn blocks(&self, range: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let symmetric = self.is_symmetric();
        let codes = self.codes(range.clone())?;
        let mut bytes = Vec::new();
        for (output, q) in range.zip(codes.chunks_exact(self.n_in)) {
            for (b, q) in q.as_chunks::<BLOCK>().0.iter().enumerate() {
                let group = self.groups[b * BLOCK] as usize;
                let at = group * self.n_out + output;
                bytes.extend(f16::from_f32(self.scales[at]).to_le_bytes());
                if symmetric {
                    push_nibbles(&mut bytes, q);
                } else {
                    let z = self.zeros[at];
                    let five = q.map(|q| q + 16 - z);
                    let high =
                        (0..BLOCK).fold(0_u32, |bits, j| bits | u32::from(five[j] >> 4) << j);
                    bytes.extend(high.to_le_bytes());
                    push_nibbles(&mut bytes, &five.map(|v| v & 15));
                }
            }
        }
        Ok(bytes)
    }
}

/// Number `k` of a word.
fn nibble(word: u32, k: usize) -> u8 {
    (word >> (4 * k) & 15) as u8
}

/// Byte `j` holds value `j` in its lower half and value `j + 16` in its upper half.
fn push_nibbles(bytes: &mut Vec<u8>, values: &[u8; BLOCK]) {
    bytes.extend((0..BLOCK / 2).map(|j| values[j] | values[j + BLOCK / 2] << 4));
}

/// All zero points, `[groups][n_out]`.
fn zero_points(format: PackedFormat, qzeros: &SourceTensor) -> Result<Vec<u8>, CheckpointError> {
    let (n_groups, n_words) = (qzeros.shape[0], qzeros.shape[1]);
    let words = qzeros.read_words(0..n_groups, 0..n_words)?;
    let mut zeros = vec![0; words.len() * PER_WORD];
    for (word, zeros) in words.iter().zip(zeros.as_chunks_mut::<PER_WORD>().0) {
        for k in 0..PER_WORD {
            match format {
                // A stored 15 means 0.
                PackedFormat::Gptq { stored_minus_one } => {
                    zeros[k] = (nibble(*word, k) + u8::from(stored_minus_one)) & 15;
                }
                PackedFormat::Awq => zeros[AWQ_ORDER[k]] = nibble(*word, k),
            }
        }
    }
    Ok(zeros)
}

/// The group of each input: as stored, or in order.
fn groups(
    g_idx: Option<&SourceTensor>,
    n_in: usize,
    n_groups: usize,
) -> Result<Vec<u32>, CheckpointError> {
    let Some(g_idx) = g_idx else {
        let len = n_in.div_ceil(n_groups);
        return Ok((0..n_in).map(|i| (i / len) as u32).collect());
    };
    require(g_idx, g_idx.shape == [n_in], || vec![n_in])?;
    let groups = g_idx.read_words(0..1, 0..n_in)?;
    match groups.iter().find(|group| **group as usize >= n_groups) {
        None => Ok(groups),
        Some(found) => Err(CheckpointError::Packed {
            name: g_idx.name.clone(),
            expected: format!("groups below {n_groups}"),
            found: format!("group {}", found.cast_signed()),
        }),
    }
}

fn matrix(tensor: &SourceTensor) -> Result<(usize, usize), CheckpointError> {
    match tensor.shape[..] {
        [rows, cols] => Ok((rows, cols)),
        _ => Err(CheckpointError::Packed {
            name: tensor.name.clone(),
            expected: "a matrix".to_owned(),
            found: format!("shape {:?}", tensor.shape),
        }),
    }
}

fn require(
    tensor: &SourceTensor,
    holds: bool,
    expected: impl FnOnce() -> Vec<usize>,
) -> Result<(), CheckpointError> {
    if holds {
        return Ok(());
    }
    Err(CheckpointError::Shape {
        name: tensor.name.clone(),
        expected: expected(),
        found: tensor.shape.clone(),
    })
}
