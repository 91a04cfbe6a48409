//! Which rows of a JPEG are there.
//!
//! The decoder fills what is missing with grey and says nothing; the model would then describe half a
//! picture as if it were whole. An end-of-image marker says little about that: phones write their own trailer
//! in its place, webcams leave it out, and a trailer may hold the marker of another picture. So the blocks of
//! every scan are counted by reading its Huffman codes.

use super::{
    DHT, DNL, DQT, DRI, EOI, SOI, SOS,
    blocks::{Band, dc_first, sequential},
    entropy::{Bits, Stop, Table},
    frame::{Frame, Process, Scan},
    planes, tables,
};

/// The most zero bytes that a scan may end with if no marker follows it and its last byte is not filled with
/// ones. Zeros are codes too: a file that a broken download left full of them would otherwise count as whole.
pub const MAX_ZEROS: usize = 4;

/// No scan of this coefficient came yet.
const NONE: u8 = u8::MAX;

/// How a picture ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its marker, which the decoder finds.
    Marked,
    /// At this position all rows are there; no marker follows at once.
    Unmarked(usize),
    /// Rows are missing.
    Short,
    /// There is no saying, or no way to decode it: the decoder's words count.
    Unknown,
}

/// What was found.
#[derive(Debug)]
pub struct Survey {
    pub ending: Ending,
    /// The frame header, and where its payload begins.
    pub frame: Option<(usize, Frame)>,
    /// Payloads of DHT segments that are missing, and before which position.
    pub missing_tables: Vec<(usize, Vec<u8>)>,
    /// Where a DNL segment lies.
    pub lines: Option<std::ops::Range<usize>>,
    /// Where the last whole segment or scan ends.
    pub end: usize,
    /// Whether the file ends within the segment behind `end`.
    pub in_segment: bool,
    /// The quantization tables that are defined up to there.
    pub quantizers: Vec<u8>,
    /// Components of which no whole scan came, as places in the frame's list.
    pub lacking: Vec<usize>,
    /// The scan behind `end`, if it breaks off and its blocks have nothing without it.
    pub broken: Option<Broken>,
    /// Whether components come in scans for which another decoder is needed.
    pub by_planes: bool,
    /// The kind of JPEG, if it is one that cannot be decoded.
    pub refused: Option<&'static str>,
}

/// A scan that breaks off, with what it takes to read it.
#[derive(Debug)]
pub struct Broken {
    pub scan: Scan,
    /// Where its data begin.
    pub from: usize,
    /// MCUs between restart markers; 0 for none.
    pub restart_interval: u64,
    /// DC and AC tables of its components; progressive scans of this kind have no AC.
    pub tables: Vec<(Table, Option<Table>)>,
}

/// Counts what is there of the JPEG `bytes`.
pub fn survey(bytes: &[u8]) -> Survey {
    let mut walk = Walk {
        bytes,
        pos: 2,
        found: Survey {
            ending: Ending::Unknown,
            frame: None,
            missing_tables: Vec::new(),
            lines: None,
            end: 2,
            in_segment: false,
            quantizers: Vec::new(),
            lacking: Vec::new(),
            broken: None,
            by_planes: false,
            refused: None,
        },
        tables: Default::default(),
        restart_interval: 0,
        reached: [[NONE; 64]; 4],
        nonzero: Default::default(),
        damaged: false,
    };
    let ending = walk.run();
    Survey {
        ending,
        lacking: walk.lacking(),
        ..walk.found
    }
}

/// The state of a decoder that keeps no values.
struct Walk<'a> {
    bytes: &'a [u8],
    pos: usize,
    found: Survey,
    /// By class (DC, AC) and destination.
    tables: [[Option<Table>; 4]; 2],
    /// MCUs between restart markers; 0 for none.
    restart_interval: u64,
    /// For each component and coefficient, the bit position that whole scans reached.
    reached: [[u8; 64]; 4],
    /// For each component, which coefficients of each block are not zero: refinements depend on it.
    nonzero: [Vec<u64>; 4],
    /// Whether codes were found that do not exist.
    damaged: bool,
}

/// How a scan went.
enum Scanned {
    Whole,
    Damaged,
    Short {
        n_mcus: u64,
        /// Whether blocks have nothing at all without this scan.
        coarse: bool,
    },
}

