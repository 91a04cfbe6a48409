//! Paths in records. JSON and CSV contain text, but a file name may have any bytes.
//!
//! A byte that is not UTF-8 is written as `\xHH`, as by Python's `backslashreplace`. A backslash that would read
//! as such an escape is written as `\x5c`. So different paths have different texts, and nearly every path is its
//! own text.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// The text of a path in a record.
pub fn path_text(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

/// Bytes as text, with an escape for each byte that is not UTF-8.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if escape(rest).is_some() {
                text.push_str("\\x5c");
            } else {
                text.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
        rest = &rest[chunk.invalid().len()..];
    }
    text
}

/// The inverse of [`path_text`].
pub fn path_of(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(first) = rest.first() {
        match escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = &rest[1..];
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The byte of an escape at the beginning of `text`.
fn escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\x")?.get(..2)?;
    let value = |digit: u8| char::from(digit).to_digit(16);
    let byte = value(digits[0])? << 4 | value(digits[1])?;
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, ffi::OsStr};

    use super::*;

    #[test]
    fn names_have_unique_texts_and_round_trip() {
        let names: [&[u8]; 14] = [
            b"a.jpg",
            "ü 图\n\t\"'.jpg".as_bytes(),
            b"caf\xe9.jpg",
            b"caf\xe8.jpg",
            b"caf\\xe9.jpg", // called like the escape
            b"caf\\x5cxe9.jpg",
            b"caf\\\xe9.jpg",
            b"caf\\\\xe9.jpg",
            b"\\x\xe9",
            b"\\x5\xe9",
            b"\xe5\x9b", // the beginning of a character
            b"photos\\a.jpg",
            b"\\x",
            b"\xff\xfe\xff",
        ];
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
        let texts: HashSet<_> = names.iter().map(|name| path_text(&path(name))).collect();
        assert_eq!(texts.len(), names.len());
        for name in names {
            assert_eq!(path_of(&path_text(&path(name))), path(name));
        }
        assert_eq!(
            path_text(&path(b"caf\xe9\\x41\\b.jpg")),
            r"caf\xe9\x5cx41\b.jpg"
        );
        assert_eq!(path_text(Path::new(r"photos\a.jpg")), r"photos\a.jpg");
    }

    #[test]
    fn all_short_names_round_trip() {
        // All names of five of the relevant bytes.
        let letters = *b"\\x5c\xe9";
        for n in 0..5_u32.pow(5) {
            let name: Vec<u8> = (0..5)
                .map(|i| letters[(n / 5_u32.pow(i) % 5) as usize])
                .collect();
            assert_eq!(path_of(&escaped(&name)).as_os_str().as_bytes(), name);
        }
    }
}
