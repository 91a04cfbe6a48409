//! Unicode encodings of packets.
//!
//! The first bytes of a packet determine its encoding. In JPEG, PNG and WebP it should be UTF-8, and exiv2 does not
//! read others everywhere, so packets are written in UTF-8.

use std::ops::Range;

use super::PacketError;

/// The encoding of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16 { big_endian: bool },
    Utf32 { big_endian: bool },
}

/// A decoded packet in three parts.
#[derive(Debug)]
pub struct Decoded {
    /// The byte order mark, if any.
    before: String,
    pub text: String,
    /// Trailing zeros, which some programs write.
    after: String,
}

const MARK: char = '\u{feff}';

impl Encoding {
    /// Detects the encoding by the byte order mark, or else by the zeros around the first character, which is `<`
    /// or a space.
    fn detect(packet: &[u8]) -> Self {
        let big_endian = true;
        match *packet {
            [0xff, 0xfe, 0, 0, ..] => Self::Utf32 { big_endian: false },
            [0, 0, 0xfe, 0xff, ..] => Self::Utf32 { big_endian },
            [0xff, 0xfe, ..] => Self::Utf16 { big_endian: false },
            [0xfe, 0xff, ..] => Self::Utf16 { big_endian },
            [0, 0, 0, c, ..] if c != 0 => Self::Utf32 { big_endian },
            [c, 0, 0, 0, ..] if c != 0 => Self::Utf32 { big_endian: false },
            [0, c, ..] if c != 0 => Self::Utf16 { big_endian },
            [c, 0, ..] if c != 0 => Self::Utf16 { big_endian: false },
            _ => Self::Utf8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 { .. } => "UTF-16",
            Self::Utf32 { .. } => "UTF-32",
        }
    }

    /// Whether an XML declaration may call this encoding `label`.
    fn matches_label(self, label: &str) -> bool {
        let label = label.to_ascii_uppercase();
        match self {
            // Under another encoding based on ASCII, other programs would misread the caption.
            Self::Utf8 => matches!(&*label, "UTF-8" | "UTF8"),
            Self::Utf16 { .. } => label.starts_with("UTF-16") || label == "UCS-2",
            Self::Utf32 { .. } => label.starts_with("UTF-32") || label == "UCS-4",
        }
    }

    fn decode(self, packet: &[u8]) -> Option<String> {
        match self {
            Self::Utf8 => std::str::from_utf8(packet).ok().map(str::to_owned),
            Self::Utf16 { big_endian } => {
                let (units, rest) = packet.as_chunks::<2>();
                let unit = |bytes: &[u8; 2]| match big_endian {
                    true => u16::from_be_bytes(*bytes),
                    false => u16::from_le_bytes(*bytes),
                };
                let text = char::decode_utf16(units.iter().map(unit)).collect::<Result<_, _>>();
                text.ok().filter(|_| rest.is_empty())
            }
            Self::Utf32 { big_endian } => {
                let (units, rest) = packet.as_chunks::<4>();
                let unit = |bytes: &[u8; 4]| match big_endian {
                    true => u32::from_be_bytes(*bytes),
                    false => u32::from_le_bytes(*bytes),
                };
                let text = units.iter().map(|u| char::from_u32(unit(u))).collect();
                Option::filter(text, |_: &String| rest.is_empty())
            }
        }
    }
}

impl Decoded {
    /// Decodes a packet.
    ///
    /// # Errors
    /// If the packet is not text, or its XML declaration names another encoding.
    pub fn of(packet: &[u8]) -> Result<Self, PacketError> {
        let encoding = Encoding::detect(packet);
        let text = encoding.decode(packet);
        let text = text.ok_or(PacketError::Text(encoding.name()))?;
        let mark = text
            .strip_prefix(MARK)
            .map_or(0..0, |rest| 0..text.len() - rest.len());
        let zeros = text.trim_end_matches('\0').len()..text.len();
        let mut body = text[mark.end..zeros.start].to_owned();
        if let Some(label) = declared(&body) {
            if !encoding.matches_label(&body[label.clone()]) {
                return Err(PacketError::Declaration {
                    declared: body[label].to_owned(),
                    found: encoding.name(),
                });
            }
            if encoding != Encoding::Utf8 {
                body.replace_range(label, "UTF-8");
            }
        }
        Ok(Self {
            before: text[mark].to_owned(),
            text: body,
            after: text[zeros].to_owned(),
        })
    }

    /// The packet with another text.
    pub fn with(&self, text: &str) -> Vec<u8> {
        [&self.before, text, &self.after].concat().into_bytes()
    }
}

/// The range of the encoding in the XML declaration, if any.
fn declared(text: &str) -> Option<Range<usize>> {
    let begin = text
        .find("<?xml ")
        .filter(|at| text[..*at].trim().is_empty())?;
    let declaration = text[begin..].split("?>").next()?;
    let at = declaration.find("encoding")?;
    let value = &declaration[at..];
    let open = value.find(['"', '\''])?;
    let quote = value[open..].chars().next()?;
    let len = value[open + 1..].find(quote)?;
    let from = begin + at + open + 1;
    Some(from..from + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_becomes_utf_8() {
        let text = "<?xpacket begin='\u{feff}'?><a>ü\u{1f600}</a>";
        let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(bytes).collect()
        };
        let wider = |bytes: fn(u32) -> [u8; 4]| -> Vec<u8> {
            text.chars().map(u32::from).flat_map(bytes).collect()
        };
        for packet in [
            text.as_bytes().to_vec(),
            wide(u16::to_be_bytes),
            wide(u16::to_le_bytes),
            wider(u32::to_be_bytes),
            wider(u32::to_le_bytes),
        ] {
            let decoded = Decoded::of(&packet).unwrap();
            assert_eq!(decoded.text, text);
            assert_eq!(decoded.with("x"), b"x");
        }
        let framed = format!("{MARK}{text}\0\0");
        let decoded = Decoded::of(framed.as_bytes()).unwrap();
        assert_eq!(decoded.text, text);
        assert_eq!(decoded.with("x"), "\u{feff}x\0\0".as_bytes());
    }

    #[test]
    fn a_declaration_must_name_the_actual_encoding() {
        let text = "<?xml version=\"1.0\" encoding = \"utf-16\"?><a/>";
        let packet: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let decoded = Decoded::of(&packet).unwrap();
        assert_eq!(decoded.text, text.replace("utf-16", "UTF-8"));
        for encoding in ["ISO-8859-1", "utf-16"] {
            let packet = format!("<?xml version='1.0' encoding='{encoding}'?><a/>");
            let error = Decoded::of(packet.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{encoding}`, expected UTF-8")),
                "{error}"
            );
        }
    }

    #[test]
    fn invalid_text_is_rejected() {
        for packet in [
            &b"<a>\xfc</a>"[..],
            b"<\0a\0>",
            b"\xff\xfe\0\xd8",
            b"<\0\0\0\0\0\x11\0",
        ] {
            assert!(matches!(Decoded::of(packet), Err(PacketError::Text(_))));
        }
    }
}
