//! Entropy-coded data: the bits between two markers and their Huffman codes.
//!
//! Symbols are decoded, values are only skipped: that is enough for counting blocks.

/// Why decoding of a scan stopped before its last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bits end, at a marker or at the end of the file.
    NoBits,
    /// A code that is not in the table, or a coefficient after the 64th.
    BadCode,
}

/// A Huffman table for decoding.
#[derive(Clone, Debug)]
pub struct Table {
    /// For each value of the next 8 bits: length and symbol of the code at their start; length 0 if the code is
    /// longer.
    short: [(u8, u8); 256],
    /// For each length: the end of its codes (exclusive), and the difference from a code to its index in `symbols`.
    longer: [(u32, i32); 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the numbers of codes by length and the symbols in order; `None` if they do not form a prefix code.
    pub fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            short: [(0, 0); 256],
            longer: [(0, 0); 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut at) = (0_u32, 0_usize);
        for (length, &count) in (1_u32..).zip(counts) {
            table.longer[length as usize].1 = at as i32 - code as i32;
            for _ in 0..count {
                if code >> length != 0 {
                    return None;
                }
                let symbol = *symbols.get(at)?;
                if length <= 8 {
                    let first = (code << (8 - length)) as usize;
                    table.short[first..first + (1 << (8 - length))].fill((length as u8, symbol));
                }
                code += 1;
                at += 1;
            }
            table.longer[length as usize].0 = code;
            code <<= 1;
        }
        Some(table)
    }
}

/// A bit reader, from a position in the file to the next marker.
#[derive(Debug)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to read into `buffer`.
    pos: usize,
    /// Buffered bits: the `n_buffered` low ones, the next one highest.
    buffer: u64,
    n_buffered: u32,
}

impl<'a> Bits<'a> {
    /// Starts at `pos`.
    pub fn new(bytes: &'a [u8], pos: usize) -> Self {
        Self {
            bytes,
            pos,
            buffer: 0,
            n_buffered: 0,
        }
    }

    /// Reads bytes until 32 bits are buffered, or up to the next marker or the end.
    fn refill(&mut self) {
        while self.n_buffered < 32 {
            let Some(&byte) = self.bytes.get(self.pos) else {
                return;
            };
            if byte == 0xff {
                if self.bytes.get(self.pos + 1) != Some(&0) {
                    return;
                }
                self.pos += 1; // the stuffed zero
            }
            self.pos += 1;
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.n_buffered += 8;
        }
    }

    /// Skips `n` bits, at most 16.
    pub fn skip(&mut self, n: u32) -> Result<(), Stop> {
        self.take(n).map(drop)
    }

    /// Reads `n` bits, at most 16.
    pub fn take(&mut self, n: u32) -> Result<u32, Stop> {
        if self.n_buffered < n {
            self.refill();
            if self.n_buffered < n {
                return Err(Stop::NoBits);
            }
        }
        self.n_buffered -= n;
        Ok((self.buffer >> self.n_buffered) as u32 & ((1 << n) - 1))
    }

    /// Reads a code and returns its symbol.
    pub fn symbol(&mut self, table: &Table) -> Result<u8, Stop> {
        if self.n_buffered < 16 {
            self.refill();
        }
        // Missing bits are replaced by ones; no code consists of ones only.
        let next = match self.n_buffered {
            n @ 0..16 => {
                let missing = 16 - n;
                (self.buffer << missing | ((1 << missing) - 1)) as u32 & 0xffff
            }
            n => (self.buffer >> (n - 16)) as u32 & 0xffff,
        };
        let (mut length, mut symbol) = table.short[(next >> 8) as usize];
        if length == 0 {
            length = (9..=16)
                .find(|&n| next >> (16 - n) < table.longer[usize::from(n)].0)
                .ok_or(self.bad_code())?;
            let (_, offset) = table.longer[usize::from(length)];
            let at = (next >> (16 - length)) as i32 + offset;
            symbol = *table.symbols.get(at as usize).ok_or(Stop::BadCode)?;
        }
        if u32::from(length) > self.n_buffered {
            return Err(Stop::NoBits);
        }
        self.n_buffered -= u32::from(length);
        Ok(symbol)
    }

    fn bad_code(&self) -> Stop {
        match self.n_buffered {
            0..16 => Stop::NoBits,
            _ => Stop::BadCode,
        }
    }

    /// Moves to the next whole byte after the bits read so far and returns what padded the last one.
    pub fn align(&mut self) -> Padding {
        while self.n_buffered >= 8 {
            let byte = self.buffer as u8;
            self.pos -= if byte == 0xff { 2 } else { 1 };
            self.buffer >>= 8;
            self.n_buffered -= 8;
        }
        let mask = (1 << self.n_buffered) - 1;
        let read = &self.bytes[..self.pos];
        let padding = Padding {
            n_bits: self.n_buffered,
            all_ones: self.buffer & mask == mask,
            n_zeros: read.iter().rev().take_while(|byte| **byte == 0).count(),
        };
        self.n_buffered = 0;
        padding
    }

    /// The position of the next byte, after [`Self::align`].
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Moves to the next marker; false if there is none.
    pub fn seek_marker(&mut self) -> bool {
        self.n_buffered = 0;
        let rest = &self.bytes[self.pos..];
        let marker = rest
            .windows(2)
            .position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff));
        self.pos = marker.map_or(self.bytes.len(), |at| self.pos + at);
        marker.is_some()
    }
}

/// The padding at the end of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Padding {
    /// Unused bits of the last byte.
    pub n_bits: u32,
    /// Whether all of them are ones, as encoders write them.
    pub all_ones: bool,
    /// Number of zero bytes at the end of the scan.
    pub n_zeros: usize,
}
