//! The checksum of the data section.

/// Length of a checksum as text.
pub const CHECKSUM_LEN: usize = 64;

/// A BLAKE3 hash in progress. BLAKE3 because it keeps up with the disk on one core of any CPU that
/// we run on and with the memory bus on several.
#[derive(Clone, Debug, Default)]
pub struct Checksum(blake3::Hasher);

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds bytes, hashing on all cores.
    pub fn update_parallel(&mut self, bytes: &[u8]) {
        self.0.update_rayon(bytes);
    }

    /// The hash of everything added so far, as [`CHECKSUM_LEN`] hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
