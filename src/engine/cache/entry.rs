//! The file format of a cache entry.
//!
//! ```text
//! "xc2cache"   8   magic
//! u32          4   version, 1
//! u32          4   k, bytes of the key
//! u64          8   n, bytes of the payload
//! key          k
//! payload      n
//! BLAKE3      32   of everything above
//! ```
//!
//! Numbers are little-endian.

use std::{
    io::{self, Write},
    ops::Range,
};

use crate::system::digest;

const MAGIC: &[u8; 8] = b"xc2cache";
const VERSION: u32 = 1;
const HEAD: usize = 24;
const SUM: usize = 32;

/// Writes an entry.
pub fn encode(file: &mut dyn Write, key: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut head = Vec::with_capacity(HEAD + key.len());
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((key.len() as u32).to_le_bytes());
    head.extend((payload.len() as u64).to_le_bytes());
    head.extend(key);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    digest::update(&mut hasher, payload);
    for part in [&head, payload, hasher.finalize().as_bytes()] {
        file.write_all(part)?;
    }
    Ok(())
}

/// The range of the payload in the file of the entry with this key, or why the file is not that entry. Only the header
/// is checked; [`verify`] checks the checksum.
pub fn payload(file: &[u8], key: &[u8]) -> Result<Range<usize>, &'static str> {
    let mut rest = file;
    let mut take = |n: usize| rest.split_off(..n).ok_or("the file is truncated");
    if take(MAGIC.len())? != MAGIC {
        return Err("the file is not a cache entry");
    }
    if take(4)? != VERSION.to_le_bytes() {
        return Err("another version wrote it");
    }
    let n_key = u32::from_le_bytes(take(4)?.try_into().expect("four bytes"));
    let n_payload = u64::from_le_bytes(take(8)?.try_into().expect("eight bytes"));
    let n_file = (HEAD + SUM) as u64 + u64::from(n_key);
    if n_payload.checked_add(n_file) != Some(file.len() as u64) {
        return Err("the file's length differs from its header");
    }
    if take(n_key as usize)? != key {
        return Err("it belongs to another key");
    }
    Ok(HEAD + key.len()..file.len() - SUM)
}

/// Compares an entry's file, which [`payload`] has accepted, with its checksum.
pub fn verify(file: &[u8]) -> Result<(), &'static str> {
    let (content, sum) = (file.split_last_chunk::<SUM>()).ok_or("the file is truncated")?;
    let mut hasher = blake3::Hasher::new();
    digest::update(&mut hasher, content);
    match hasher.finalize() == *sum {
        true => Ok(()),
        false => Err("its checksum is wrong"),
    }
}
