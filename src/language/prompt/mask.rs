//! The Partial-LoRA mask: the positions of a sequence that the adapter applies to.
//!
//! For a row `x` of any adapted linear layer, `y = W x + m · scale · B (A x)`, where `m` is the mask bit of the row's
//! position. Positions interact only in attention, through keys and values that are computed once. So a sequence can be
//! computed run by run, each of equal mask bits, with the adapter switched in between: the result is that of a single
//! masked pass.

/// Which positions the adapter applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PloraPolicy {
    /// Pictures, as in training. Any other choice is for experiments only.
    #[default]
    Images,
    /// None; a control that shows the adapter's effect.
    Nowhere,
    /// All, generated tokens included; another control.
    Everywhere,
}

impl PloraPolicy {
    /// The mask bit of generated tokens.
    pub fn generated(self) -> bool {
        self == Self::Everywhere
    }
}

/// A mask over positions, stored as runs of equal bits.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PloraMask {
    /// Length and bit of each run. No run is empty, and adjacent runs differ.
    runs: Vec<(usize, bool)>,
}

impl PloraMask {
    /// The mask of `n` equal bits.
    pub fn uniform(n: usize, bit: bool) -> Self {
        let mut mask = Self::default();
        mask.extend(n, bit);
        mask
    }

    /// Appends `n` equal bits.
    pub fn extend(&mut self, n: usize, bit: bool) {
        match self.runs.last_mut() {
            _ if n == 0 => {}
            Some((len, last)) if *last == bit => *len += n,
            _ => self.runs.push((n, bit)),
        }
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|(n, _)| n).sum()
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs: length and bit, in order.
    pub fn runs(&self) -> &[(usize, bool)] {
        &self.runs
    }

    /// Start and length of every run of set bits.
    pub fn set_runs(&self) -> Vec<(usize, usize)> {
        let mut at = 0;
        let starts = self.runs.iter().map(|&(n, bit)| {
            at += n;
            (at - n, n, bit)
        });
        starts
            .filter(|r| r.2)
            .map(|(start, n, _)| (start, n))
            .collect()
    }

    /// The bit at `position`, and the number of positions from there on with the same bit.
    ///
    /// # Panics
    /// If the position is past the end.
    pub fn run_at(&self, position: usize) -> (bool, usize) {
        let mut end = 0;
        for &(n, bit) in &self.runs {
            end += n;
            if position < end {
                return (bit, end - position);
            }
        }
        panic!("position {position} of a mask of {end}");
    }
}

impl FromIterator<bool> for PloraMask {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Self {
        let mut mask = Self::default();
        bits.into_iter().for_each(|bit| mask.extend(1, bit));
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_the_fewest_runs() {
        let bits = [false, false, true, true, true, false, true];
        let mask: PloraMask = bits.into_iter().collect();
        assert_eq!(mask.runs(), [(2, false), (3, true), (1, false), (1, true)]);
        assert_eq!(mask.set_runs(), [(2, 3), (6, 1)]);
        assert_eq!(mask.len(), bits.len());
        for (position, bit) in bits.into_iter().enumerate() {
            assert_eq!(mask.run_at(position).0, bit);
        }
        assert_eq!(mask.run_at(3), (true, 2));
    }

    #[test]
    fn adjacent_pictures_share_a_run_and_empty_runs_are_ignored() {
        let mut mask = PloraMask::uniform(0, true);
        assert!(mask.is_empty());
        mask.extend(64, true);
        mask.extend(0, false);
        mask.extend(64, true);
        assert_eq!(mask.runs(), [(128, true)]);
    }
}
