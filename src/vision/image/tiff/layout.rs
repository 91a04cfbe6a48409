//! Layout and meaning of a TIFF's samples, from its tags.

use super::{TiffError, samples::Samples};
use crate::vision::image::{
    MAX_DECODED_BYTES,
    ifd::{Directory, tag},
};

/// Meaning of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// Numeric type of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Unsigned,
    Signed,
    Float,
}

/// Compression of strips and tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// CCITT modified Huffman: one-dimensional, rows aligned to bytes, without end-of-line codes.
    Huffman,
    Group3,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
    Zstd,
    WebP,
}

/// Kind of alpha, from `ExtraSamples`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// Colours are premultiplied.
    Associated,
    Unassociated,
}

/// The content of all tags that matter.
#[derive(Clone, Debug)]
pub struct Layout {
    pub width: u32,
    pub height: u32,
    pub bits: u32,
    /// Samples per pixel, including those without meaning.
    pub samples: usize,
    pub format: Format,
    pub photometric: Photometric,
    pub compression: Compression,
    pub predictor: u64,
    /// Whether each sample has separate strips.
    pub planar: bool,
    /// Whether bytes have their low bit first.
    pub low_bit_first: bool,
    /// Pixels per strip or tile, across and down.
    pub chunk: (u32, u32),
    pub offsets: Vec<u64>,
    pub byte_counts: Vec<u64>,
    pub alpha: Option<Alpha>,
    pub t4_options: u64,
    /// Lumas per chroma, across and down; (1, 1) without subsampling.
    pub subsampling: (u32, u32),
    /// Values of black and white, if the file declares them.
    pub range: Option<(f64, f64)>,
}

impl Layout {
    /// Reads the tags.
    pub fn new(tags: &Directory<'_>) -> Result<Self, TiffError> {
        let side = |tag| tags.value(tag).and_then(|side| u32::try_from(side).ok());
        let width = side(tag::WIDTH).ok_or(TiffError::Invalid("no width"))?;
        let height = side(tag::HEIGHT).ok_or(TiffError::Invalid("no height"))?;
        let samples = tags.value(tag::SAMPLES_PER_PIXEL).unwrap_or(1) as usize;
        if !(1..=64).contains(&samples) {
            return Err(TiffError::Variety(format!("{samples} samples per pixel")));
        }
        let (bits, format) = sample_type(tags)?;
        let compression = compression(tags)?;
        let photometric = photometric(tags, samples)?;
        let is_subsampled = photometric == Photometric::YCbCr && compression != Compression::Jpeg;
        let tiled = !tags.values(tag::TILE_OFFSETS).is_empty();
        let [offsets, byte_counts] = match tiled {
            true => [tag::TILE_OFFSETS, tag::TILE_BYTE_COUNTS],
            false => [tag::STRIP_OFFSETS, tag::STRIP_BYTE_COUNTS],
        };
        let chunk = match tiled {
            true => (side(tag::TILE_WIDTH), side(tag::TILE_LENGTH)),
            false => {
                let rows = tags.value(tag::ROWS_PER_STRIP).unwrap_or(u64::from(height));
                (Some(width), Some(rows.min(height.into()) as u32))
            }
        };
        let layout = Self {
            width,
            height,
            bits,
            samples,
            format,
            photometric,
            compression,
            predictor: tags.value(tag::PREDICTOR).unwrap_or(1),
            planar: tags.value(tag::PLANAR_CONFIGURATION) == Some(2) && samples > 1,
            low_bit_first: tags.value(tag::FILL_ORDER) == Some(2),
            chunk: (chunk.0.unwrap_or(0), chunk.1.unwrap_or(0)),
            offsets: tags.values(offsets),
            byte_counts: tags.values(byte_counts),
            alpha: alpha(tags, photometric, samples),
            t4_options: tags.value(tag::T4_OPTIONS).unwrap_or(0),
            subsampling: match is_subsampled {
                true => subsampling(tags),
                false => (1, 1),
            },
            range: range(tags, format),
        };
        layout.check(tiled)?;
        Ok(layout)
    }

