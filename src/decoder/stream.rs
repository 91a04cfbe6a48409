//! Text as it comes, token by token, never cut within a character.

/// Collects the bytes of tokens and hands out whole characters.
///
/// A character may be spread over several tokens (byte fallback). Its bytes are held back until it
/// is complete; bytes that can never become a character turn into U+FFFD at once, as in
/// [`String::from_utf8_lossy`].
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    pending: Vec<u8>,
}

impl TextStream {
    /// Adds the bytes of a token and returns the text that is complete with them.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, rest) = self.pending.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.pending = rest.to_vec();
                        return text; // the begin of a character: wait for the rest
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending = rest[bad..].to_vec();
                }
            }
        }
    }

    /// What is left when no more tokens come: U+FFFD for a character that was never completed.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_text() {
        let bytes = "浦语·灵笔 😀 a\u{0}b".as_bytes();
        for chunk in 1..=bytes.len() {
            let mut stream = TextStream::default();
            let mut text: String = bytes.chunks(chunk).map(|c| stream.push(c)).collect();
            text += &stream.finish();
            assert_eq!(text.as_bytes(), bytes);
        }
    }

    #[test]
    fn broken_bytes_are_replaced_as_soon_as_they_are_known_to_be() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"\xe6\xb5"), "");
        assert_eq!(stream.push(b"a"), "\u{FFFD}a");
        assert_eq!(stream.push(b"\xff"), "\u{FFFD}");
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }
}
