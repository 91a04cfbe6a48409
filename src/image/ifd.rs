//! Directories of tags, as TIFF pictures, EXIF blocks and most raw photos have them.

/// The most directories that are looked at, so that a cycle ends.
const MAX_DIRECTORIES: usize = 64;

/// A structure of directories in memory. Nothing in it is trusted: what lies outside the bytes is not there.
#[derive(Clone, Copy, Debug)]
pub struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// BigTIFF: offsets and counts of 64 bits.
    wide: bool,
}

/// Tags that are looked at.
pub mod tag {
    /// Whether a directory is a thumbnail (bit 0).
    pub const NEW_SUBFILE_TYPE: u16 = 0xfe;
    /// How the samples are compressed.
    pub const COMPRESSION: u16 = 0x103;
    /// What the samples mean.
    pub const PHOTOMETRIC: u16 = 0x106;
    /// How the picture is to be turned, 1 to 8.
    pub const ORIENTATION: u16 = 0x112;
    /// Further directories below one.
    pub const SUB_IFDS: u16 = 0x14a;
    /// Says that the file is a DNG.
    pub const DNG_VERSION: u16 = 0xc612;
}

impl<'a> Tiff<'a> {
    /// `None` if `bytes` do not begin as such a structure does.
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
        let at = match self.wide {
            true => self.number(8, 8)?,
            false => self.number(4, 4)?,
        };
        self.directory(at)
    }

    /// All directories: the first and those that follow it, each with those below it.
    pub fn directories(self) -> Vec<Directory<'a>> {
        let mut found = Vec::new();
        let mut to_do: Vec<Directory<'_>> = self.first().into_iter().collect();
        while let Some(directory) = to_do.pop() {
            if found.len() == MAX_DIRECTORIES {
                break;
            }
            let below = directory.values(tag::SUB_IFDS).into_iter();
            let others = below.chain(directory.next());
            to_do.extend(others.filter_map(|at| self.directory(at)));
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

    /// The unsigned number of `len` bytes (1 to 8) at an offset.
    fn number(self, at: usize, len: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(len)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.big_endian {
            true => bytes.iter().fold(0, append),
            false => bytes.iter().rev().fold(0, append),
        })
    }
}

/// One directory: a list of tags with values.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    tiff: Tiff<'a>,
    /// Where the entries begin.
    entries: usize,
    n_entries: usize,
}

impl Directory<'_> {
    /// Whether the tag is there.
    pub fn has(self, tag: u16) -> bool {
        self.find(tag).is_some()
    }

    /// The first value of a tag, if that is a whole number.
    pub fn value(self, tag: u16) -> Option<u64> {
        self.values(tag).first().copied()
    }

    /// The values of a tag, at most [`MAX_DIRECTORIES`]; none if they are no whole numbers.
    pub fn values(self, tag: u16) -> Vec<u64> {
        self.find(tag)
            .and_then(|at| self.values_at(at))
            .unwrap_or_default()
    }

    fn values_at(self, entry: usize) -> Option<Vec<u64>> {
        let Tiff { wide, .. } = self.tiff;
        let value_len = match self.tiff.number(entry + 2, 2)? {
            1 | 6 => 1,
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            16..=18 => 8,
            _ => return None, // text, fractions, floats
        };
        let field = if wide { 8 } else { 4 };
        let n = self.tiff.number(entry + 4, field)?;
        let n = usize::try_from(n).ok()?.min(MAX_DIRECTORIES);
        let inline = entry + 4 + field;
        let at = match n * value_len <= field {
            true => inline,
            false => usize::try_from(self.tiff.number(inline, field)?).ok()?,
        };
        let value = |i| self.tiff.number(at.checked_add(i * value_len)?, value_len);
        (0..n).map(value).collect()
    }

    /// Where the entry of a tag begins.
    fn find(self, tag: u16) -> Option<usize> {
        let len = self.entry_len();
        (0..self.n_entries)
            .map(|i| self.entries.checked_add(i.checked_mul(len)?))
            .map_while(|at| Some((at?, self.tiff.number(at?, 2)?)))
            .find_map(|(at, found)| (found == u64::from(tag)).then_some(at))
    }

    /// Where the next directory is.
    fn next(self) -> Option<u64> {
        let after = self.n_entries.checked_mul(self.entry_len())?;
        let at = self.entries.checked_add(after)?;
        self.tiff.number(at, if self.tiff.wide { 8 } else { 4 })
    }

    fn entry_len(self) -> usize {
        if self.tiff.wide { 20 } else { 12 }
    }
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
    fn cycles_end_and_nonsense_is_not_there() {
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
