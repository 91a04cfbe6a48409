//! Text that people give: files, and lists on stdin, as editors, spreadsheets and shells write them.
//!
//! Everything that a person may have written is read here. Text is UTF-8; a byte order mark before it is
//! ignored, and `\r\n` ends a line like `\n`. Another encoding is named in the error, with what to do: a
//! guess between, say, Windows-1252 and GB18030 would make wrong words of right ones.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    path::Path,
};

/// U+FEFF in UTF-8, which some editors write before the text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of a file is examined to recognise UTF-16.
const N_SNIFFED: usize = 4096;

/// What was given is no UTF-8 text.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TextError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// `encoding` is called as `iconv` calls it.
    #[error(
        "expected UTF-8 text, found {encoding}; save it as UTF-8, or convert it with \
         `iconv -f {encoding} -t UTF-8`"
    )]
    Wide { encoding: &'static str },
    /// A file that a program saved in its own form.
    #[error("expected UTF-8 text, found {found}; {remedy}")]
    Packed {
        found: &'static str,
        remedy: &'static str,
    },
    /// `line` counts from 1, `offset` from 0 and from the beginning of the file.
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

/// The text of a file.
///
/// # Errors
/// If it cannot be read or is no UTF-8 text.
pub fn read(path: &Path) -> Result<String, TextError> {
    decode(std::fs::read(path)?)
}

/// The text of a file that has at most `max` bytes.
///
/// # Errors
/// As [`read`], and if there is more.
pub fn read_at_most(path: &Path, max: u64) -> Result<String, TextError> {
    take_at_most(File::open(path)?, max)
}

/// The text of an input of at most `max` bytes.
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

/// The text in the bytes of a file, without its byte order mark and with `\n` at the ends of lines.
///
/// # Errors
/// If it is no UTF-8 text.
pub fn decode(bytes: Vec<u8>) -> Result<String, TextError> {
    refuse_wide(&bytes)?;
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

/// The first byte that is no UTF-8, in `bytes` that begin at `line` and `offset`.
///
/// # Panics
/// If they are UTF-8.
pub(crate) fn not_utf8(bytes: &[u8], line: usize, offset: usize) -> TextError {
    let error = std::str::from_utf8(bytes).expect_err("it is no UTF-8");
    let at = error.valid_up_to();
    TextError::NotUtf8 {
        line: line + bytes[..at].iter().filter(|byte| **byte == b'\n').count(),
        offset: offset + at,
        byte: bytes[at],
    }
}

/// Refuses the beginning of a file in UTF-16 or UTF-32, with or without a byte order mark, and that of a
/// spreadsheet or archive.
///
/// # Errors
/// With the name of its encoding, or of what it is.
pub fn refuse_wide(beginning: &[u8]) -> Result<(), TextError> {
    refuse_packed(beginning)?;
    match wide_encoding(beginning, 0) {
        None => Ok(()),
        Some(encoding) => Err(TextError::Wide { encoding }),
    }
}

/// Refuses formats that their first bytes identify. None of them begins UTF-8 text.
fn refuse_packed(beginning: &[u8]) -> Result<(), TextError> {
    let (found, remedy) = match beginning {
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
    Err(TextError::Packed { found, remedy })
}

/// The encoding of bytes that begin `offset` bytes behind the beginning of a file. Without a mark, UTF-16
/// is recognised by its NUL bytes, which are the upper halves of Latin letters and line feeds.
fn wide_encoding(bytes: &[u8], offset: usize) -> Option<&'static str> {
    match bytes {
        _ if offset > 0 => {}
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32BE"),
        [0xff, 0xfe, ..] => return Some("UTF-16LE"),
        [0xfe, 0xff, ..] => return Some("UTF-16BE"),
        _ => {}
    }
    let sniffed = &bytes[..bytes.len().min(N_SNIFFED)];
    let n_nul = |odd: usize| {
        let places = (offset..).zip(sniffed);
        places
            .filter(|(at, byte)| at % 2 == odd && **byte == 0)
            .count()
    };
    let is_utf8 = match std::str::from_utf8(sniffed) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(), // cut within a character
    };
    // The upper halves of Greek to Thai are control characters.
    let is_text = is_utf8 && !sniffed.iter().any(|byte| matches!(byte, 1..=8 | 14..=31));
    // A NUL in one place of a long text is damage, not an encoding, and `find -print0` writes one behind each name.
    let is_wide = |n: usize| n * 3 > sniffed.len() || !is_text && n > 0 && n * 8 >= sniffed.len();
    match (n_nul(0), n_nul(1)) {
        (0, n) if is_wide(n) => Some("UTF-16LE"),
        (n, 0) if is_wide(n) => Some("UTF-16BE"),
        _ => None,
    }
}

/// The lines of an input, as bytes, because a list of files has names that are no text: without the byte
/// order mark and without `\n` or `\r\n`. After an error there are no more.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    /// Of the next line.
    number: usize,
    offset: usize,
    is_over: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            number: 1,
            offset: 0,
            is_over: false,
        }
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, TextError> {
        let mut line = Vec::new();
        let n = self.input.read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(None);
        }
        // A mark tells it, or a NUL does: no line of a list or of JSON has one.
        let is_first = self.offset == 0;
        if is_first {
            refuse_packed(&line)?;
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
        if self.is_over {
            return None;
        }
        let line = self.next_line().transpose();
        self.is_over = !matches!(line, Some(Ok(_)));
        line
    }
}

/// A line without its end.
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
    fn marks_and_ends_of_lines_are_no_part_of_the_text() {
        for bytes in [&b"\xef\xbb\xbfa\r\nb\r\n"[..], b"a\nb\n", b"a\r\nb\n"] {
            assert_eq!(decode(bytes.to_vec()).unwrap(), "a\nb\n");
            assert_eq!(lines(bytes).unwrap(), [b"a", b"b"]);
        }
        assert_eq!(decode(b"\xef\xbb\xbf".to_vec()).unwrap(), "");
        // Elsewhere it is a character, and a lone `\r` is none of a line's end.
        assert_eq!(decode("a\u{feff}\rb".into()).unwrap(), "a\u{feff}\rb");
        assert_eq!(lines(b"a\rb").unwrap(), [b"a\rb"]);
        assert_eq!(lines(b"").unwrap().len(), 0);
        // Names are bytes.
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
    fn names_that_end_with_nul_bytes_are_no_other_encoding() {
        let error = lines(b"a/b.png\0a/c.png\0").unwrap_err().to_string();
        assert_eq!(
            error,
            "line 1, byte offset 7: expected text, found a NUL byte"
        );
    }

    #[test]
    fn a_byte_of_another_encoding_is_told_with_its_place() {
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
    fn spreadsheets_and_archives_are_told_by_what_they_are() {
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
    fn a_nul_byte_and_an_endless_file_are_refused() {
        let mut text = "a line of text\n".repeat(100).into_bytes();
        text[20] = 0;
        let told = "line 2, byte offset 20: expected text, found a NUL byte";
        assert_eq!(lines(&text).unwrap_err().to_string(), told);
        assert_eq!(decode(text).unwrap_err().to_string(), told);
        let long = take_at_most(io::repeat(b'a'), 10).unwrap_err();
        assert_eq!(
            long.to_string(),
            "expected at most 10 bytes of text, found more"
        );
        assert_eq!(take_at_most(&b"0123456789"[..], 10).unwrap(), "0123456789");
    }
}
