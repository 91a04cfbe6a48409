//! The checksum of the data section.

/// Length of a checksum in hexadecimal digits.
pub const CHECKSUM_LEN: usize = 64;

/// A BLAKE3 hash in progress. BLAKE3 keeps up with the disk on one core of any supported CPU, and with the memory bus
/// on several.
#[derive(Clone, Debug, Default)]
pub struct Checksum(blake3::Hasher);

impl Checksum {
    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Hashes more bytes on all cores.
    pub fn update_parallel(&mut self, bytes: &[u8]) {
        self.0.update_rayon(bytes);
    }

    /// The hash of all bytes so far, as [`CHECKSUM_LEN`] hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
