//! How the samples of a TIFF lie in the file, and what they mean.

use super::{Fault, samples::Samples};
use crate::vision::image::{
    MAX_DECODED_BYTES,
    ifd::{Directory, tag},
};

/// What the samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// What kind of number a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Unsigned,
    Signed,
    Float,
}

/// How strips and tiles are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// CCITT's one-dimensional code, rows aligned to bytes, without end-of-line codes.
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

/// Alpha, as `ExtraSamples` declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// Colours were multiplied by it.
    Associated,
    Unassociated,
}

/// Everything that the tags say.
#[derive(Clone, Debug)]
pub struct Layout {
    pub width: u32,
    pub height: u32,
    pub bits: u32,
    /// Samples of a pixel, those included that mean nothing.
    pub samples: usize,
    pub format: Format,
    pub photometric: Photometric,
    pub compression: Compression,
    pub predictor: u64,
    /// Whether each sample has strips of its own.
    pub planar: bool,
    /// Bits are filled from the low one.
    pub low_bit_first: bool,
    /// Pixels of a strip or tile, across and down.
    pub chunk: (u32, u32),
    pub offsets: Vec<u64>,
    pub byte_counts: Vec<u64>,
    pub alpha: Option<Alpha>,
    pub t4_options: u64,
    /// How many samples of luma share one of chroma, across and down; (1, 1) if they do not.
    pub subsampling: (u32, u32),
    /// Coded black and white, as the file declares them.
    pub range: Option<(f64, f64)>,
}

impl Layout {
    /// Reads the tags.
    pub fn new(tags: &Directory<'_>) -> Result<Self, Fault> {
        let side = |tag| tags.value(tag).and_then(|side| u32::try_from(side).ok());
        let width = side(tag::WIDTH).ok_or(Fault::Invalid("no width"))?;
        let height = side(tag::HEIGHT).ok_or(Fault::Invalid("no height"))?;
        let samples = tags.value(tag::SAMPLES_PER_PIXEL).unwrap_or(1) as usize;
        if !(1..=64).contains(&samples) {
            return Err(Fault::Variety(format!("{samples} samples a pixel")));
        }
        let bits = same(tags.values(tag::BITS_PER_SAMPLE), 1)
            .ok_or(Fault::Variety("samples of several sizes".to_owned()))?
            as u32;
        let format = match same(tags.values(tag::SAMPLE_FORMAT), 1) {
            Some(1 | 4) => Format::Unsigned,
            Some(2) => Format::Signed,
            Some(3) => Format::Float,
            _ => {
                return Err(Fault::Variety(
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
            return Err(Fault::Variety(format!("samples of {bits} bits")));
        }
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

    fn check(&self, tiled: bool) -> Result<(), Fault> {
        if self.width == 0 || self.height == 0 {
            return Ok(()); // the caller reports it
        }
        if self.chunk.0 == 0
            || self.chunk.1 == 0
            || (tiled && self.chunk.0.max(self.chunk.1) > 1 << 16)
        {
            return Err(Fault::Invalid("strips or tiles without a size"));
        }
        // A tile may be larger than its picture, which is checked elsewhere.
        if tiled && self.chunk_bytes() > MAX_DECODED_BYTES {
            return Err(Fault::Invalid("tiles that are larger than any picture"));
        }
        if self.offsets.len() < self.n_chunks() {
            return Err(Fault::Invalid(
                "fewer strips or tiles than the picture consists of",
            ));
        }
        if self.samples < self.n_colors() {
            return Err(Fault::Invalid("fewer samples than its colours need"));
        }
        let only_bytes = matches!(self.photometric, Photometric::YCbCr)
            || matches!(self.compression, Compression::Jpeg | Compression::WebP);
        if only_bytes && (self.bits != 8 || self.format != Format::Unsigned) {
            return Err(Fault::Variety(format!(
                "compressed samples of {} bits",
                self.bits
            )));
        }
        if self.photometric == Photometric::Palette
            && (self.bits > 8 || self.format != Format::Unsigned)
        {
            return Err(Fault::Variety(format!("a palette of {} bits", self.bits)));
        }
        if self.subsampling != (1, 1) && self.planar {
            return Err(Fault::Variety("subsampled colours in planes".to_owned()));
        }
        match self.predictor {
            1 => Ok(()),
            2 if matches!(self.bits, 8 | 16 | 32 | 64) => Ok(()),
            3 if self.format == Format::Float => Ok(()),
            n => Err(Fault::Variety(format!(
                "predictor {n} on {} bits",
                self.bits
            ))),
        }
    }

    /// Bytes that all samples take.
    pub fn sample_bytes(&self) -> u64 {
        let n = u64::from(self.width) * u64::from(self.height);
        n.saturating_mul(self.samples as u64)
            .saturating_mul(Samples::size(self) as u64)
    }

    /// Bytes that the largest strip or tile takes.
    pub fn chunk_bytes(&self) -> u64 {
        let pixels = u64::from(self.chunk.0) * u64::from(self.chunk.1.min(self.height));
        let bits = self.chunk_samples() as u64 * u64::from(self.bits);
        pixels.saturating_mul(bits).div_ceil(8)
    }

    /// Samples that make up the colour.
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

    /// Strips or tiles of the whole picture.
    pub fn n_chunks(&self) -> usize {
        let (across, down) = self.chunks();
        let planes = if self.planar { self.samples } else { 1 };
        across as usize * down as usize * planes
    }

    /// Samples of a pixel within a strip.
    pub fn chunk_samples(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }
}

/// The one value that all are, or `default` if there is none.
fn same(values: Vec<u64>, default: u64) -> Option<u64> {
    let first = values.first().copied().unwrap_or(default);
    values.iter().all(|v| *v == first).then_some(first)
}

fn compression(tags: &Directory<'_>) -> Result<Compression, Fault> {
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
        n => return Err(Fault::Variety(format!("compression {n}"))),
    };
    Err(Fault::Variety(name.to_owned()))
}

fn photometric(tags: &Directory<'_>, samples: usize) -> Result<Photometric, Fault> {
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
        Some(n) => return Err(Fault::Variety(format!("colours of kind {n}"))),
    };
    Err(Fault::Variety(name.to_owned()))
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
        // A fourth sample without a word on it is alpha to most programs, and to the encoders that leave it out.
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

/// The range that the file declares. `MaxSampleValue` says how many bits are used of those that there are.
fn range(tags: &Directory<'_>, format: Format) -> Option<(f64, f64)> {
    let least = tags
        .reals(tag::S_MIN_SAMPLE_VALUE)
        .into_iter()
        .reduce(f64::min);
    let most = tags
        .reals(tag::S_MAX_SAMPLE_VALUE)
        .into_iter()
        .reduce(f64::max);
    let range = match (least, most) {
        (Some(least), Some(most)) => (least, most),
        (None, Some(most)) => (0.0, most),
        _ if format == Format::Unsigned => {
            let most = tags.reals(tag::MAX_SAMPLE_VALUE);
            (0.0, most.into_iter().reduce(f64::max)?)
        }
        _ => return None,
    };
    (range.0.is_finite() && range.1.is_finite() && range.0 < range.1).then_some(range)
}
