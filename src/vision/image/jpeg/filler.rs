//! Scans that a truncated JPEG lacks, with grey in place of the missing blocks.
//!
//! A decoder wants a scan of every component, and every block of it. Here a scan that breaks off is coded anew:
//! the blocks that are there, and behind them blocks without coefficients. A component of which there is no scan gets
//! one of such blocks alone. That is mid-grey, and no colour in chroma, as libjpeg fills it.

use super::{
    DHT, DQT, DRI, EOI, SOS,
    entropy::{Bits, Table},
    frame::{Frame, Process, Scan, ScanComponent},
    survey::{Broken, MAX_ZEROS, Survey},
};

/// Sizes of DC differences, which are their codes, too.
const N_DC_SIZES: u8 = 12;
/// Sizes of AC coefficients, without 0.
const N_AC_SIZES: u8 = 10;
/// The end of a block, and 16 zeros.
const AC_WITHOUT_VALUE: [u8; 2] = [0x00, 0xf0];
/// The length of every code.
const CODE_LEN: u32 = 8;

/// What stands in place of all behind `found.end`: the scans that are missing, and the end-of-image marker. `None` if
/// no sample of the picture is there.
pub fn rest(bytes: &[u8], found: &Survey) -> Option<Vec<u8>> {
    let (_, frame) = found.frame.as_ref()?;
    let mut out = Vec::new();
    let missing = frame.components.iter().map(|c| c.quantizer);
    for id in missing.filter(|id| !found.quantizers.contains(id)) {
        segment(&mut out, DQT, &[&[id][..], &[1; 64]].concat());
    }
    tables(&mut out, frame);
    let mut lacking = found.lacking.clone();
    if let Some(broken) = &found.broken {
        lacking.retain(|i| broken.scan.components.iter().all(|c| c.index != *i));
        segment(&mut out, DRI, &[0, 0]);
        let (data, n_copied) = recoded(bytes, frame, broken);
        if n_copied == 0 && lacking.len() + broken.scan.components.len() == frame.components.len() {
            return None;
        }
        put_scan(&mut out, frame, &broken.scan, data);
    } else if lacking.len() == frame.components.len() {
        return None;
    } else {
        segment(&mut out, DRI, &[0, 0]);
    }
    for index in lacking {
        let scan = Scan::of_one(frame, index);
        let mut coder = Coder::default();
        let (across, down) = frame.mcus(&scan);
        (0..u64::from(across) * u64::from(down)).for_each(|_| coder.grey(frame, &scan));
        put_scan(&mut out, frame, &scan, coder.finish());
    }
    out.extend([0xff, EOI]);
    Some(out)
}

/// The table that scans of `frame` name here. Baseline has 0 and 1 alone; of progressive scans those before keep theirs.
fn destination(frame: &Frame) -> u8 {
    match frame.process {
        Process::Sequential => 0,
        Process::Progressive => 3,
    }
}

fn segment(out: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
}

/// Huffman tables whose codes all have the same length.
fn tables(out: &mut Vec<u8>, frame: &Frame) {
    let runs = (0..16).flat_map(|run| (1..=N_AC_SIZES).map(move |size| run << 4 | size));
    let ac: Vec<u8> = AC_WITHOUT_VALUE.into_iter().chain(runs).collect();
    let dc: Vec<u8> = (0..N_DC_SIZES).collect();
    for (class, symbols) in [(0, dc), (1, ac)] {
        let mut counts = [0; 16];
        counts[CODE_LEN as usize - 1] = symbols.len() as u8;
        let head = [class << 4 | destination(frame)];
        segment(out, DHT, &[&head[..], &counts, &symbols].concat());
    }
}

fn put_scan(out: &mut Vec<u8>, frame: &Frame, scan: &Scan, data: Vec<u8>) {
    let tables = destination(frame) << 4 | destination(frame);
    let mut header = vec![scan.components.len() as u8];
    for component in &scan.components {
        header.extend([frame.components[component.index].id, tables]);
    }
    header.extend([scan.band.0 as u8, scan.band.1 as u8]);
    header.push(scan.high << 4 | scan.low);
    segment(out, SOS, &header);
    out.extend(data);
}

/// The data of a scan with grey behind the MCUs that are there, and how many these are.
fn recoded(bytes: &[u8], frame: &Frame, broken: &Broken) -> (Vec<u8>, u64) {
    let n_zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let n_zeros = if n_zeros > MAX_ZEROS { n_zeros } else { 0 }; // what a broken download left
    let bytes = &bytes[..(bytes.len() - n_zeros).max(broken.from)];
    let (across, down) = frame.mcus(&broken.scan);
    let n_mcus = u64::from(across) * u64::from(down);
    let interval = match broken.restart_interval {
        0 => n_mcus,
        n => n,
    };
    let mut bits = Bits::new(bytes, broken.from);
    let mut coder = Coder::default();
    let (mut at, mut n_copied) = (0, 0);
    while at < n_mcus {
        let end = n_mcus.min(at + interval);
        let mut levels = [0_i32; 4];
        while at < end
            && let Some(mcu) = read_mcu(&mut bits, frame, broken)
        {
            for (component, block) in &mcu {
                let level = levels[*component] + block.difference;
                levels[*component] = level.clamp(i16::MIN.into(), i16::MAX.into());
                coder.block(*component, levels[*component], &block.coefficients);
            }
            (at, n_copied) = (at + 1, n_copied + 1);
        }
        (at..end).for_each(|_| coder.grey(frame, &broken.scan));
        at = end;
        bits.align();
        let restarts = bits.seek_marker() && matches!(bytes.get(bits.pos() + 1), Some(0xd0..=0xd7));
        if !restarts {
            break;
        }
        bits = Bits::new(bytes, bits.pos() + 2);
    }
    (at..n_mcus).for_each(|_| coder.grey(frame, &broken.scan));
    (coder.finish(), n_copied)
}