    fn check(&self, tiled: bool) -> Result<(), TiffError> {
        if self.width == 0 || self.height == 0 {
            return Ok(()); // the caller reports it
        }
        if self.chunk.0 == 0
            || self.chunk.1 == 0
            || (tiled && self.chunk.0.max(self.chunk.1) > 1 << 16)
        {
            return Err(TiffError::Invalid("strips or tiles of size zero"));
        }
        // Tiles may be larger than the picture, whose size is checked elsewhere.
        if tiled && self.chunk_bytes() > MAX_DECODED_BYTES {
            return Err(TiffError::Invalid("tiles that are larger than any picture"));
        }
        if self.offsets.len() < self.n_chunks() {
            return Err(TiffError::Invalid(
                "fewer strips or tiles than the picture needs",
            ));
        }
        if self.samples < self.n_colors() {
            return Err(TiffError::Invalid("fewer samples than its colours need"));
        }
        let only_bytes = matches!(self.photometric, Photometric::YCbCr)
            || matches!(self.compression, Compression::Jpeg | Compression::WebP);
        if only_bytes && (self.bits != 8 || self.format != Format::Unsigned) {
            return Err(TiffError::Variety(format!(
                "compressed samples of {} bits",
                self.bits
            )));
        }
        if self.photometric == Photometric::Palette
            && (self.bits > 8 || self.format != Format::Unsigned)
        {
            return Err(TiffError::Variety(format!(
                "a palette of {} bits",
                self.bits
            )));
        }
        if self.subsampling != (1, 1) && self.planar {
            return Err(TiffError::Variety(
                "subsampled colours in planes".to_owned(),
            ));
        }
        match self.predictor {
            1 => Ok(()),
            2 if matches!(self.bits, 8 | 16 | 32 | 64) => Ok(()),
            3 if self.format == Format::Float => Ok(()),
            n => Err(TiffError::Variety(format!(
                "predictor {n} on {} bits",
                self.bits
            ))),
        }
    }

    /// Memory for all samples, in bytes.
    pub fn sample_bytes(&self) -> u64 {
        let n = u64::from(self.width) * u64::from(self.height);
        n.saturating_mul(self.samples as u64)
            .saturating_mul(Samples::size(self) as u64)
    }

    /// Memory for the largest strip or tile, in bytes.
    pub fn chunk_bytes(&self) -> u64 {
        let pixels = u64::from(self.chunk.0) * u64::from(self.chunk.1.min(self.height));
        let bits = self.chunk_samples() as u64 * u64::from(self.bits);
        pixels.saturating_mul(bits).div_ceil(8)
    }

    /// Samples per pixel that encode the colour.
    pub fn n_colors(&self) -> usize {
        match self.photometric {
            Photometric::WhiteIsZero | Photometric::BlackIsZero | Photometric::Palette => 1,
            Photometric::Rgb | Photometric::YCbCr => 3,
            Photometric::Cmyk => 4,
        }
    }

    /// Strips or tiles, across and down.
    pub fn chunks(&self) -> (u32, u32) {
        (
            self.width.div_ceil(self.chunk.0),
            self.height.div_ceil(self.chunk.1),
        )
    }

    /// Number of strips or tiles of the picture, in all planes.
    pub fn n_chunks(&self) -> usize {
        let (across, down) = self.chunks();
        let planes = if self.planar { self.samples } else { 1 };
        across as usize * down as usize * planes
    }

    /// Samples per pixel within a strip or tile.
    pub fn chunk_samples(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }
}

/// The value that all `values` equal, `default` if they are empty; `None` if they differ.
fn uniform_value(values: Vec<u64>, default: u64) -> Option<u64> {
    let first = values.first().copied().unwrap_or(default);
    values.iter().all(|v| *v == first).then_some(first)
}

/// Bits per sample and their numeric type.
fn sample_type(tags: &Directory<'_>) -> Result<(u32, Format), TiffError> {
    let bits = uniform_value(tags.values(tag::BITS_PER_SAMPLE), 1)
        .ok_or(TiffError::Variety("samples of several sizes".to_owned()))? as u32;
    let format = match uniform_value(tags.values(tag::SAMPLE_FORMAT), 1) {
        Some(1 | 4) => Format::Unsigned,
        Some(2) => Format::Signed,
        Some(3) => Format::Float,
        _ => {
            return Err(TiffError::Variety(
                "samples of an unknown or complex kind".to_owned(),
            ));
        }
    };
    let known = match format {
        Format::Unsigned => matches!(bits, 1..=16 | 32),
        Format::Signed => matches!(bits, 8 | 16 | 32),
        Format::Float => matches!(bits, 16 | 32 | 64),
    };
    if !known {
        return Err(TiffError::Variety(format!("samples of {bits} bits")));
    }
    Ok((bits, format))
}

