//! The samples of a picture, assembled from its strips and tiles.

use half::f16;

use super::{
    chunk::Chunk,
    layout::{Format, Layout},
};

/// `[height, width, samples]`, in the smallest sufficient type.
#[derive(Clone, Debug)]
pub enum Samples {
    /// Up to 8 bits, unsigned.
    U8(Vec<u8>),
    /// 9 to 16 bits, unsigned.
    U16(Vec<u16>),
    /// Everything else.
    F32(Vec<f32>),
}

impl Samples {
    /// Zeros for all samples of the picture.
    pub fn new(layout: &Layout) -> Self {
        let n = layout.width as usize * layout.height as usize * layout.samples;
        match (layout.format, layout.bits) {
            (Format::Unsigned, ..=8) => Self::U8(vec![0; n]),
            (Format::Unsigned, ..=16) => Self::U16(vec![0; n]),
            _ => Self::F32(vec![0.0; n]),
        }
    }

    /// Bytes per sample.
    pub fn size(layout: &Layout) -> usize {
        match (layout.format, layout.bits) {
            (Format::Unsigned, ..=8) => 1,
            (Format::Unsigned, ..=16) => 2,
            _ => 4,
        }
    }

    /// Copies a chunk whose first pixel is `at`; returns the number of its pixel rows.
    pub fn put(
        &mut self,
        layout: &Layout,
        big_endian: bool,
        chunk: &Chunk,
        at: (u32, u32),
        plane: usize,
    ) -> u32 {
        let (x, y) = (at.0 as usize, at.1 as usize);
        let height = layout.chunk.1.min(layout.height - at.1) as usize;
        let width = layout.chunk.0.min(layout.width - at.0) as usize;
        if layout.subsampling != (1, 1) {
            return self.put_subsampled(layout, chunk, (x, y), (width, height)) as u32;
        }
        let n = layout.chunk_samples();
        let mut raw = Vec::new();
        let rows = chunk.bytes.chunks_exact(chunk.row_len).take(height);
        let n_rows = rows.len();
        for (i, row) in rows.enumerate() {
            let n_raw = n * layout.chunk.0 as usize;
            unpack(layout, big_endian, row, n_raw, &mut raw);
            if layout.predictor == 2 && !chunk.is_rgb {
                undo_differences(&mut raw, n, layout.bits);
            }
            let first = ((y + i) * layout.width as usize + x) * layout.samples;
            let indices = (0..width * n).map(|k| match layout.planar {
                true => first + k * layout.samples + plane,
                false => first + k,
            });
            match self {
                Self::U8(to) => indices.zip(&raw).for_each(|(k, v)| to[k] = *v as u8),
                Self::U16(to) => indices.zip(&raw).for_each(|(k, v)| to[k] = *v as u16),
                Self::F32(to) => indices
                    .zip(&raw)
                    .for_each(|(k, v)| to[k] = number(layout, *v)),
            }
        }
        n_rows as u32
    }

    /// Copies rows of groups: the lumas of `across * down` pixels and their two chromas.
    fn put_subsampled(
        &mut self,
        layout: &Layout,
        chunk: &Chunk,
        (x, y): (usize, usize),
        (width, height): (usize, usize),
    ) -> usize {
        let Self::U8(to) = self else {
            return 0; // only bytes are subsampled
        };
        let (across, down) = (layout.subsampling.0 as usize, layout.subsampling.1 as usize);
        let rows = chunk
            .bytes
            .chunks_exact(chunk.row_len)
            .take(height.div_ceil(down));
        let n_rows = rows.len() * down;
        for (i, row) in rows.enumerate() {
            for (j, group) in row.chunks_exact(across * down + 2).enumerate() {
                let (lumas, chromas) = group.split_at(across * down);
                for (k, luma) in lumas.iter().enumerate() {
                    let (dx, dy) = (j * across + k % across, i * down + k / across);
                    if dx < width && dy < height {
                        let at = ((y + dy) * layout.width as usize + x + dx) * layout.samples;
                        to[at..at + 3].copy_from_slice(&[*luma, chromas[0], chromas[1]]);
                    }
                }
            }
        }
        n_rows.min(height)
    }
}

/// Unpacks `n` samples of a row to their bits.
fn unpack(layout: &Layout, big_endian: bool, row: &[u8], n: usize, raw: &mut Vec<u64>) {
    raw.clear();
    let bits = layout.bits as usize;
    if layout.predictor == 3 {
        return unpack_floats(row, n, bits / 8, layout.chunk_samples(), raw);
    }
    match bits {
        8 => raw.extend(row.iter().map(|v| u64::from(*v))),
        16 | 32 | 64 => {
            let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
            raw.extend(row.chunks_exact(bits / 8).map(|bytes| match big_endian {
                true => bytes.iter().fold(0, append),
                false => bytes.iter().rev().fold(0, append),
            }));
        }
        _ => {
            let (mut buffer, mut n_buffered) = (0_u64, 0);
            let mut bytes = row.iter();
            raw.extend((0..n).map_while(|_| {
                while n_buffered < bits {
                    buffer = buffer << 8 | u64::from(*bytes.next()?);
                    n_buffered += 8;
                }
                n_buffered -= bits;
                Some(buffer >> n_buffered & ((1 << bits) - 1))
            }));
        }
    }
}

/// Floats with the floating-point predictor: byte planes, high bytes first, each byte as the difference to the one
/// `step` earlier.
fn unpack_floats(row: &[u8], n: usize, size: usize, step: usize, raw: &mut Vec<u64>) {
    let mut bytes = row.to_vec();
    for i in step..bytes.len() {
        bytes[i] = bytes[i].wrapping_add(bytes[i - step]);
    }
    let byte = |i: usize, k: usize| u64::from(bytes.get(k * n + i).copied().unwrap_or(0));
    raw.extend((0..n).map(|i| (0..size).fold(0, |number, k| number << 8 | byte(i, k))));
}

fn undo_differences(raw: &mut [u64], step: usize, bits: u32) {
    let mask = u64::MAX >> (64 - bits);
    for i in step..raw.len() {
        raw[i] = raw[i].wrapping_add(raw[i - step]) & mask;
    }
}

/// The value of a sample's bits.
fn number(layout: &Layout, raw: u64) -> f32 {
    match (layout.format, layout.bits) {
        (Format::Float, 16) => f16::from_bits(raw as u16).to_f32(),
        (Format::Float, 32) => f32::from_bits(raw as u32),
        (Format::Float, _) => f64::from_bits(raw) as f32,
        (Format::Signed, 8) => f32::from(raw as i8),
        (Format::Signed, 16) => f32::from(raw as i16),
        (Format::Signed, _) => raw as i32 as f32,
        (Format::Unsigned, _) => raw as f32,
    }
}
