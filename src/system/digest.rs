//! BLAKE3, on one thread or several.

use blake3::Hasher;

/// Length in bytes from which several threads are faster than one. Waking a second thread costs time: two threads take
/// 60 to 90 us longer than one for 64 to 512 kB, and the same time for 1 to 2 MB.
const PARALLEL_LEN: usize = 2 << 20;

/// Adds bytes to a hash, on all cores from [`PARALLEL_LEN`] bytes on.
pub fn update(hasher: &mut Hasher, bytes: &[u8]) {
    match bytes.len() < PARALLEL_LEN {
        true => hasher.update(bytes),
        false => hasher.update_rayon(bytes),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_does_not_depend_on_threading() {
        let bytes: Vec<u8> = (0..=PARALLEL_LEN).map(|i| (i % 251) as u8).collect();
        for n in [0, 1, PARALLEL_LEN - 1, PARALLEL_LEN, PARALLEL_LEN + 1] {
            let mut hasher = Hasher::new();
            update(&mut hasher, &bytes[..n]);
            assert_eq!(hasher.finalize(), blake3::hash(&bytes[..n]), "{n} bytes");
        }
    }
}