impl Walk<'_> {
    fn run(&mut self) -> Ending {
        loop {
            self.found.end = self.pos.min(self.bytes.len());
            let Some(marker) = self.next_marker() else {
                return Ending::Short;
            };
            match marker {
                EOI => return self.at_end_marker(),
                // Another picture begins: its scans are none of this one.
                SOI if self.found.frame.is_some() => return Ending::Short,
                0x01 | SOI | 0xd0..=0xd7 => continue,
                _ => {}
            }
            let Some(payload) = self.payload() else {
                self.found.in_segment = true;
                return Ending::Short;
            };
            match self.segment(marker, payload) {
                Some(Scanned::Short { coarse, .. }) if coarse || self.is_cut() => {
                    return Ending::Short;
                }
                Some(_) if self.is_complete() => return self.after_last_scan(),
                Some(_) => {}
                // A download that broke off within the segment may have left zeros.
                None if self.is_zero_behind() => {
                    self.found.in_segment = true;
                    return Ending::Short;
                }
                None => return Ending::Unknown,
            }
        }
    }

    /// Takes a segment; `None` if it makes no sense.
    fn segment(&mut self, marker: u8, payload: std::ops::Range<usize>) -> Option<Scanned> {
        let content = &self.bytes[payload.clone()];
        match marker {
            0xc0..=0xc2 if self.found.frame.is_none() => {
                let process = match marker {
                    0xc2 => Process::Progressive,
                    _ => Process::Sequential,
                };
                let mut frame = Frame::parse(process, content)?;
                if frame.height == 0 {
                    frame.height = self.find_lines(payload.end)?.into();
                }
                let samples = u64::from(frame.width) * u64::from(frame.height);
                let too_large = 3 * samples > crate::vision::image::MAX_DECODED_BYTES;
                if frame.precision != 8 {
                    self.found.refused = Some("12-bit samples");
                }
                let unknown = frame.precision != 8 || too_large;
                self.found.frame = Some((payload.start, frame));
                (!unknown).then_some(Scanned::Whole)
            }
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xf7 if self.found.frame.is_none() => {
                self.found.refused = Some(match marker {
                    0xc3 => "lossless coding",
                    0xc5..=0xc7 => "hierarchical coding",
                    0xf7 => "lossless coding (JPEG-LS)",
                    _ => "arithmetic coding",
                });
                None
            }
            DHT => self.define_tables(content),
            DQT => {
                self.note_quantizers(content);
                Some(Scanned::Whole)
            }
            DRI => {
                self.restart_interval =
                    u16::from_be_bytes([*content.first()?, *content.get(1)?]).into();
                Some(Scanned::Whole)
            }
            DNL => {
                self.found.lines = Some(payload.start - 4..payload.end);
                Some(Scanned::Whole)
            }
            SOS => self.scan(payload),
            _ => Some(Scanned::Whole),
        }
    }

    /// The next marker's second byte, and past it; stray bytes are skipped, as decoders do.
    fn next_marker(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.pos..)?;
        let is_marker = |w: &[u8]| w[0] == 0xff && !matches!(w[1], 0 | 0xff);
        let at = rest.windows(2).position(is_marker)?;
        self.pos += at + 2;
        Some(rest[at + 1])
    }

    /// The payload of the segment whose marker was read, and past it.
    fn payload(&mut self) -> Option<std::ops::Range<usize>> {
        let length = self.bytes.get(self.pos..self.pos + 2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        let payload = self.pos + 2..self.pos + length;
        self.pos = payload.end;
        (payload.end <= self.bytes.len()).then_some(payload)
    }

    fn define_tables(&mut self, mut content: &[u8]) -> Option<Scanned> {
        while let Some((&class_and_id, rest)) = content.split_first() {
            let (counts, rest) = rest.split_at_checked(16)?;
            let n: usize = counts.iter().map(|n| usize::from(*n)).sum();
            let (symbols, rest) = rest.split_at_checked(n)?;
            let class = self.tables.get_mut(usize::from(class_and_id >> 4))?;
            let table = class.get_mut(usize::from(class_and_id & 15))?;
            *table = Some(Table::new(counts, symbols)?);
            content = rest;
        }
        Some(Scanned::Whole)
    }

    /// The height of a frame that leaves it to a DNL segment behind its first scan.
    fn find_lines(&self, from: usize) -> Option<u16> {
        let mut bits = Bits::new(self.bytes, from);
        while bits.seek_marker() {
            let at = bits.pos();
            match self.bytes[at + 1..] {
                [DNL, 0, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])),
                [EOI, ..] => return None,
                _ => bits = Bits::new(self.bytes, at + 2),
            }
        }
        None
    }

    /// Reads the scan whose header is `header`.
    fn scan(&mut self, header: std::ops::Range<usize>) -> Option<Scanned> {
        let (_, frame) = self.found.frame.clone()?;
        let scan = Scan::parse(&frame, &self.bytes[header.clone()])?;
        if frame.process == Process::Sequential {
            self.found.by_planes |= planes::are_needed(&frame, scan.components.len());
        }
        self.use_standard_tables(&frame, &scan, header.start - 4)?;
        let scanned = self.count(&frame, &scan, header.end)?;
        match scanned {
            Scanned::Whole => self.note_reached(&scan),
            Scanned::Damaged => {
                self.damaged = true;
                self.note_reached(&scan);
            }
            Scanned::Short { n_mcus, coarse } => {
                let (across, down) = frame.mcus(&scan);
                let last_row = u64::from(across) * u64::from(down - 1);
                // A last row that is begun counts if the picture's end is marked: Pillow takes that, too.
                if n_mcus > last_row && self.bytes.get(self.pos + 1) == Some(&EOI) {
                    self.damaged = true;
                    self.note_reached(&scan);
                    return Some(Scanned::Damaged);
                }
                if coarse {
                    self.note_broken(scan, header.end);
                }
            }
        }
        Some(scanned)
    }

    /// Where a sequential scan names tables that nobody defined, the standard ones are meant.
    fn use_standard_tables(&mut self, frame: &Frame, scan: &Scan, before: usize) -> Option<()> {
        for component in &scan.components {
            for (class, id) in [(0, component.dc_table), (1, component.ac_table)] {
                let table = self.tables[class].get_mut(id)?;
                let unused = class == 1 && scan.band.1 == 0
                    || class == 0 && scan.band.0 > 0
                    || scan.high > 0 && class == 0;
                if table.is_some() || unused {
                    continue;
                }
                if frame.process == Process::Progressive {
                    self.found.refused = Some("missing Huffman tables");
                    return None;
                }
                let payload = tables::standard(class, id)?;
                *table = Table::new(&payload[1..17], &payload[17..]);
                self.found.missing_tables.push((before, payload));
            }
        }
        Some(())
    }

    fn note_reached(&mut self, scan: &Scan) {
        for component in &scan.components {
            let band = scan.band.0 as usize..=scan.band.1 as usize;
            self.reached[component.index][band].fill(scan.low);
        }
    }

    fn note_quantizers(&mut self, mut content: &[u8]) {
        while let Some((&precision_and_id, rest)) = content.split_first() {
            self.found.quantizers.push(precision_and_id & 15);
            let len = if precision_and_id >> 4 == 0 { 64 } else { 128 };
            content = rest.get(len..).unwrap_or_default();
        }
    }

    fn note_broken(&mut self, scan: Scan, from: usize) {
        let tables = scan.components.iter().map(|c| {
            let ac = self.tables[1].get(c.ac_table).cloned().flatten();
            Some((self.tables[0].get(c.dc_table).cloned().flatten()?, ac))
        });
        self.found.broken = tables.collect::<Option<_>>().map(|tables| Broken {
            scan,
            from,
            restart_interval: self.restart_interval,
            tables,
        });
    }

    /// Components without a whole scan of their DC coefficients.
    fn lacking(&self) -> Vec<usize> {
        let n = self
            .found
            .frame
            .as_ref()
            .map_or(0, |(_, f)| f.components.len());
        (0..n).filter(|i| self.reached[*i][0] == NONE).collect()
    }

    /// Whether every coefficient is there to its last bit.
    fn is_complete(&self) -> bool {
        self.all_components(|reached| reached.iter().all(|low| *low == 0))
    }

    fn all_components(&self, holds: impl Fn(&[u8; 64]) -> bool) -> bool {
        let frame = self.found.frame.as_ref();
        frame.is_some_and(|(_, f)| self.reached[..f.components.len()].iter().all(holds))
    }

    /// Whether nothing but zeros follows, more than a scan ends with.
    fn is_zero_behind(&self) -> bool {
        let behind = &self.bytes[self.pos..];
        behind.len() > MAX_ZEROS && behind.iter().all(|byte| *byte == 0)
    }

    /// Whether the file ends here, so that a short scan is the last.
    fn is_cut(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    /// At the marker: all rows must have come at least coarsely.
    fn at_end_marker(&self) -> Ending {
        match self.all_components(|reached| reached[0] != NONE) {
            true => Ending::Marked,
            false if self.found.frame.is_some() => Ending::Short,
            false => Ending::Unknown,
        }
    }

    /// Behind the scan that made the picture complete.
    fn after_last_scan(&mut self) -> Ending {
        let end = self.pos;
        while let Some(&[0xff, marker]) = self.bytes.get(self.pos..self.pos + 2) {
            match marker {
                EOI => return Ending::Marked,
                0xff => self.pos += 1,
                0xd0..=0xd7 => self.pos += 2,
                _ => break,
            }
        }
        if !self.damaged {
            return Ending::Unmarked(end);
        }
        match self.find_end_marker() {
            true => Ending::Marked,
            false => Ending::Short,
        }
    }

    /// Whether an end-of-image marker follows somewhere.
    fn find_end_marker(&mut self) -> bool {
        while let Some(marker) = self.next_marker() {
            match marker {
                EOI => return true,
                0x01 | SOI | 0xd0..=0xd7 => {}
                _ if self.payload().is_none() => return false,
                _ => {}
            }
        }
        false
    }
}