fn compression(tags: &Directory<'_>) -> Result<Compression, TiffError> {
    let name = match tags.value(tag::COMPRESSION).unwrap_or(1) {
        0 | 1 | 32771 => return Ok(Compression::None),
        2 => return Ok(Compression::Huffman),
        3 => return Ok(Compression::Group3),
        4 => return Ok(Compression::Group4),
        5 => return Ok(Compression::Lzw),
        7 => return Ok(Compression::Jpeg),
        8 | 32946 => return Ok(Compression::Deflate),
        32773 => return Ok(Compression::PackBits),
        50000 => return Ok(Compression::Zstd),
        50001 => return Ok(Compression::WebP),
        6 => "old-style JPEG compression (6)",
        34661 => "JBIG compression",
        34712 | 33003 | 33005 => "JPEG 2000 compression",
        34887 => "LERC compression",
        34925 => "LZMA compression",
        34676 | 34677 => "SGI LogLuv compression",
        50002 | 52546 => "JPEG XL compression",
        n => return Err(TiffError::Variety(format!("compression {n}"))),
    };
    Err(TiffError::Variety(name.to_owned()))
}

fn photometric(tags: &Directory<'_>, samples: usize) -> Result<Photometric, TiffError> {
    let name = match tags.value(tag::PHOTOMETRIC) {
        None if samples >= 3 => return Ok(Photometric::Rgb),
        None | Some(0) => return Ok(Photometric::WhiteIsZero),
        Some(1 | 4) => return Ok(Photometric::BlackIsZero),
        Some(2) => return Ok(Photometric::Rgb),
        Some(3) => return Ok(Photometric::Palette),
        Some(5) => return Ok(Photometric::Cmyk),
        Some(6) => return Ok(Photometric::YCbCr),
        Some(8..=10) => "Lab colours",
        Some(32803) => "raw samples of a sensor (CFA)",
        Some(34892) => "raw samples of a sensor (LinearRaw)",
        Some(32844 | 32845) => "LogLuv colours",
        Some(n) => return Err(TiffError::Variety(format!("colours of kind {n}"))),
    };
    Err(TiffError::Variety(name.to_owned()))
}

fn alpha(tags: &Directory<'_>, photometric: Photometric, samples: usize) -> Option<Alpha> {
    let colors = match photometric {
        Photometric::Rgb | Photometric::YCbCr => 3,
        Photometric::Cmyk => 4,
        _ => 1,
    };
    match tags.value(tag::EXTRA_SAMPLES) {
        Some(1) if samples > colors => Some(Alpha::Associated),
        Some(2) if samples > colors => Some(Alpha::Unassociated),
        // Most programs treat an undeclared fourth sample as alpha; so do the encoders that omit the tag.
        None if photometric == Photometric::Rgb && samples == 4 => Some(Alpha::Unassociated),
        _ => None,
    }
}

fn subsampling(tags: &Directory<'_>) -> (u32, u32) {
    match tags.values(tag::YCBCR_SUBSAMPLING)[..] {
        [across @ 1..=4, down @ 1..=4] => (across as u32, down as u32),
        _ => (2, 2),
    }
}

/// The declared range of values. `MaxSampleValue` states how many of the bits are used.
fn range(tags: &Directory<'_>, format: Format) -> Option<(f64, f64)> {
    let min = tags
        .reals(tag::S_MIN_SAMPLE_VALUE)
        .into_iter()
        .reduce(f64::min);
    let max = tags
        .reals(tag::S_MAX_SAMPLE_VALUE)
        .into_iter()
        .reduce(f64::max);
    let range = match (min, max) {
        (Some(min), Some(max)) => (min, max),
        (None, Some(max)) => (0.0, max),
        _ if format == Format::Unsigned => {
            let max = tags.reals(tag::MAX_SAMPLE_VALUE);
            (0.0, max.into_iter().reduce(f64::max)?)
        }
        _ => return None,
    };
    (range.0.is_finite() && range.1.is_finite() && range.0 < range.1).then_some(range)
}