/// The blocks of the next MCU, each with the place of its component in the scan; `None` if they are not all there.
fn read_mcu(bits: &mut Bits<'_>, frame: &Frame, broken: &Broken) -> Option<Vec<(usize, Block)>> {
    let mut mcu = Vec::new();
    for (i, component) in broken.scan.components.iter().enumerate() {
        let (dc, ac) = &broken.tables[i];
        for _ in 0..frame.blocks_of_mcu(&broken.scan, component) {
            let block = match frame.process {
                Process::Sequential => Block::read(bits, dc, Some(ac.as_ref()?))?,
                Process::Progressive => Block::read(bits, dc, None)?,
            };
            mcu.push((i, block));
        }
    }
    Some(mcu)
}

/// A block as a scan has it.
struct Block {
    /// From the DC coefficient of the block before.
    difference: i32,
    /// Symbols, and the bits of the values that follow them; without AC coefficients `None`.
    coefficients: Option<Vec<(u8, u32)>>,
}

impl Block {
    fn read(bits: &mut Bits<'_>, dc: &Table, ac: Option<&Table>) -> Option<Self> {
        let size = bits.symbol(dc).ok().filter(|size| *size < N_DC_SIZES)?;
        let value = bits.take(size.into()).ok()? as i32;
        let is_negative = size > 0 && value >> (size - 1) == 0;
        Some(Self {
            difference: value - if is_negative { (1 << size) - 1 } else { 0 },
            coefficients: match ac {
                Some(ac) => Some(Self::read_coefficients(bits, ac)?),
                None => None,
            },
        })
    }

    fn read_coefficients(bits: &mut Bits<'_>, ac: &Table) -> Option<Vec<(u8, u32)>> {
        let mut found = Vec::new();
        let mut k = 1;
        while k < 64 {
            let symbol = bits.symbol(ac).ok()?;
            let (run, size) = (symbol >> 4, symbol & 15);
            match (run, size) {
                (15, 0) => {
                    found.push((symbol, 0));
                    k += 16;
                }
                (_, 0) => {
                    found.push((0, 0));
                    break;
                }
                _ if size > N_AC_SIZES || k + run > 63 => return None,
                _ => {
                    found.push((symbol, bits.take(size.into()).ok()?));
                    k += run + 1;
                }
            }
        }
        Some(found)
    }
}

/// Writes blocks with the codes of [`tables`].
#[derive(Default)]
struct Coder {
    bytes: Vec<u8>,
    /// Bits that fill no byte yet, the last one lowest.
    held: u32,
    n_held: u32,
    /// DC coefficients of the blocks written last, by component of the scan.
    levels: [i32; 4],
}

impl Coder {
    /// An MCU without coefficients.
    fn grey(&mut self, frame: &Frame, scan: &Scan) {
        let coefficients = match frame.process {
            Process::Sequential => Some(vec![(0, 0)]),
            Process::Progressive => None,
        };
        for (i, component) in scan.components.iter().enumerate() {
            for _ in 0..frame.blocks_of_mcu(scan, component) {
                self.block(i, 0, &coefficients);
            }
        }
    }

    fn block(&mut self, component: usize, level: i32, coefficients: &Option<Vec<(u8, u32)>>) {
        let most = (1 << (N_DC_SIZES - 1)) - 1;
        let difference = (level - self.levels[component]).clamp(-most, most);
        self.levels[component] += difference;
        let size = u32::BITS - difference.unsigned_abs().leading_zeros();
        self.put(size, CODE_LEN);
        let negative = if difference < 0 { (1 << size) - 1 } else { 0 };
        self.put((difference + negative) as u32, size);
        for (symbol, value) in coefficients.iter().flatten() {
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            let code = match AC_WITHOUT_VALUE.iter().position(|s| s == symbol) {
                Some(at) => at as u32,
                None => AC_WITHOUT_VALUE.len() as u32 + run * u32::from(N_AC_SIZES) + size - 1,
            };
            self.put(code, CODE_LEN);
            self.put(*value, size);
        }
    }

    /// Appends `n` bits, at most 16.
    fn put(&mut self, bits: u32, n: u32) {
        self.held = self.held << n | bits;
        self.n_held += n;
        while self.n_held >= 8 {
            self.n_held -= 8;
            let byte = (self.held >> self.n_held) as u8;
            self.bytes.push(byte);
            self.bytes.extend((byte == 0xff).then_some(0));
        }
        self.held &= (1 << self.n_held) - 1;
    }

    /// The data, filled with ones.
    fn finish(mut self) -> Vec<u8> {
        let n = (8 - self.n_held) % 8;
        self.put((1 << n) - 1, n);
        self.bytes
    }
}

impl Scan {
    /// The first scan of one component.
    fn of_one(frame: &Frame, index: usize) -> Self {
        let component = ScanComponent {
            index,
            dc_table: 0,
            ac_table: 0,
        };
        Self {
            components: vec![component],
            band: match frame.process {
                Process::Sequential => (0, 63),
                Process::Progressive => (0, 0),
            },
            high: 0,
            low: 0,
        }
    }
}

#[cfg(test)]
mod tests;
