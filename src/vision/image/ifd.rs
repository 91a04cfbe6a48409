//! Image file directories (IFDs): the tag structure of TIFF files, EXIF blocks and most raw photos.

/// Maximum number of values read per tag. A picture has at most as many strips as rows.
const MAX_VALUES: usize = 1 << 22;

/// Maximum number of directories visited, so that cycles end.
const MAX_DIRECTORIES: usize = 64;

/// A TIFF structure in memory. It is untrusted: values outside the bytes count as missing.
#[derive(Clone, Copy, Debug)]
pub struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// BigTIFF: offsets and counts of 64 bits.
    wide: bool,
}

/// Tags that describe a directory, the layout of samples in the file and their meaning.
pub mod tag {
    /// Whether a directory is a thumbnail (bit 0).
    pub const NEW_SUBFILE_TYPE: u16 = 254;
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS_PER_SAMPLE: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    /// EXIF orientation, 1 to 8.
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
    /// Child directories.
    pub const SUB_IFDS: u16 = 330;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const S_MIN_SAMPLE_VALUE: u16 = 340;
    pub const S_MAX_SAMPLE_VALUE: u16 = 341;
    pub const JPEG_TABLES: u16 = 347;
    pub const YCBCR_COEFFICIENTS: u16 = 529;
    pub const YCBCR_SUBSAMPLING: u16 = 530;
    pub const REFERENCE_BLACK_WHITE: u16 = 532;
    /// Present in DNG files.
    pub const DNG_VERSION: u16 = 50_706;
}

impl<'a> Tiff<'a> {
    /// `None` if `bytes` do not start with a TIFF header.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (big_endian, wide) = match bytes.get(..4)? {
            b"II*\0" => (false, false),
            b"MM\0*" => (true, false),
            b"II+\0" => (false, true),
            b"MM\0+" => (true, true),
            _ => return None,
        };
        Some(Self {
            bytes,
            big_endian,
            wide,
        })
    }

    /// The first directory.
    pub fn first(self) -> Option<Directory<'a>> {
        let at = self.offset(self.offset_len())?;
        self.directory(at as u64)
    }

    /// All directories: the first and its successors, each with its children.
    pub fn directories(self) -> Vec<Directory<'a>> {
        let mut found = Vec::new();
        let mut pending: Vec<Directory<'_>> = self.first().into_iter().collect();
        while let Some(directory) = pending.pop() {
            if found.len() == MAX_DIRECTORIES {
                break;
            }
            let children = directory.values(tag::SUB_IFDS).into_iter();
            let children = children.take(MAX_DIRECTORIES);
            let linked = children.chain(directory.next());
            pending.extend(linked.filter_map(|at| self.directory(at)));
            found.push(directory);
        }
        found
    }

    fn directory(self, at: u64) -> Option<Directory<'a>> {
        let at = usize::try_from(at).ok().filter(|at| *at > 0)?;
        let count_len = if self.wide { 8 } else { 2 };
        let n_entries = usize::try_from(self.number(at, count_len)?).ok()?;
        Some(Directory {
            tiff: self,
            entries: at + count_len,
            n_entries,
        })
    }

    /// The unsigned number of `len` bytes (1 to 8) at offset `at`.
    fn number(self, at: usize, len: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(len)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.big_endian {
            true => bytes.iter().fold(0, append),
            false => bytes.iter().rev().fold(0, append),
        })
    }

    /// The offset or count stored at `at`.
    fn offset(self, at: usize) -> Option<usize> {
        usize::try_from(self.number(at, self.offset_len())?).ok()
    }

    fn offset_len(self) -> usize {
        if self.wide { 8 } else { 4 }
    }
}

/// A directory: a list of tags with values.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    tiff: Tiff<'a>,
    /// Offset of the first entry.
    entries: usize,
    n_entries: usize,
}

impl<'a> Directory<'a> {
    /// The first directory of a file; `None` if there is none.
    pub fn first(file: &'a [u8]) -> Option<Self> {
        Tiff::new(file)?.first()
    }

    /// Whether numbers are big-endian.
    pub fn big_endian(self) -> bool {
        self.tiff.big_endian
    }

    /// Whether the tag is present.
    pub fn has(self, tag: u16) -> bool {
        self.find(tag).is_some()
    }

    /// The first value of a tag, if it is a whole number.
    pub fn value(self, tag: u16) -> Option<u64> {
        let field = self.field(tag)?;
        (field.n > 0).then(|| self.whole(&field, 0))?
    }

    /// The values of a tag up to the first negative one; empty if they are not whole numbers.
    pub fn values(self, tag: u16) -> Vec<u64> {
        let Some(field) = self.field(tag) else {
            return Vec::new();
        };
        (0..field.n).map_while(|i| self.whole(&field, i)).collect()
    }

    /// The values of a tag of any numeric type.
    pub fn reals(self, tag: u16) -> Vec<f64> {
        let Some(field) = self.field(tag) else {
            return Vec::new();
        };
        (0..field.n).map_while(|i| self.real(&field, i)).collect()
    }

