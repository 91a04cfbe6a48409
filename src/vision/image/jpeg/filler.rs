//! Completes a truncated JPEG with grey blocks.
//!
//! A decoder requires a scan of every component with all its blocks. A truncated scan is re-encoded: the available
//! blocks, then blocks without coefficients. A component without a scan gets a scan of such blocks only. They decode
//! to mid-grey without colour, as libjpeg fills missing blocks.

use super::{
    DHT, DQT, DRI, EOI, SOS,
    analysis::{Analysis, MAX_ZEROS, TruncatedScan},
    entropy::{Bits, Table},
    frame::{Frame, Process, Scan, ScanComponent},
};

/// Number of size classes of DC differences; their codes equal the sizes.
const N_DC_SIZES: u8 = 12;
/// Number of size classes of AC coefficients, without 0.
const N_AC_SIZES: u8 = 10;
/// The symbols for the end of a block and for 16 zeros.
const AC_WITHOUT_VALUE: [u8; 2] = [0x00, 0xf0];
/// Length of every code, in bits.
const CODE_LEN: u32 = 8;

/// The replacement of everything after `found.end`: the missing scans and the end-of-image marker. `None` if no sample
/// of the picture is available.
pub fn rest(bytes: &[u8], found: &Analysis) -> Option<Vec<u8>> {
    let (_, frame) = found.frame.as_ref()?;
    let mut out = Vec::new();
    let missing = frame.components.iter().map(|c| c.quantizer);
    for id in missing.filter(|id| !found.quantizers.contains(id)) {
        write_segment(&mut out, DQT, &[&[id][..], &[1; 64]].concat());
    }
    write_tables(&mut out, frame);
    let mut missing_components = found.missing_components.clone();
    if let Some(truncated) = &found.truncated {
        missing_components.retain(|i| truncated.scan.components.iter().all(|c| c.index != *i));
        write_segment(&mut out, DRI, &[0, 0]);
        let (data, n_copied) = reencode(bytes, frame, truncated);
        if n_copied == 0
            && missing_components.len() + truncated.scan.components.len() == frame.components.len()
        {
            return None;
        }
        write_scan(&mut out, frame, &truncated.scan, data);
    } else if missing_components.len() == frame.components.len() {
        return None;
    } else {
        write_segment(&mut out, DRI, &[0, 0]);
    }
    for index in missing_components {
        let scan = Scan::first_of_component(frame, index);
        let mut coder = Coder::default();
        let (across, down) = frame.mcus(&scan);
        (0..u64::from(across) * u64::from(down)).for_each(|_| coder.grey(frame, &scan));
        write_scan(&mut out, frame, &scan, coder.finish());
    }
    out.extend([0xff, EOI]);
    Some(out)
}

/// The table destination that the new scans use. Baseline allows only 0 and 1; 3 leaves the tables of earlier
/// progressive scans alone.
fn destination(frame: &Frame) -> u8 {
    match frame.process {
        Process::Sequential => 0,
        Process::Progressive => 3,
    }
}

fn write_segment(out: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
}

/// Writes Huffman tables whose codes all have the same length.
fn write_tables(out: &mut Vec<u8>, frame: &Frame) {
    let runs = (0..16).flat_map(|run| (1..=N_AC_SIZES).map(move |size| run << 4 | size));
    let ac: Vec<u8> = AC_WITHOUT_VALUE.into_iter().chain(runs).collect();
    let dc: Vec<u8> = (0..N_DC_SIZES).collect();
    for (class, symbols) in [(0, dc), (1, ac)] {
        let mut counts = [0; 16];
        counts[CODE_LEN as usize - 1] = symbols.len() as u8;
        let head = [class << 4 | destination(frame)];
        write_segment(out, DHT, &[&head[..], &counts, &symbols].concat());
    }
}

fn write_scan(out: &mut Vec<u8>, frame: &Frame, scan: &Scan, data: Vec<u8>) {
    let tables = destination(frame) << 4 | destination(frame);
    let mut header = vec![scan.components.len() as u8];
    for component in &scan.components {
        header.extend([frame.components[component.index].id, tables]);
    }
    header.extend([scan.band.0 as u8, scan.band.1 as u8]);
    header.push(scan.high << 4 | scan.low);
    write_segment(out, SOS, &header);
    out.extend(data);
}

