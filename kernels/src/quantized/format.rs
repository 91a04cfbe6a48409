//! The quantization formats of llama.cpp that have kernels, and their definition, one row at a
//! time.

use half::f16;

use super::SUPERBLOCK;

/// A quantization format: weights in blocks with a common scale. `ggml-common.h` has the
/// structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum QuantFormat {
    Q4_0,
    Q5_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// What kernels need to know about a format: how a weight follows from its byte.
///
/// A weight is `scale * (byte - zero)`, or with minima `scale * byte - min`. The scale and the
/// minimum are those of its run of `run` weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantScheme {
    /// Consecutive weights of a row that share a scale.
    pub run: usize,
    /// The zero point: the byte that stands for zero. It is zero or a power of two.
    pub zero: i32,
    /// Whether runs have minima: 6-bit multiples of one number per superblock.
    pub minima: bool,
    /// Whether activations have a scale per 32 elements, instead of one per 256. As the scheme of a
    /// format it is what llama.cpp does, which keeps the results close to its.
    pub fine: bool,
}

impl QuantScheme {
    /// The same with a scale per 32 activations. It limits what an outlier spoils.
    pub fn with_fine_activations(self) -> Self {
        Self { fine: true, ..self }
    }
}

impl QuantFormat {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::Q4_0,
        Self::Q5_0,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Weights per block.
    pub fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPERBLOCK,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `n` weights, or `None` if `n` is not a multiple of [`Self::block_len`].
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        let blocks = n / self.block_len();
        n.is_multiple_of(self.block_len())
            .then(|| blocks * self.block_bytes())
    }

    /// How weights follow from bytes.
    pub fn scheme(self) -> QuantScheme {
        let (run, zero, minima, fine) = match self {
            Self::Q4_0 => (32, 8, false, true),
            Self::Q5_0 => (32, 16, false, true),
            Self::Q8_0 => (32, 128, false, true),
            Self::Q4K | Self::Q5K => (32, 0, true, false),
            Self::Q6K => (16, 32, false, false),
        };
        QuantScheme {
            run,
            zero,
            minima,
            fine,
        }
    }

    /// Expands one output's superblock. `bytes` holds its blocks, fewer at the end of a row.
    pub(super) fn expand(self, bytes: &[u8], to: &mut Expanded) {
        *to = Expanded::default();
        match self {
            Self::Q4_0 => expand_q4_0(bytes, to),
            Self::Q5_0 => expand_q5_0(bytes, to),
            Self::Q8_0 => expand_q8_0(bytes, to),
            Self::Q4K => expand_q4_k(bytes, to),
            Self::Q5K => expand_q5_k(bytes, to),
            Self::Q6K => expand_q6_k(bytes, to),
        }
    }
}

/// An expanded superblock of one output. After the end of the row the scales are zero.
pub struct Expanded {
    pub bytes: [u8; SUPERBLOCK],
    /// One per run.
    pub scales: [f32; 16],
    /// The scales as multiples of `unit`, in formats whose activations have one scale per
    /// superblock.
    pub multiples: [i16; 16],
    pub unit: f32,
    /// One per run of 32, as multiples of `min_scale`.
    pub minima: [u8; 8],
    pub min_scale: f32,
}

impl Default for Expanded {
    fn default() -> Self {
        Self {
            bytes: [0; SUPERBLOCK],
            scales: [0.0; 16],
            multiples: [0; 16],
            unit: 0.0,
            minima: [0; 8],
            min_scale: 0.0,
        }
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn expand_q4_0(bytes: &[u8], to: &mut Expanded) {
    let runs = to.bytes.chunks_exact_mut(32).zip(&mut to.scales);
    for (block, (run, scale)) in bytes.chunks_exact(18).zip(runs) {
        *scale = f16_at(block, 0);
        for (i, b) in block[2..].iter().enumerate() {
            (run[i], run[i + 16]) = (b & 15, b >> 4);
        }
    }
}

fn expand_q5_0(bytes: &[u8], to: &mut Expanded) {
    let runs = to.bytes.chunks_exact_mut(32).zip(&mut to.scales);
    for (block, (run, scale)) in bytes.chunks_exact(22).zip(runs) {
        *scale = f16_at(block, 0);
        for (i, b) in block[6..].iter().enumerate() {
            let fifth = |i: usize| (block[2 + i / 8] >> (i % 8) & 1) << 4;
            run[i] = (b & 15) | fifth(i);
            run[i + 16] = (b >> 4) | fifth(i + 16);
        }
    }
}

fn expand_q8_0(bytes: &[u8], to: &mut Expanded) {
    let runs = to.bytes.chunks_exact_mut(32).zip(&mut to.scales);
    for (block, (run, scale)) in bytes.chunks_exact(34).zip(runs) {
        *scale = f16_at(block, 0);
        for (v, b) in run.iter_mut().zip(&block[2..]) {
            *v = b ^ 128;
        }
    }
}

/// Six-bit scales and minima of eight runs, in twelve bytes.
fn scales_and_minima(packed: &[u8], d: f32, to: &mut Expanded) {
    for i in 0..4 {
        to.multiples[i] = i16::from(packed[i] & 63);
        to.minima[i] = packed[i + 4] & 63;
        to.multiples[i + 4] = i16::from((packed[i + 8] & 15) | ((packed[i] >> 6) << 4));
        to.minima[i + 4] = (packed[i + 8] >> 4) | ((packed[i + 4] >> 6) << 4);
    }
    to.multiply(d);
}

impl Expanded {
    fn multiply(&mut self, unit: f32) {
        self.unit = unit;
        self.scales = self.multiples.map(|multiple| unit * f32::from(multiple));
    }
}

fn expand_q4_k(block: &[u8], to: &mut Expanded) {
    scales_and_minima(&block[4..16], f16_at(block, 0), to);
    to.min_scale = f16_at(block, 2);
    for (pair, qs) in to.bytes.chunks_exact_mut(64).zip(block[16..].chunks(32)) {
        for (i, b) in qs.iter().enumerate() {
            (pair[i], pair[i + 32]) = (b & 15, b >> 4);
        }
    }
}

fn expand_q5_k(block: &[u8], to: &mut Expanded) {
    scales_and_minima(&block[4..16], f16_at(block, 0), to);
    to.min_scale = f16_at(block, 2);
    let high = &block[16..48];
    let pairs = to.bytes.chunks_exact_mut(64).zip(block[48..].chunks(32));
    for (j, (pair, qs)) in pairs.enumerate() {
        for (i, b) in qs.iter().enumerate() {
            let bits = high[i] >> (2 * j);
            pair[i] = (b & 15) | ((bits & 1) << 4);
            pair[i + 32] = (b >> 4) | ((bits & 2) << 3);
        }
    }
}

fn expand_q6_k(block: &[u8], to: &mut Expanded) {
    for (multiple, b) in to.multiples.iter_mut().zip(&block[192..208]) {
        *multiple = i16::from(*b as i8);
    }
    to.multiply(f16_at(block, 208));
    for (n, out) in to.bytes.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[64 * n..][..64], &block[128 + 32 * n..][..32]);
        for (i, h) in high.iter().enumerate() {
            out[i] = (low[i] & 15) | ((h & 3) << 4);
            out[i + 32] = (low[i + 32] & 15) | (((h >> 2) & 3) << 4);
            out[i + 64] = (low[i] >> 4) | (((h >> 4) & 3) << 4);
            out[i + 96] = (low[i + 32] >> 4) | ((h >> 6) << 4);
        }
    }
}
