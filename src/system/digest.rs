//! BLAKE3 of few bytes or many.

use blake3::Hasher;

/// Bytes from which several threads are sooner done than one, which need not wake the others: two of
/// them take 60 to 90 us longer with 64 to 512 kB, and as long with 1 to 2 MB.
const MANY: usize = 2 << 20;

/// Adds bytes to a hash, on all cores if there are many.
pub fn update(hasher: &mut Hasher, bytes: &[u8]) {
    match bytes.len() < MANY {
        true => hasher.update(bytes),
        false => hasher.update_rayon(bytes),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_either_way() {
        let bytes: Vec<u8> = (0..=MANY).map(|i| (i % 251) as u8).collect();
        for n in [0, 1, MANY - 1, MANY, MANY + 1] {
            let mut hasher = Hasher::new();
            update(&mut hasher, &bytes[..n]);
            assert_eq!(hasher.finalize(), blake3::hash(&bytes[..n]), "{n} bytes");
        }
    }
}
