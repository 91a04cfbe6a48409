//! Text input: files, and lists on stdin, as editors, spreadsheets and shells write them.
//!
//! Text is UTF-8. A byte order mark at its start is ignored, and `\r\n` ends a line like `\n`. For another encoding
//! the error names it and says what to do: guessing between, say, Windows-1252 and GB18030 would corrupt words.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    path::Path,
};

/// U+FEFF in UTF-8, which some editors write before the text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes of a file that are examined to recognise UTF-16.
const SNIFF_LEN: usize = 4096;

/// Input that is not UTF-8 text.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TextError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// `encoding` is `iconv`'s name for it.
    #[error(
        "expected UTF-8 text, found {encoding}; save it as UTF-8, or convert it with \
         `iconv -f {encoding} -t UTF-8`"
    )]
    Wide { encoding: &'static str },
    /// A binary file, such as a spreadsheet or an archive.
    #[error("expected UTF-8 text, found {found}; {remedy}")]
    Binary {
        found: &'static str,
        remedy: &'static str,
    },
    /// `line` counts from 1; `offset` is counted from 0 at the start of the file.
    #[error("line {line}, byte offset {offset}: expected text, found a NUL byte")]
    Nul { line: usize, offset: usize },
    #[error(
        "line {line}, byte offset {offset}: expected UTF-8 text, found the byte 0x{byte:02X}; save it as \
         UTF-8, or convert it, for example with `iconv -f WINDOWS-1252 -t UTF-8` or `iconv -f GB18030 -t UTF-8`"
    )]
    NotUtf8 {
        line: usize,
        offset: usize,
        byte: u8,
    },
    #[error("expected at most {max} bytes of text, found more")]
    TooLong { max: u64 },
}

/// Reads a text file.
///
/// # Errors
/// If it cannot be read or is not UTF-8 text.
pub fn read(path: &Path) -> Result<String, TextError> {
    decode(std::fs::read(path)?)
}

/// Reads a text file of at most `max` bytes.
///
/// # Errors
/// As [`read`], and if the file is longer.
pub fn read_at_most(path: &Path, max: u64) -> Result<String, TextError> {
    take_at_most(File::open(path)?, max)
}

/// Reads text of at most `max` bytes.
///
/// # Errors
/// As [`read_at_most`].
pub fn take_at_most(input: impl Read, max: u64) -> Result<String, TextError> {
    let mut bytes = Vec::new();
    input.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(TextError::TooLong { max });
    }
    decode(bytes)
}

/// Decodes the bytes of a file. The byte order mark is removed, `\r\n` becomes `\n`.
///
/// # Errors
/// If they are not UTF-8 text.
pub fn decode(bytes: Vec<u8>) -> Result<String, TextError> {
    check_encoding(&bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), 1, 0))?;
    if let Some(offset) = text.find('\0') {
        let line = 1 + text[..offset].matches('\n').count();
        return Err(TextError::Nul { line, offset });
    }
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    Ok(if text.contains("\r\n") {
        text.replace("\r\n", "\n")
    } else {
        text
    })
}

/// The error for the first byte that is not UTF-8, in `bytes` that start at `line` and `offset`.
///
/// # Panics
/// If `bytes` are UTF-8.
pub(crate) fn not_utf8(bytes: &[u8], line: usize, offset: usize) -> TextError {
    let error = std::str::from_utf8(bytes).expect_err("not UTF-8");
    let at = error.valid_up_to();
    TextError::NotUtf8 {
        line: line + bytes[..at].iter().filter(|byte| **byte == b'\n').count(),
        offset: offset + at,
        byte: bytes[at],
    }
}

/// Rejects UTF-16 and UTF-32, with or without a byte order mark, spreadsheets and archives by the first bytes of a
/// file.
///
/// # Errors
/// [`TextError::Wide`] or [`TextError::Binary`], with the name of the encoding or format.
pub fn check_encoding(head: &[u8]) -> Result<(), TextError> {
    check_not_binary(head)?;
    match wide_encoding(head, 0) {
        None => Ok(()),
        Some(encoding) => Err(TextError::Wide { encoding }),
    }
}

