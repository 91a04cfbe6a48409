//! Finds out which rows of a JPEG are present.
//!
//! The decoder silently fills missing rows with grey; the model would then describe half a picture as if it were
//! complete. The end-of-image marker is not sufficient evidence: phones write their own trailer in its place, webcams
//! omit it, and a trailer may contain the marker of another picture. Therefore the blocks of every scan are counted by
//! decoding its Huffman codes.

use super::{
    DHT, DNL, DQT, DRI, EOI, SOI, SOS,
    blocks::{Band, dc_first, sequential},
    entropy::{Bits, Stop, Table},
    frame::{Frame, Process, Scan},
    planar, tables,
};

/// Maximum number of trailing zero bytes of a scan without a marker after it and without padding of ones. Zeros are
/// valid codes: without this limit, a file that an interrupted download left full of zeros would count as complete.
pub const MAX_ZEROS: usize = 4;

/// No scan has had this coefficient yet.
const NONE: u8 = u8::MAX;

/// How a picture ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an end-of-image marker, which the decoder finds.
    Marked,
    /// All rows are complete at this position, but no marker follows directly.
    Unmarked(usize),
    /// Rows are missing.
    Short,
    /// Not known; the decoder's result decides.
    Unknown,
}

/// The result of the analysis.
#[derive(Debug)]
pub struct Analysis {
    pub ending: Ending,
    /// The frame header and the offset of its payload.
    pub frame: Option<(usize, Frame)>,
    /// Missing DHT segments: the offset at which to insert each, and its payload.
    pub missing_tables: Vec<(usize, Vec<u8>)>,
    /// Range of a DNL segment.
    pub lines: Option<std::ops::Range<usize>>,
    /// End of the last complete segment or scan.
    pub end: usize,
    /// Whether the file ends within the segment after `end`.
    pub in_segment: bool,
    /// The quantization tables that are defined up to `end`.
    pub quantizers: Vec<u8>,
    /// Components without a complete scan, as indices in the frame's list.
    pub missing_components: Vec<usize>,
    /// The truncated scan after `end`, if its blocks have no data without it.
    pub truncated: Option<TruncatedScan>,
    /// Whether the components need the decoder of [`planar`].
    pub needs_planar_decoder: bool,
    /// The variant of JPEG, if it is not supported.
    pub unsupported: Option<&'static str>,
}

/// A truncated scan, with the state needed to read it.
#[derive(Debug)]
pub struct TruncatedScan {
    pub scan: Scan,
    /// Offset of its data.
    pub from: usize,
    /// MCUs between restart markers; 0 for none.
    pub restart_interval: u64,
    /// DC and AC tables of its components; progressive scans of this kind have no AC table.
    pub tables: Vec<(Table, Option<Table>)>,
}

/// Determines which data of the JPEG `bytes` are present.
pub fn analyze(bytes: &[u8]) -> Analysis {
    let mut analyzer = Analyzer {
        bytes,
        pos: 2,
        found: Analysis {
            ending: Ending::Unknown,
            frame: None,
            missing_tables: Vec::new(),
            lines: None,
            end: 2,
            in_segment: false,
            quantizers: Vec::new(),
            missing_components: Vec::new(),
            truncated: None,
            needs_planar_decoder: false,
            unsupported: None,
        },
        tables: Default::default(),
        restart_interval: 0,
        reached: [[NONE; 64]; 4],
        nonzero: Default::default(),
        damaged: false,
    };
    let ending = analyzer.run();
    Analysis {
        ending,
        missing_components: analyzer.missing_components(),
        ..analyzer.found
    }
}

/// The state of a decoder that does not keep values.
struct Analyzer<'a> {
    bytes: &'a [u8],
    pos: usize,
    found: Analysis,
    /// By class (DC, AC) and destination.
    tables: [[Option<Table>; 4]; 2],
    /// MCUs between restart markers; 0 for none.
    restart_interval: u64,
    /// For each component and coefficient, the bit position that complete scans reached.
    reached: [[u8; 64]; 4],
    /// For each component and block, the set of non-zero coefficients: refinement scans depend on it.
    nonzero: [Vec<u64>; 4],
    /// Whether invalid codes were found.
    damaged: bool,
}

/// The result of reading a scan.
enum Scanned {
    Whole,
    Damaged,
    Short {
        n_mcus: u64,
        /// Whether blocks have no data at all without this scan.
        coarse: bool,
    },
}