/// Re-encodes a scan with grey after the available MCUs; returns the data and the number of available MCUs.
fn reencode(bytes: &[u8], frame: &Frame, truncated: &TruncatedScan) -> (Vec<u8>, u64) {
    let n_zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let n_zeros = if n_zeros > MAX_ZEROS { n_zeros } else { 0 }; // left by an interrupted download
    let bytes = &bytes[..(bytes.len() - n_zeros).max(truncated.from)];
    let (across, down) = frame.mcus(&truncated.scan);
    let n_mcus = u64::from(across) * u64::from(down);
    let interval = match truncated.restart_interval {
        0 => n_mcus,
        n => n,
    };
    let mut bits = Bits::new(bytes, truncated.from);
    let mut coder = Coder::default();
    let (mut at, mut n_copied) = (0, 0);
    while at < n_mcus {
        let end = n_mcus.min(at + interval);
        let mut levels = [0_i32; 4];
        while at < end
            && let Some(mcu) = read_mcu(&mut bits, frame, truncated)
        {
            for (component, block) in &mcu {
                let level = levels[*component] + block.difference;
                levels[*component] = level.clamp(i16::MIN.into(), i16::MAX.into());
                coder.block(*component, levels[*component], &block.coefficients);
            }
            (at, n_copied) = (at + 1, n_copied + 1);
        }
        (at..end).for_each(|_| coder.grey(frame, &truncated.scan));
        at = end;
        bits.align();
        let restarts = bits.seek_marker() && matches!(bytes.get(bits.pos() + 1), Some(0xd0..=0xd7));
        if !restarts {
            break;
        }
        bits = Bits::new(bytes, bits.pos() + 2);
    }
    (at..n_mcus).for_each(|_| coder.grey(frame, &truncated.scan));
    (coder.finish(), n_copied)
}

/// The blocks of the next MCU, each with its component's index in the scan; `None` if the MCU is incomplete.
fn read_mcu(
    bits: &mut Bits<'_>,
    frame: &Frame,
    truncated: &TruncatedScan,
) -> Option<Vec<(usize, Block)>> {
    let mut mcu = Vec::new();
    for (i, component) in truncated.scan.components.iter().enumerate() {
        let (dc, ac) = &truncated.tables[i];
        for _ in 0..frame.blocks_per_mcu(&truncated.scan, component) {
            let block = match frame.process {
                Process::Sequential => Block::read(bits, dc, Some(ac.as_ref()?))?,
                Process::Progressive => Block::read(bits, dc, None)?,
            };
            mcu.push((i, block));
        }
    }
    Some(mcu)
}

/// A block of a scan.
struct Block {
    /// Difference to the DC coefficient of the previous block.
    difference: i32,
    /// AC symbols, each with the bits of its value; `None` in scans without AC coefficients.
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

/// Encodes blocks with the codes of [`write_tables`].
#[derive(Default)]
struct Coder {
    bytes: Vec<u8>,
    /// Bits of the next byte, the last one lowest.
    buffer: u32,
    n_buffered: u32,
    /// DC coefficient of the last block, by component of the scan.
    levels: [i32; 4],
}

impl Coder {
    /// Writes an MCU without coefficients.
    fn grey(&mut self, frame: &Frame, scan: &Scan) {
        let coefficients = match frame.process {
            Process::Sequential => Some(vec![(0, 0)]),
            Process::Progressive => None,
        };
        for (i, component) in scan.components.iter().enumerate() {
            for _ in 0..frame.blocks_per_mcu(scan, component) {
                self.block(i, 0, &coefficients);
            }
        }
    }

    fn block(&mut self, component: usize, level: i32, coefficients: &Option<Vec<(u8, u32)>>) {
        let max = (1 << (N_DC_SIZES - 1)) - 1;
        let difference = (level - self.levels[component]).clamp(-max, max);
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

    /// Writes `n` bits, at most 16.
    fn put(&mut self, bits: u32, n: u32) {
        self.buffer = self.buffer << n | bits;
        self.n_buffered += n;
        while self.n_buffered >= 8 {
            self.n_buffered -= 8;
            let byte = (self.buffer >> self.n_buffered) as u8;
            self.bytes.push(byte);
            self.bytes.extend((byte == 0xff).then_some(0));
        }
        self.buffer &= (1 << self.n_buffered) - 1;
    }

    /// Returns the data; the last byte is padded with ones.
    fn finish(mut self) -> Vec<u8> {
        let n = (8 - self.n_buffered) % 8;
        self.put((1 << n) - 1, n);
        self.bytes
    }
}

impl Scan {
    /// The first scan of one component.
    fn first_of_component(frame: &Frame, index: usize) -> Self {
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