/// Rejects formats that their first bytes identify. UTF-8 text starts with none of these bytes.
fn check_not_binary(head: &[u8]) -> Result<(), TextError> {
    let (found, remedy) = match head {
        [b'P', b'K', 3, 4, ..] => (
            "a ZIP file, such as XLSX or ODS",
            "export a spreadsheet as CSV in UTF-8, unpack an archive",
        ),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => (
            "a file of Microsoft Office, such as XLS",
            "export it as CSV or plain text in UTF-8",
        ),
        [0x1f, 0x8b, ..] => ("a gzip file", "unpack it with `gunzip`"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("a Zstandard file", "unpack it with `zstd -d`"),
        _ => return Ok(()),
    };
    Err(TextError::Binary { found, remedy })
}

/// UTF-16 or UTF-32, in bytes that start at `offset` in a file. Without a mark, UTF-16 is recognised by its NUL bytes,
/// the upper halves of Latin letters and line feeds.
fn wide_encoding(bytes: &[u8], offset: usize) -> Option<&'static str> {
    match bytes {
        _ if offset > 0 => {}
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32BE"),
        [0xff, 0xfe, ..] => return Some("UTF-16LE"),
        [0xfe, 0xff, ..] => return Some("UTF-16BE"),
        _ => {}
    }
    let sniffed = &bytes[..bytes.len().min(SNIFF_LEN)];
    let n_nul = |odd: usize| {
        let positions = (offset..).zip(sniffed);
        positions
            .filter(|(at, byte)| at % 2 == odd && **byte == 0)
            .count()
    };
    let is_utf8 = match std::str::from_utf8(sniffed) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(), // cut within a character
    };
    // The upper halves of Greek to Thai are control characters.
    let is_text = is_utf8 && !sniffed.iter().any(|byte| matches!(byte, 1..=8 | 14..=31));
    // A single NUL in a long text is damage, not an encoding, and `find -print0` writes one after each name.
    let is_wide = |n: usize| n * 3 > sniffed.len() || !is_text && n > 0 && n * 8 >= sniffed.len();
    match (n_nul(0), n_nul(1)) {
        (0, n) if is_wide(n) => Some("UTF-16LE"),
        (n, 0) if is_wide(n) => Some("UTF-16BE"),
        _ => None,
    }
}

/// The lines of an input without the byte order mark and line ends. They are bytes, because file names need not be
/// text. After an error the iterator ends.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    /// Number of the next line.
    number: usize,
    offset: usize,
    is_finished: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            number: 1,
            offset: 0,
            is_finished: false,
        }
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, TextError> {
        let mut line = Vec::new();
        let n = self.input.read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(None);
        }
        // Another encoding shows by its mark or by a NUL, which no line of a list or of JSON contains.
        let is_first = self.offset == 0;
        if is_first {
            check_not_binary(&line)?;
        }
        let nul = line.iter().position(|byte| *byte == 0);
        if (is_first || nul.is_some())
            && let Some(encoding) = wide_encoding(&line, self.offset)
        {
            return Err(TextError::Wide { encoding });
        }
        if let Some(at) = nul {
            let (line, offset) = (self.number, self.offset + at);
            return Err(TextError::Nul { line, offset });
        }
        self.number += 1;
        self.offset += n;
        if is_first && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        line.truncate(content(&line).len());
        Ok(Some(line))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Vec<u8>, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_finished {
            return None;
        }
        let line = self.next_line().transpose();
        self.is_finished = !matches!(line, Some(Ok(_)));
        line
    }
}

