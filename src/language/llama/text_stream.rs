//! Streaming text from tokens without splitting characters.

/// Collects the bytes of tokens and returns whole characters.
///
/// A character may be spread over several tokens (byte fallback). Its bytes are buffered as long as they can still
/// become one. Each byte that belongs to no character becomes one U+FFFD, as in sentencepiece;
/// [`String::from_utf8_lossy`] replaces several at once.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    pending: Vec<u8>,
}

impl TextStream {
    /// Adds the bytes of a token and returns the text that is complete now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend(bytes);
        let mut text = String::new();
        let mut n_done = 0;
        for chunk in self.pending.utf8_chunks() {
            let bad = chunk.invalid();
            text.push_str(chunk.valid());
            n_done += chunk.valid().len() + bad.len();
            if n_done == self.pending.len() && is_incomplete(bad) {
                n_done -= bad.len(); // the start of a character: wait for the rest
            } else {
                text.extend(replacements(bad));
            }
        }
        self.pending.drain(..n_done);
        text
    }

    /// The rest after the last token: a U+FFFD for each byte of an incomplete character.
    pub fn finish(&mut self) -> String {
        replacements(&std::mem::take(&mut self.pending)).collect()
    }

    /// The text of all `bytes`.
    pub fn decode_all(bytes: &[u8]) -> String {
        let mut stream = Self::default();
        let text = stream.push(bytes);
        text + &stream.finish()
    }
}

/// Whether `bytes` are the start of a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    let error = std::str::from_utf8(bytes).err();
    error.is_some_and(|error| error.error_len().is_none())
}

fn replacements(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.iter().map(|_| char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_does_not_depend_on_token_boundaries() {
        let bytes = "浦语·灵笔 😀 a\u{0}b".as_bytes();
        for chunk in 1..=bytes.len() {
            let mut stream = TextStream::default();
            let mut text: String = bytes.chunks(chunk).map(|c| stream.push(c)).collect();
            text += &stream.finish();
            assert_eq!(text.as_bytes(), bytes);
        }
    }

    #[test]
    fn invalid_bytes_are_replaced_as_soon_as_they_are_detected() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"\xe6\xb5"), "");
        assert_eq!(stream.push(b"a"), "\u{FFFD}\u{FFFD}a");
        assert_eq!(stream.push(b"\xff"), "\u{FFFD}");
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.finish(), "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn only_bytes_that_can_become_a_character_are_buffered() {
        for start in [
            &b"\xc3"[..],
            b"\xe4\xbd",
            b"\xf0\x9f\x98",
            b"\xe0\xa0",
            b"\xf4\x8f",
        ] {
            assert_eq!(TextStream::default().push(start), "", "{start:x?}");
        }
        // Overlong forms, surrogates, values above U+10FFFF, invalid lead bytes, lone continuation bytes.
        for invalid in [
            &b"\xc0"[..],
            b"\xc1",
            b"\xe0\x80",
            b"\xed\xa0",
            b"\xf0\x8f",
            b"\xf4\x90",
            b"\xf5",
            b"\xf8\x88",
            b"\xff",
            b"\x80",
        ] {
            let text = "\u{FFFD}".repeat(invalid.len());
            assert_eq!(TextStream::default().push(invalid), text, "{invalid:x?}");
        }
    }

    /// Compares with the text that sentencepiece 0.2.3 decodes from byte pieces
    /// (`tests/reference/tokenizer/bytes.py` generates the cases).
    #[test]
    fn any_bytes_decode_as_in_sentencepiece_at_once_and_byte_by_byte() {
        let lines = include_str!("../../../tests/reference/tokenizer/bytes.jsonl").lines();
        let mut n_cases = 0;
        for line in lines {
            let (hex, expected): (String, String) = serde_json::from_str(line).unwrap();
            let digits = hex
                .as_bytes()
                .chunks(2)
                .map(|d| std::str::from_utf8(d).unwrap());
            let bytes: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
            assert_eq!(TextStream::decode_all(&bytes), expected, "{hex}");
            let mut stream = TextStream::default();
            let streamed: String = bytes.iter().map(|b| stream.push(&[*b])).collect();
            assert_eq!(streamed + &stream.finish(), expected, "{hex} byte by byte");
            n_cases += 1;
        }
        assert!(n_cases >= 1000);
    }
}