    /// The bytes of a tag.
    pub fn bytes(self, tag: u16) -> Option<&'a [u8]> {
        let Field { at, n, .. } = self.field(tag)?;
        self.tiff.bytes.get(at..at.checked_add(n)?)
    }

    /// Value `i` of a field, if it is a whole number and not negative.
    fn whole(self, field: &Field, i: usize) -> Option<u64> {
        let number = self.tiff.number(field.at + i * field.len, field.len)?;
        let is_negative = || number >> (8 * field.len - 1) == 1;
        match field.kind {
            1 | 3 | 4 | 7 | 13 | 16 | 18 => Some(number),
            6 | 8 | 9 | 17 => (!is_negative()).then_some(number),
            _ => None, // text, fractions, floats
        }
    }

    fn real(self, field: &Field, i: usize) -> Option<f64> {
        let number = |i: usize, len: usize| self.tiff.number(field.at + i * len, len);
        Some(match field.kind {
            5 => number(2 * i, 4)? as f64 / number(2 * i + 1, 4)? as f64,
            6 => f64::from(number(i, 1)? as i8),
            8 => f64::from(number(i, 2)? as i16),
            9 => f64::from(number(i, 4)? as i32),
            10 => f64::from(number(2 * i, 4)? as i32) / f64::from(number(2 * i + 1, 4)? as i32),
            11 => f64::from(f32::from_bits(number(i, 4)? as u32)),
            12 => f64::from_bits(number(i, 8)?),
            17 => number(i, 8)? as i64 as f64,
            _ => self.whole(field, i)? as f64,
        })
    }

    /// Type, count and offset of a tag's values.
    fn field(self, tag: u16) -> Option<Field> {
        let entry = self.find(tag)?;
        let kind = self.tiff.number(entry + 2, 2)?;
        let len = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => return None,
        };
        let n = self.tiff.offset(entry + 4)?;
        let inline_len = self.tiff.offset_len();
        let inline = entry + 4 + inline_len;
        let at = match n.checked_mul(len)? <= inline_len {
            true => inline,
            false => self.tiff.offset(inline)?,
        };
        // Values outside the file are dropped.
        let n_available = self.tiff.bytes.len().checked_sub(at)? / len;
        let n = n.min(n_available).min(MAX_VALUES);
        Some(Field { kind, len, at, n })
    }

    /// Offset of a tag's entry.
    fn find(self, tag: u16) -> Option<usize> {
        let len = self.entry_len();
        (0..self.n_entries)
            .map(|i| self.entries.checked_add(i.checked_mul(len)?))
            .map_while(|at| Some((at?, self.tiff.number(at?, 2)?)))
            .find_map(|(at, found)| (found == u64::from(tag)).then_some(at))
    }

    /// Offset of the next directory.
    fn next(self) -> Option<u64> {
        let after = self.n_entries.checked_mul(self.entry_len())?;
        let at = self.entries.checked_add(after)?;
        self.tiff.number(at, self.tiff.offset_len())
    }

    fn entry_len(self) -> usize {
        if self.tiff.wide { 20 } else { 12 }
    }
}

/// The values of a tag: type, length of one, offset of the first, and number.
struct Field {
    kind: u64,
    len: usize,
    at: usize,
    n: usize,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A little-endian structure of one directory with 32-bit values.
    pub fn with_tags(tags: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        bytes.extend((tags.len() as u16).to_le_bytes());
        for (tag, value) in tags {
            bytes.extend(tag.to_le_bytes());
            bytes.extend([4, 0, 1, 0, 0, 0]);
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn tags_are_found_in_both_byte_orders_and_widths() {
        let little = with_tags(&[(tag::COMPRESSION, 1), (tag::ORIENTATION, 6)]);
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let wide = [
            &b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..],
            b"\x12\x01\x03\0\x01\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0",
        ]
        .concat();
        for bytes in [&little[..], big, &wide] {
            let first = Tiff::new(bytes).unwrap().first().unwrap();
            assert_eq!(first.value(tag::ORIENTATION), Some(6), "{bytes:x?}");
            assert!(!first.has(tag::DNG_VERSION));
        }
    }

    #[test]
    fn signed_numbers_are_read_unless_negative() {
        for (kind, values, expected) in [
            (8, [6, 0, 0, 0], Some(6)),
            (8, [0xff, 0xff, 0, 0], None),
            (9, [6, 0, 0, 0], Some(6)),
            (9, [0, 0, 0, 0x80], None),
            (6, [0x7f, 0, 0, 0], Some(127)),
            (11, [0, 0, 0x80, 0x3f], None),
        ] {
            let mut bytes = with_tags(&[(tag::ORIENTATION, u32::from_le_bytes(values))]);
            bytes[12] = kind;
            let first = Directory::first(&bytes).unwrap();
            assert_eq!(
                first.value(tag::ORIENTATION),
                expected,
                "{kind}: {values:?}"
            );
        }
    }

    #[test]
    fn values_outside_the_bytes_are_dropped() {
        let mut bytes = with_tags(&[(tag::STRIP_OFFSETS, 22)]); // after the entry
        bytes[14..18].copy_from_slice(&u32::MAX.to_le_bytes());
        let first = Directory::first(&bytes).unwrap();
        assert_eq!(first.values(tag::STRIP_OFFSETS), [0]);
        assert_eq!(first.reals(tag::STRIP_OFFSETS), [0.0]);
        assert_eq!(first.value(tag::STRIP_OFFSETS), Some(0));
    }

    #[test]
    fn cycles_end_and_invalid_offsets_are_ignored() {
        let mut cycle = with_tags(&[(tag::SUB_IFDS, 8)]);
        assert_eq!(
            Tiff::new(&cycle).unwrap().directories().len(),
            MAX_DIRECTORIES
        );
        let at = cycle.len() - 4;
        cycle[at] = 8; // followed by itself as well
        assert_eq!(
            Tiff::new(&cycle).unwrap().directories().len(),
            MAX_DIRECTORIES
        );
        for len in 0..cycle.len() {
            if let Some(tiff) = Tiff::new(&cycle[..len]) {
                tiff.directories();
            }
        }
        let far = b"II*\0\xff\xff\xff\xff";
        assert!(Tiff::new(far).unwrap().first().is_none());
        let wide = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
        assert!(!Tiff::new(wide).unwrap().first().unwrap().has(1));
    }
}
