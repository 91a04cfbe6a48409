//! Repairs WebP files whose headers do not match their content.

use std::borrow::Cow;

/// Length of the `RIFF` tag and the length after it.
const HEADER_LEN: usize = 8;

/// Offset of the flags in an extended header.
const FLAGS_AT: usize = 20;

/// Optional chunks and their flags in an extended header. Programs that strip metadata leave the flags set.
const OPTIONAL: [(u8, &[u8; 4]); 3] = [(0x20, b"ICCP"), (0x08, b"EXIF"), (0x04, b"XMP ")];

/// Corrects the length and clears the flags of missing chunks, because the decoder rejects such files.
pub fn prepare(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut file = with_length(bytes);
    if file.get(12..16) == Some(&b"VP8X"[..])
        && let Some(flags) = file.get(FLAGS_AT).copied()
    {
        let flagged = OPTIONAL.iter().filter(|(flag, _)| flags & *flag != 0);
        let missing = flagged.filter(|(_, kind)| !has_chunk(&file, kind));
        let missing = missing.fold(0, |all, (flag, _)| all | *flag);
        if missing != 0 {
            file.to_mut()[FLAGS_AT] = flags & !missing;
        }
    }
    file
}

fn has_chunk(file: &[u8], kind: &[u8; 4]) -> bool {
    let mut at = 12;
    while let Some((header, _)) = file.get(at..).and_then(<[u8]>::split_first_chunk::<8>) {
        let [a, b, c, d, len @ ..] = *header;
        if [a, b, c, d] == *kind {
            return true;
        }
        at += 8 + (u32::from_le_bytes(len) as usize).next_multiple_of(2);
    }
    false
}

/// Corrects the declared length where the file is shorter or none is declared: programs that write to a pipe cannot go
/// back to fill it in.
fn with_length(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(&[a, b, c, d]) = bytes.get(4..HEADER_LEN) else {
        return Cow::Borrowed(bytes);
    };
    let declared = u32::from_le_bytes([a, b, c, d]) as usize;
    let available = bytes.len() - HEADER_LEN;
    if (12..=available).contains(&declared) {
        return Cow::Borrowed(bytes);
    }
    let mut file = bytes.to_vec();
    // Chunks are padded to an even length.
    file.resize(HEADER_LEN + available.next_multiple_of(2), 0);
    let length = (file.len() - HEADER_LEN) as u32;
    file[4..HEADER_LEN].copy_from_slice(&length.to_le_bytes());
    Cow::Owned(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_missing_chunks_are_cleared() {
        for (flags, chunk, expected) in [
            (0x2c, &b""[..], 0),
            (0x1c, &b""[..], 0x10),
            (0x0c, &b"EXIF\0\0\0\0"[..], 0x08),
            (0x0c, &b"EXIF\x01\0\0\0x\0XMP \0\0\0\0"[..], 0x0c),
        ] {
            let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
            file.push(flags);
            file.extend([0; 9]);
            file.extend(chunk);
            let len = (file.len() - HEADER_LEN) as u32;
            file[4..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
            assert_eq!(prepare(&file)[FLAGS_AT], expected);
        }
    }
}
