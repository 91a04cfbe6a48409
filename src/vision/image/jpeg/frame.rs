//! Frame and scan headers of a JPEG, and the number of their blocks.

/// Supported coding processes, all with Huffman codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Baseline or extended sequential: one scan has all coefficients of a block.
    Sequential,
    /// Progressive: scans have bands of coefficients and refine their bits.
    Progressive,
}

/// A component (plane) of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// Its identifier in scan headers.
    pub id: u8,
    /// Its quantization table.
    pub quantizer: u8,
    /// Horizontal sampling factor: blocks per MCU, across.
    pub h: u32,
    /// Vertical sampling factor: blocks per MCU, down.
    pub v: u32,
}

/// A frame header (SOF).
#[derive(Clone, Debug)]
pub struct Frame {
    pub process: Process,
    /// Bits per sample.
    pub precision: u8,
    pub width: u32,
    pub height: u32,
    pub components: Vec<Component>,
}

/// A scan header (SOS).
#[derive(Clone, Debug)]
pub struct Scan {
    /// The components of the scan.
    pub components: Vec<ScanComponent>,
    /// First and last coefficient, in zigzag order.
    pub band: (u32, u32),
    /// Successive approximation: bit position of the previous scan; 0 in the first scan.
    pub high: u8,
    /// Successive approximation: bit position of this scan; 0 is the last.
    pub low: u8,
}

/// A component of a scan: its index in the frame's list, and its Huffman tables.
#[derive(Clone, Copy, Debug)]
pub struct ScanComponent {
    pub index: usize,
    pub dc_table: usize,
    pub ac_table: usize,
}

impl Frame {
    /// Parses the payload of a SOF segment; `None` if it is damaged.
    pub fn parse(process: Process, payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_at_checked(6)?;
        let components = rest.chunks_exact(3).take(usize::from(head[5]));
        let components: Vec<_> = components
            .map(|c| Component {
                id: c[0],
                quantizer: c[2],
                h: u32::from(c[1] >> 4),
                v: u32::from(c[1] & 15),
            })
            .collect();
        let in_range = |c: &Component| (1..=4).contains(&c.h) && (1..=4).contains(&c.v);
        let whole = components.len() == usize::from(head[5]) && (1..=4).contains(&head[5]);
        (whole && components.iter().all(in_range)).then(|| Self {
            process,
            precision: head[0],
            height: u32::from(u16::from_be_bytes([head[1], head[2]])),
            width: u32::from(u16::from_be_bytes([head[3], head[4]])),
            components,
        })
    }

    fn max_factors(&self) -> (u32, u32) {
        let h = self.components.iter().map(|c| c.h).max();
        let v = self.components.iter().map(|c| c.v).max();
        (h.unwrap_or(1), v.unwrap_or(1))
    }

    /// MCUs of `scan`, across and down. In a scan of one component an MCU is one block, and only blocks with samples
    /// count.
    pub fn mcus(&self, scan: &Scan) -> (u32, u32) {
        let (h, v) = self.max_factors();
        match scan.components[..] {
            [one] => {
                let component = self.components[one.index];
                let across = (self.width * component.h).div_ceil(h).div_ceil(8);
                (across, (self.height * component.v).div_ceil(v).div_ceil(8))
            }
            _ => (self.width.div_ceil(8 * h), self.height.div_ceil(8 * v)),
        }
    }

    /// Blocks of component `c` per MCU of `scan`.
    pub fn blocks_per_mcu(&self, scan: &Scan, c: &ScanComponent) -> u32 {
        match scan.components.len() {
            1 => 1,
            _ => self.components[c.index].h * self.components[c.index].v,
        }
    }
}

impl Scan {
    /// Parses the payload of a SOS segment; `None` if it does not match `frame`.
    pub fn parse(frame: &Frame, payload: &[u8]) -> Option<Self> {
        let n = usize::from(*payload.first()?);
        let rest = payload.get(1..)?;
        let (selectors, parameters) = rest.split_at_checked(2 * n)?;
        let mut components = Vec::with_capacity(n);
        for selector in selectors.chunks_exact(2) {
            let is_selected = |c: &Component| c.id == selector[0];
            components.push(ScanComponent {
                index: frame.components.iter().position(is_selected)?,
                dc_table: usize::from(selector[1] >> 4),
                ac_table: usize::from(selector[1] & 15),
            });
        }
        let [first, last, bits, ..] = *parameters else {
            return None;
        };
        let (band, high, low) = match frame.process {
            Process::Sequential => ((0, 63), 0, 0),
            Process::Progressive => ((first.into(), last.into()), bits >> 4, bits & 15),
        };
        let is_valid = (1..=4).contains(&n)
            && band.0 <= band.1
            && band.1 < 64
            && (frame.process == Process::Sequential || (band.0 == 0) == (band.1 == 0))
            && (band.0 == 0 || n == 1);
        is_valid.then_some(Self {
            components,
            band,
            high,
            low,
        })
    }
}
