//! WebP files whose RIFF header does not know how long they are.

use std::borrow::Cow;

/// Length of the tag and of the number that follows it.
const HEADER_LEN: usize = 8;

/// Makes the length that the header declares the file's own where the file is shorter, or nothing is declared:
/// programs that write to a pipe cannot go back to fill it in.
pub fn prepare(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(&[a, b, c, d]) = bytes.get(4..HEADER_LEN) else {
        return Cow::Borrowed(bytes);
    };
    let declared = u32::from_le_bytes([a, b, c, d]) as usize;
    let there = bytes.len() - HEADER_LEN;
    if (12..=there).contains(&declared) {
        return Cow::Borrowed(bytes);
    }
    let mut file = bytes.to_vec();
    // Chunks are padded to an even length.
    file.resize(HEADER_LEN + there.next_multiple_of(2), 0);
    let length = (file.len() - HEADER_LEN) as u32;
    file[4..HEADER_LEN].copy_from_slice(&length.to_le_bytes());
    Cow::Owned(file)
}
