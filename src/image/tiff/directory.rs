//! The first directory of a TIFF: its tags, as numbers.

/// The most values of a tag that are read; a picture has at most as many strips as rows.
const MAX_VALUES: usize = 1 << 22;

/// Tags that say how samples lie in the file and what they mean.
pub mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS_PER_SAMPLE: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const ORIENTATION: u16 = 274;
    pub const SAMPLES_PER_PIXEL: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_BYTE_COUNTS: u16 = 279;
    pub const MAX_SAMPLE_VALUE: u16 = 281;
    pub const PLANAR_CONFIGURATION: u16 = 284;
    pub const T4_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLOR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_LENGTH: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_BYTE_COUNTS: u16 = 325;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const S_MIN_SAMPLE_VALUE: u16 = 340;
    pub const S_MAX_SAMPLE_VALUE: u16 = 341;
    pub const JPEG_TABLES: u16 = 347;
    pub const YCBCR_COEFFICIENTS: u16 = 529;
    pub const YCBCR_SUBSAMPLING: u16 = 530;
    pub const REFERENCE_BLACK_WHITE: u16 = 532;
}

/// The bytes of a TIFF, with the order and width of its numbers.
#[derive(Clone, Copy, Debug)]
struct Numbers<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// BigTIFF: offsets and counts of 64 bits.
    wide: bool,
}

impl Numbers<'_> {
    /// The unsigned number of `len` bytes (1 to 8) at an offset.
    fn at(self, offset: usize, len: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(len)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.big_endian {
            true => bytes.iter().fold(0, append),
            false => bytes.iter().rev().fold(0, append),
        })
    }

    fn offset(self, at: usize) -> Option<usize> {
        let len = if self.wide { 8 } else { 4 };
        usize::try_from(self.at(at, len)?).ok()
    }
}

/// The first directory.
#[derive(Clone, Debug)]
pub struct Directory<'a> {
    numbers: Numbers<'a>,
    /// Offsets of its entries.
    entries: Vec<usize>,
}

impl<'a> Directory<'a> {
    /// The first directory of a file; `None` if there is none.
    pub fn first(bytes: &'a [u8]) -> Option<Self> {
        let (big_endian, wide) = match bytes.get(..4)? {
            b"II*\0" => (false, false),
            b"MM\0*" => (true, false),
            b"II+\0" => (false, true),
            b"MM\0+" => (true, true),
            _ => return None,
        };
        let numbers = Numbers {
            bytes,
            big_endian,
            wide,
        };
        let at = numbers.offset(if wide { 8 } else { 4 })?;
        let (count_len, entry_len) = if wide { (8, 20) } else { (2, 12) };
        let n = usize::try_from(numbers.at(at, count_len)?).ok()?;
        let n = n.min(bytes.len() / entry_len);
        Some(Self {
            numbers,
            entries: (0..n).map(|i| at + count_len + i * entry_len).collect(),
        })
    }

    /// Whether numbers stand with their high byte first.
    pub fn big_endian(&self) -> bool {
        self.numbers.big_endian
    }

    /// The first value of a tag, if that is a whole number.
    pub fn value(&self, tag: u16) -> Option<u64> {
        self.values(tag).first().copied()
    }

    /// The values of a tag; none if they are no unsigned numbers.
    pub fn values(&self, tag: u16) -> Vec<u64> {
        let Some((kind, at, n)) = self.find(tag) else {
            return Vec::new();
        };
        let len = match kind {
            1 | 7 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            _ => return Vec::new(),
        };
        let value = |i| self.numbers.at(at + i * len, len);
        (0..n).map_while(value).collect()
    }

    /// The values of a tag, of any kind of number.
    pub fn reals(&self, tag: u16) -> Vec<f64> {
        let Some((kind, at, n)) = self.find(tag) else {
            return Vec::new();
        };
        let number = |i: usize, len: usize| self.numbers.at(at + i * len, len);
        let value = |i: usize| {
            Some(match kind {
                5 => number(2 * i, 4)? as f64 / number(2 * i + 1, 4)? as f64,
                6 => f64::from(number(i, 1)? as i8),
                8 => f64::from(number(i, 2)? as i16),
                9 => f64::from(number(i, 4)? as i32),
                10 => f64::from(number(2 * i, 4)? as i32) / f64::from(number(2 * i + 1, 4)? as i32),
                11 => f64::from(f32::from_bits(number(i, 4)? as u32)),
                12 => f64::from_bits(number(i, 8)?),
                _ => return None,
            })
        };
        match kind {
            5 | 6 | 8..=12 => (0..n).map_while(value).collect(),
            _ => self.values(tag).into_iter().map(|v| v as f64).collect(),
        }
    }

    /// The bytes of a tag.
    pub fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let (_, at, n) = self.find(tag)?;
        self.numbers.bytes.get(at..at.checked_add(n)?)
    }

    /// Kind, place and number of a tag's values.
    fn find(&self, tag: u16) -> Option<(u64, usize, usize)> {
        let has_tag = |at: &&usize| self.numbers.at(**at, 2) == Some(tag.into());
        let entry = *self.entries.iter().find(has_tag)?;
        let kind = self.numbers.at(entry + 2, 2)?;
        let len = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => return None,
        };
        let n = self.numbers.offset(entry + 4)?;
        let field = if self.numbers.wide { 8 } else { 4 };
        let inline = entry + 4 + field;
        let at = match n.checked_mul(len)? <= field {
            true => inline,
            false => self.numbers.offset(inline)?,
        };
        // What lies outside the file is not there.
        let room = self.numbers.bytes.len().checked_sub(at)? / len;
        Some((kind, at, n.min(room).min(MAX_VALUES)))
    }
}