impl Walk<'_> {
    /// Counts the MCUs of a scan whose data begin at `from`, and moves to its end.
    fn count(&mut self, frame: &Frame, scan: &Scan, from: usize) -> Option<Scanned> {
        let (across, down) = frame.mcus(scan);
        let n_mcus = u64::from(across) * u64::from(down);
        if n_mcus == 0 {
            return None;
        }
        if scan.band.0 > 0 {
            self.nonzero[scan.components[0].index].resize(n_mcus as usize, 0);
        }
        let mut bits = Bits::new(self.bytes, from);
        let coarse = scan.band.0 == 0 && scan.high == 0;
        let mut damaged = false;
        let mut mcu = 0;
        let scanned = loop {
            let end = match self.restart_interval {
                0 => n_mcus,
                interval => n_mcus.min(mcu + interval),
            };
            let stopped = self.interval(frame, scan, &mut bits, mcu..end)?;
            let padding = bits.align();
            if end == n_mcus && stopped.is_none() {
                let marked = matches!(self.bytes[bits.pos()..], [0xff, next, ..] if next != 0);
                let filled = padding.n_bits > 0 && padding.all_ones;
                break match marked || filled || padding.n_zeros <= MAX_ZEROS {
                    true if damaged => Scanned::Damaged,
                    true => Scanned::Whole,
                    false => Scanned::Short { n_mcus, coarse },
                };
            }
            let bad = matches!(stopped, Some((_, Stop::BadCode)));
            let found = bits.seek_marker();
            let at = bits.pos();
            match self.bytes.get(at + 1) {
                Some(0xd0..=0xd7) if found => {
                    damaged |= stopped.is_some();
                    mcu = end;
                    bits = Bits::new(self.bytes, at + 2);
                    if mcu == n_mcus {
                        break Scanned::Damaged;
                    }
                }
                _ if found && (bad || damaged) => break Scanned::Damaged,
                _ => {
                    let n_mcus = stopped.map_or(end, |(mcu, _)| mcu);
                    break Scanned::Short { n_mcus, coarse };
                }
            }
        };
        self.pos = bits.pos();
        Some(scanned)
    }

    /// Reads MCUs up to a restart; where and why it stopped before, if it did. `None` if a table is missing.
    fn interval(
        &mut self,
        frame: &Frame,
        scan: &Scan,
        bits: &mut Bits<'_>,
        mcus: std::ops::Range<u64>,
    ) -> Option<Option<(u64, Stop)>> {
        let stopped = match frame.process {
            Process::Sequential => {
                let mut blocks = Vec::new();
                for c in &scan.components {
                    let dc = self.tables[0][c.dc_table].as_ref()?;
                    let ac = self.tables[1][c.ac_table].as_ref()?;
                    let n = frame.blocks_of_mcu(scan, c);
                    blocks.extend((0..n).map(|_| (dc, ac)));
                }
                first_stop(mcus, |_| {
                    blocks
                        .iter()
                        .try_for_each(|(dc, ac)| sequential(bits, dc, ac))
                })
            }
            Process::Progressive if scan.band.0 == 0 && scan.high == 0 => {
                let mut blocks = Vec::new();
                for c in &scan.components {
                    let dc = self.tables[0][c.dc_table].as_ref()?;
                    blocks.extend((0..frame.blocks_of_mcu(scan, c)).map(|_| dc));
                }
                first_stop(mcus, |_| {
                    blocks.iter().try_for_each(|dc| dc_first(bits, dc))
                })
            }
            Process::Progressive if scan.band.0 == 0 => {
                let n = scan.components.iter();
                let n = n.map(|c| frame.blocks_of_mcu(scan, c)).sum();
                first_stop(mcus, |_| (0..n).try_for_each(|_| bits.skip(1)))
            }
            Process::Progressive => {
                let component = scan.components[0];
                let ac = self.tables[1].get(component.ac_table)?.as_ref()?;
                let nonzero = &mut self.nonzero[component.index];
                let mut band = Band {
                    first: scan.band.0,
                    last: scan.band.1,
                    run: 0,
                };
                first_stop(mcus, |mcu| {
                    let block = &mut nonzero[mcu as usize];
                    match scan.high {
                        0 => band.first_pass(bits, ac, block),
                        _ => band.refine(bits, ac, block),
                    }
                })
            }
        };
        Some(stopped)
    }
}

/// The first MCU that cannot be read.
fn first_stop(
    mcus: std::ops::Range<u64>,
    mut read: impl FnMut(u64) -> Result<(), Stop>,
) -> Option<(u64, Stop)> {
    mcus.into_iter()
        .find_map(|mcu| read(mcu).err().map(|stop| (mcu, stop)))
}
