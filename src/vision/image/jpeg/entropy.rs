//! Entropy-coded data: bits between two markers, and the Huffman codes in them.
//!
//! Only as far as counting needs it: symbols are decoded, values are skipped.

/// What stops the decoding of a scan before its last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bits end, at a marker or with the file.
    NoBits,
    /// No code of the table, or a coefficient behind the 64th.
    BadCode,
}

/// A Huffman table, for decoding.
#[derive(Clone, Debug)]
pub struct Table {
    /// For every 8 bits that may come next: length and symbol of the code that they begin with; length 0 if
    /// it is longer.
    short: [(u8, u8); 256],
    /// For each length, the first code that is greater than all of it; and what to add to a code to get its
    /// place among the symbols.
    longer: [(u32, i32); 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the counts of codes by length and the symbols in order; `None` if they are no prefix code.
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

/// Bits of a scan, from a position in the file up to the next marker.
#[derive(Debug)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in `held`.
    pos: usize,
    /// The bits read last, the next one highest among the `n_held` low ones.
    held: u64,
    n_held: u32,
}

impl<'a> Bits<'a> {
    /// The bits from `pos` on.
    pub fn new(bytes: &'a [u8], pos: usize) -> Self {
        Self {
            bytes,
            pos,
            held: 0,
            n_held: 0,
        }
    }

    /// Takes bytes up to the next marker or the end, until 32 bits are there.
    fn refill(&mut self) {
        while self.n_held < 32 {
            let Some(&byte) = self.bytes.get(self.pos) else {
                return;
            };
            if byte == 0xff {
                if self.bytes.get(self.pos + 1) != Some(&0) {
                    return;
                }
                self.pos += 1; // the zero that was stuffed
            }
            self.pos += 1;
            self.held = self.held << 8 | u64::from(byte);
            self.n_held += 8;
        }
    }

    /// Skips `n` bits, at most 16.
    pub fn skip(&mut self, n: u32) -> Result<(), Stop> {
        self.take(n).map(drop)
    }

    /// The next `n` bits, at most 16.
    pub fn take(&mut self, n: u32) -> Result<u32, Stop> {
        if self.n_held < n {
            self.refill();
            if self.n_held < n {
                return Err(Stop::NoBits);
            }
        }
        self.n_held -= n;
        Ok((self.held >> self.n_held) as u32 & ((1 << n) - 1))
    }

    /// The symbol of the next code.
    pub fn symbol(&mut self, table: &Table) -> Result<u8, Stop> {
        if self.n_held < 16 {
            self.refill();
        }
        // Missing bits are ones, which no code consists of.
        let next = match self.n_held {
            n @ 0..16 => {
                let missing = 16 - n;
                (self.held << missing | ((1 << missing) - 1)) as u32 & 0xffff
            }
            n => (self.held >> (n - 16)) as u32 & 0xffff,
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
        if u32::from(length) > self.n_held {
            return Err(Stop::NoBits);
        }
        self.n_held -= u32::from(length);
        Ok(symbol)
    }

    fn bad_code(&self) -> Stop {
        match self.n_held {
            0..16 => Stop::NoBits,
            _ => Stop::BadCode,
        }
    }

    /// Where the scan goes on after the bits taken so far, at a whole byte: gives back what was read ahead.
    pub fn align(&mut self) -> Padding {
        while self.n_held >= 8 {
            let byte = self.held as u8;
            self.pos -= if byte == 0xff { 2 } else { 1 };
            self.held >>= 8;
            self.n_held -= 8;
        }
        let mask = (1 << self.n_held) - 1;
        let read = &self.bytes[..self.pos];
        let padding = Padding {
            n_bits: self.n_held,
            all_ones: self.held & mask == mask,
            n_zeros: read.iter().rev().take_while(|byte| **byte == 0).count(),
        };
        self.n_held = 0;
        padding
    }

    /// The position of the next byte, after [`Self::align`].
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Moves on to the next marker; false if there is none.
    pub fn seek_marker(&mut self) -> bool {
        self.n_held = 0;
        let rest = &self.bytes[self.pos..];
        let marker = rest
            .windows(2)
            .position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff));
        self.pos = marker.map_or(self.bytes.len(), |at| self.pos + at);
        marker.is_some()
    }
}

/// What fills the last byte of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Padding {
    /// How many bits of it are unused.
    pub n_bits: u32,
    /// Whether these are ones, as encoders write them.
    pub all_ones: bool,
    /// How many zero bytes the scan ends with.
    pub n_zeros: usize,
}
