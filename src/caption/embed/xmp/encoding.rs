//! Packets in the encodings of Unicode. XMP allows all of them; the packet says by its first bytes
//! which one it is.

use super::PacketError;

/// How the characters of a packet are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16 { big_endian: bool },
    Utf32 { big_endian: bool },
}

/// A packet without its byte order mark and the zeros that some programs end it with.
#[derive(Debug)]
pub struct Decoded {
    pub encoding: Encoding,
    pub text: String,
    has_mark: bool,
    n_zeros: usize,
}

const MARK: char = '\u{feff}';

impl Encoding {
    /// By the byte order mark, else by the zeros around the first character, which is `<` or space.
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
    fn is_called(self, label: &str) -> bool {
        let label = label.to_ascii_uppercase();
        match self {
            // Other encodings that begin as ASCII does would read our characters as theirs.
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

    fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16 { big_endian: true } => {
                text.encode_utf16().flat_map(u16::to_be_bytes).collect()
            }
            Self::Utf16 { big_endian: false } => {
                text.encode_utf16().flat_map(u16::to_le_bytes).collect()
            }
            Self::Utf32 { big_endian: true } => text
                .chars()
                .flat_map(|c| u32::from(c).to_be_bytes())
                .collect(),
            Self::Utf32 { big_endian: false } => text
                .chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect(),
        }
    }
}

impl Decoded {
    /// The text of a packet.
    ///
    /// # Errors
    /// If it is not text, or its XML declaration names another encoding than it is in.
    pub fn of(packet: &[u8]) -> Result<Self, PacketError> {
        let encoding = Encoding::detect(packet);
        let whole = encoding
            .decode(packet)
            .ok_or(PacketError::Text(encoding.name()))?;
        let text = whole.strip_prefix(MARK).unwrap_or(&whole);
        let has_mark = text.len() < whole.len();
        let text = text.trim_end_matches('\0');
        if let Some(label) = declared(text)
            && !encoding.is_called(label)
        {
            return Err(PacketError::Declaration {
                declared: label.to_owned(),
                found: encoding.name(),
            });
        }
        Ok(Self {
            encoding,
            text: text.to_owned(),
            has_mark,
            n_zeros: whole.len() - text.len() - if has_mark { MARK.len_utf8() } else { 0 },
        })
    }

    /// `text` in the form of this packet.
    pub fn encode(&self, text: &str) -> Vec<u8> {
        let mark = if self.has_mark { "\u{feff}" } else { "" };
        let zeros = "\0".repeat(self.n_zeros);
        self.encoding.encode(&format!("{mark}{text}{zeros}"))
    }
}

/// The encoding that the XML declaration names, if there is one.
fn declared(text: &str) -> Option<&str> {
    let declaration = text
        .trim_start()
        .strip_prefix("<?xml ")?
        .split("?>")
        .next()?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_comes_back_as_it_was() {
        let text = "<?xpacket begin='\u{feff}'?><a>ü\u{1f600}</a>";
        for encoding in [
            Encoding::Utf8,
            Encoding::Utf16 { big_endian: true },
            Encoding::Utf16 { big_endian: false },
            Encoding::Utf32 { big_endian: true },
            Encoding::Utf32 { big_endian: false },
        ] {
            for written in [
                text.to_owned(),
                format!("{MARK}{text}"),
                format!("{text}\0\0"),
            ] {
                let packet = encoding.encode(&written);
                let decoded = Decoded::of(&packet).unwrap();
                assert_eq!((decoded.encoding, &*decoded.text), (encoding, text));
                assert_eq!(decoded.encode(text), packet);
            }
        }
    }

    #[test]
    fn what_is_not_text_is_refused() {
        for packet in [
            &b"<a>\xfc</a>"[..],
            b"<\0a\0>",
            b"\xff\xfe\0\xd8",
            b"<\0\0\0\0\0\x11\0",
        ] {
            assert!(matches!(Decoded::of(packet), Err(PacketError::Text(_))));
        }
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a/>";
        let error = Decoded::of(latin).unwrap_err().to_string();
        assert!(error.contains("`ISO-8859-1`"), "{error}");
    }
}