/// The line without `\n` or `\r\n`.
pub(crate) fn content(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    fn lines(input: &[u8]) -> Result<Vec<Vec<u8>>, TextError> {
        Lines::new(input).collect()
    }

    #[test]
    fn marks_and_line_ends_are_removed() {
        for bytes in [&b"\xef\xbb\xbfa\r\nb\r\n"[..], b"a\nb\n", b"a\r\nb\n"] {
            assert_eq!(decode(bytes.to_vec()).unwrap(), "a\nb\n");
            assert_eq!(lines(bytes).unwrap(), [b"a", b"b"]);
        }
        assert_eq!(decode(b"\xef\xbb\xbf".to_vec()).unwrap(), "");
        // Elsewhere the mark is a character, and a lone `\r` does not end a line.
        assert_eq!(decode("a\u{feff}\rb".into()).unwrap(), "a\u{feff}\rb");
        assert_eq!(lines(b"a\rb").unwrap(), [b"a\rb"]);
        assert_eq!(lines(b"").unwrap().len(), 0);
        // Names may hold any bytes.
        assert_eq!(lines(b" caf\xe9 \r\n").unwrap(), [b" caf\xe9 "]);
    }

    #[test]
    fn other_encodings_are_named_with_or_without_a_mark() {
        let text = "{\"path\": \"a.jpg\"}\r\n图.jpg\r\n";
        let with_mark = format!("\u{feff}{text}");
        let chinese = "图片\n图片\n";
        let cases: [(&str, Vec<u8>); 6] = [
            ("UTF-16LE", utf16(text, u16::to_le_bytes)),
            ("UTF-16BE", utf16(text, u16::to_be_bytes)),
            ("UTF-16LE", utf16(&with_mark, u16::to_le_bytes)),
            ("UTF-16BE", utf16(&with_mark, u16::to_be_bytes)),
            ("UTF-16LE", utf16(chinese, u16::to_le_bytes)),
            (
                "UTF-32LE",
                with_mark
                    .chars()
                    .flat_map(|c| u32::from(c).to_le_bytes())
                    .collect(),
            ),
        ];
        for (encoding, bytes) in cases {
            let expected = format!("found {encoding}; save it as UTF-8");
            let error = decode(bytes.clone()).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
            let error = lines(&bytes).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
        }
    }

    #[test]
    fn nul_separated_names_are_not_taken_for_utf16() {
        let error = lines(b"a/b.png\0a/c.png\0").unwrap_err().to_string();
        assert_eq!(
            error,
            "line 1, byte offset 7: expected text, found a NUL byte"
        );
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_reported_with_its_position() {
        let windows_1252 = b"plain\r\ncaf\xe9\n".to_vec();
        let error = decode(windows_1252).unwrap_err().to_string();
        assert!(error.starts_with("line 2, byte offset 10: "), "{error}");
        assert!(error.contains("0xE9"), "{error}");
        let gb18030 = b"\xc6\xfb\xb3\xb5".to_vec(); // 汽车
        let error = decode(gb18030).unwrap_err().to_string();
        assert!(error.starts_with("line 1, byte offset 0: "), "{error}");
        assert!(error.contains("GB18030"), "{error}");
    }

    #[test]
    fn spreadsheets_and_archives_are_named() {
        for (bytes, naming) in [
            (&b"PK\x03\x04\x14\0"[..], "such as XLSX or ODS"),
            (&b"\xd0\xcf\x11\xe0\xa1"[..], "such as XLS;"),
            (&b"\x1f\x8b\x08\0"[..], "a gzip file; unpack"),
            (&b"\x28\xb5\x2f\xfd$"[..], "a Zstandard file"),
        ] {
            let error = decode(bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains(naming), "{error}");
            assert_eq!(lines(bytes).unwrap_err().to_string(), error);
        }
        assert_eq!(decode(b"PK".to_vec()).unwrap(), "PK");
    }

    #[test]
    fn nul_bytes_and_overlong_input_are_rejected() {
        let mut text = "a line of text\n".repeat(100).into_bytes();
        text[20] = 0;
        let expected = "line 2, byte offset 20: expected text, found a NUL byte";
        assert_eq!(lines(&text).unwrap_err().to_string(), expected);
        assert_eq!(decode(text).unwrap_err().to_string(), expected);
        let long = take_at_most(io::repeat(b'a'), 10).unwrap_err();
        assert_eq!(
            long.to_string(),
            "expected at most 10 bytes of text, found more"
        );
        assert_eq!(take_at_most(&b"0123456789"[..], 10).unwrap(), "0123456789");
    }
}
