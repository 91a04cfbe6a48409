//! Reads the blocks of a scan without keeping values.

use super::entropy::{Bits, Stop, Table};

/// Reads the DC coefficient of a block.
pub fn dc_first(bits: &mut Bits<'_>, dc: &Table) -> Result<(), Stop> {
    match bits.symbol(dc)? {
        size @ 0..=15 => bits.skip(size.into()),
        _ => Err(Stop::BadCode),
    }
}

/// Reads a block of a sequential scan.
pub fn sequential(bits: &mut Bits<'_>, dc: &Table, ac: &Table) -> Result<(), Stop> {
    dc_first(bits, dc)?;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac)?;
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (run, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ if k + run > 63 => return Err(Stop::BadCode),
            _ => {
                bits.skip(size)?;
                k += run + 1;
            }
        }
    }
    Ok(())
}

/// A band of coefficients of a progressive scan.
pub struct Band {
    pub first: u32,
    pub last: u32,
    /// Remaining blocks of an end-of-band run.
    pub run: u32,
}

impl Band {
    /// Reads a block of the band's first scan; sets the bits of its non-zero coefficients in `nonzero`.
    pub fn first_pass(
        &mut self,
        bits: &mut Bits<'_>,
        ac: &Table,
        nonzero: &mut u64,
    ) -> Result<(), Stop> {
        if self.run > 0 {
            self.run -= 1;
            return Ok(());
        }
        let mut k = self.first;
        while k <= self.last {
            let symbol = bits.symbol(ac)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => k += 16,
                (_, 0) => {
                    self.run = (1 << run) - 1 + bits.take(run)?;
                    break;
                }
                _ if k + run > self.last => return Err(Stop::BadCode),
                _ => {
                    bits.skip(size)?;
                    *nonzero |= 1 << (k + run);
                    k += run + 1;
                }
            }
        }
        Ok(())
    }

    /// Reads a block of a refinement scan.
    pub fn refine(
        &mut self,
        bits: &mut Bits<'_>,
        ac: &Table,
        nonzero: &mut u64,
    ) -> Result<(), Stop> {
        let mut k = self.first;
        while self.run == 0 && k <= self.last {
            let symbol = bits.symbol(ac)?;
            let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
            match (run, size) {
                (15, 0) => {}
                (_, 0) => {
                    self.run = (1 << run) + bits.take(run)?;
                    break;
                }
                (_, 1) => bits.skip(1)?,
                _ => return Err(Stop::BadCode),
            }
            // Skip `run` zero coefficients; each non-zero one on the way has a correction bit.
            while k <= self.last {
                if *nonzero >> k & 1 == 1 {
                    bits.skip(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if size == 1 && k <= self.last {
                *nonzero |= 1 << k;
            }
            k += 1;
        }
        if self.run > 0 {
            let rest = (k..=self.last).filter(|k| *nonzero >> k & 1 == 1);
            rest.into_iter().try_for_each(|_| bits.skip(1))?;
            self.run -= 1;
        }
        Ok(())
    }
}