impl Analyzer<'_> {
    fn run(&mut self) -> Ending {
        loop {
            self.found.end = self.pos.min(self.bytes.len());
            let Some(marker) = self.next_marker() else {
                return Ending::Short;
            };
            match marker {
                EOI => return self.at_end_marker(),
                // Another picture starts; its scans do not belong to this one.
                SOI if self.found.frame.is_some() => return Ending::Short,
                0x01 | SOI | 0xd0..=0xd7 => continue,
                _ => {}
            }
            let Some(payload) = self.payload() else {
                self.found.in_segment = true;
                return Ending::Short;
            };
            match self.segment(marker, payload) {
                Some(Scanned::Short { coarse, .. }) if coarse || self.is_at_end() => {
                    return Ending::Short;
                }
                Some(_) if self.is_complete() => return self.after_last_scan(),
                Some(_) => {}
                // An interrupted download within the segment may have left zeros.
                None if self.only_zeros_follow() => {
                    self.found.in_segment = true;
                    return Ending::Short;
                }
                None => return Ending::Unknown,
            }
        }
    }

    /// Processes a segment; `None` if it is invalid.
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
                    self.found.unsupported = Some("12-bit samples");
                }
                let unknown = frame.precision != 8 || too_large;
                self.found.frame = Some((payload.start, frame));
                (!unknown).then_some(Scanned::Whole)
            }
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xf7 if self.found.frame.is_none() => {
                self.found.unsupported = Some(match marker {
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

    /// Moves past the next marker and returns its second byte; stray bytes are skipped, as decoders do.
    fn next_marker(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.pos..)?;
        let is_marker = |w: &[u8]| w[0] == 0xff && !matches!(w[1], 0 | 0xff);
        let at = rest.windows(2).position(is_marker)?;
        self.pos += at + 2;
        Some(rest[at + 1])
    }

    /// Moves past the segment whose marker was read and returns the range of its payload.
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

    /// The height of a frame that declares it in a DNL segment after its first scan.
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

    /// Reads the scan with this header.
    fn scan(&mut self, header: std::ops::Range<usize>) -> Option<Scanned> {
        let (_, frame) = self.found.frame.clone()?;
        let scan = Scan::parse(&frame, &self.bytes[header.clone()])?;
        if frame.process == Process::Sequential {
            self.found.needs_planar_decoder |=
                planar::needs_planar_decoder(&frame, scan.components.len());
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
                // A partial last row is accepted if an end marker follows, as in Pillow.
                if n_mcus > last_row && self.bytes.get(self.pos + 1) == Some(&EOI) {
                    self.damaged = true;
                    self.note_reached(&scan);
                    return Some(Scanned::Damaged);
                }
                if coarse {
                    self.note_truncated(scan, header.end);
                }
            }
        }
        Some(scanned)
    }

    /// Uses the standard tables where a sequential scan refers to undefined ones.
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
                    self.found.unsupported = Some("missing Huffman tables");
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

    fn note_truncated(&mut self, scan: Scan, from: usize) {
        let tables = scan.components.iter().map(|c| {
            let ac = self.tables[1].get(c.ac_table).cloned().flatten();
            Some((self.tables[0].get(c.dc_table).cloned().flatten()?, ac))
        });
        self.found.truncated = tables.collect::<Option<_>>().map(|tables| TruncatedScan {
            scan,
            from,
            restart_interval: self.restart_interval,
            tables,
        });
    }

    /// Components without a complete scan of their DC coefficients.
    fn missing_components(&self) -> Vec<usize> {
        let n = self
            .found
            .frame
            .as_ref()
            .map_or(0, |(_, f)| f.components.len());
        (0..n).filter(|i| self.reached[*i][0] == NONE).collect()
    }

    /// Whether every coefficient is complete to its last bit.
    fn is_complete(&self) -> bool {
        self.all_components(|reached| reached.iter().all(|low| *low == 0))
    }

    fn all_components(&self, holds: impl Fn(&[u8; 64]) -> bool) -> bool {
        let frame = self.found.frame.as_ref();
        frame.is_some_and(|(_, f)| self.reached[..f.components.len()].iter().all(holds))
    }

    /// Whether only zeros follow, and more of them than may end a scan.
    fn only_zeros_follow(&self) -> bool {
        let rest = &self.bytes[self.pos..];
        rest.len() > MAX_ZEROS && rest.iter().all(|byte| *byte == 0)
    }

    /// Whether the file ends here.
    fn is_at_end(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    /// At the end marker: all DC coefficients must have been read.
    fn at_end_marker(&self) -> Ending {
        match self.all_components(|reached| reached[0] != NONE) {
            true => Ending::Marked,
            false if self.found.frame.is_some() => Ending::Short,
            false => Ending::Unknown,
        }
    }

    /// After the scan that completed the picture.
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

impl Analyzer<'_> {
    /// Counts the MCUs of a scan whose data start at `from`, and moves to its end.
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

    /// Reads MCUs up to a restart marker. Returns where and why it stopped early, if it did; `None` if a table is
    /// missing.
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
                    let n = frame.blocks_per_mcu(scan, c);
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
                    blocks.extend((0..frame.blocks_per_mcu(scan, c)).map(|_| dc));
                }
                first_stop(mcus, |_| {
                    blocks.iter().try_for_each(|dc| dc_first(bits, dc))
                })
            }
            Process::Progressive if scan.band.0 == 0 => {
                let n = scan.components.iter();
                let n = n.map(|c| frame.blocks_per_mcu(scan, c)).sum();
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

/// The first MCU that cannot be read, and why.
fn first_stop(
    mcus: std::ops::Range<u64>,
    mut read: impl FnMut(u64) -> Result<(), Stop>,
) -> Option<(u64, Stop)> {
    mcus.into_iter()
        .find_map(|mcu| read(mcu).err().map(|stop| (mcu, stop)))
}
