//! Text to token ids and back, by the vocabulary in the decoder view.
//!
//! llama.cpp's SentencePiece tokenizer gives the reference's ids (`tests/tokenizer.rs` holds it
//! against them), so the vocabulary is stored once and no second tokenizer is needed.
#![allow(unsafe_code)]

use std::{borrow::Cow, ffi::c_char, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{Model, texts::KnownTexts};

/// C strings end at NUL, so the vocabulary's NUL piece is stored as this noncharacter, which no
/// text contains. It is exchanged on the way in and out.
pub const NUL_STAND_IN: &str = "\u{FDD0}";

/// What to make of `<s>`, `[UNUSED_TOKEN_145]` and the like in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialText {
    /// They are text like any other. For everything that a person typed.
    Plain,
    /// They become the control tokens that they name, as in the reference. For text of our own.
    Parse,
}

/// The tokenizer of a model.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    model: Arc<Model>,
    /// Whether the vocabulary has a NUL piece. Without one NUL falls back to its byte.
    has_nul: bool,
    known: Arc<KnownTexts>,
}

impl Tokenizer {
    /// The tokenizer of `model`.
    pub fn new(model: &Arc<Model>) -> Self {
        let mut tokenizer = Self {
            model: Arc::clone(model),
            has_nul: false,
            known: Arc::default(),
        };
        tokenizer.has_nul = tokenizer.encode(NUL_STAND_IN, SpecialText::Plain).len() == 1;
        tokenizer
    }

    pub(super) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded, and its vocabulary lives as long.
        unsafe { sys::llama_model_get_vocab(self.model.as_ptr()) }
    }

    /// Number of pieces.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) as usize }
    }

    /// The ids of `text`, without `<s>`.
    pub fn encode(&self, text: &str, special: SpecialText) -> Vec<i32> {
        match special {
            SpecialText::Parse => self.encode_new(text, special),
            SpecialText::Plain => (self.known).ids(text, || self.encode_new(text, special)),
        }
    }

    fn encode_new(&self, text: &str, special: SpecialText) -> Vec<i32> {
        let text = match self.has_nul {
            true => Cow::Owned(text.replace('\0', NUL_STAND_IN)),
            false => Cow::Borrowed(text),
        };
        let ids = self.tokenize(&text, special);
        match special {
            SpecialText::Parse => ids,
            SpecialText::Plain => ids.into_iter().flat_map(|id| self.plain_ids(id)).collect(),
        }
    }

    /// `id`, or if that is a control token, the ids of its characters. Merging can arrive at `<s>`
    /// letter by letter, even where control tokens are not looked for in the text.
    fn plain_ids(&self, id: i32) -> Vec<i32> {
        // SAFETY: the vocabulary is valid; the id came from it.
        let attributes = unsafe { sys::llama_vocab_get_attr(self.vocab(), id) };
        if attributes & (sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN) == 0 {
            return vec![id];
        }
        let name = String::from_utf8_lossy(&self.bytes(id, true)).into_owned();
        let characters = name.chars().map(String::from);
        characters
            .flat_map(|c| self.tokenize(&c, SpecialText::Plain))
            .collect()
    }

    fn tokenize(&self, text: &str, special: SpecialText) -> Vec<i32> {
        let mut ids = vec![0; text.len() + 1]; // a piece has at least one byte
        // SAFETY: the text's length goes with it, and `ids` has the length that is told.
        let n = unsafe {
            sys::llama_tokenize(
                self.vocab(),
                text.as_ptr().cast::<c_char>(),
                text.len() as i32,
                ids.as_mut_ptr(),
                ids.len() as i32,
                false,
                special == SpecialText::Parse,
            )
        };
        ids.truncate(usize::try_from(n).expect("as many ids as bytes suffice"));
        ids
    }

    /// The ids that are no text: control tokens and the unknown one.
    pub(super) fn controls(&self) -> Vec<i32> {
        let no_text = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
        let is_control = |id: &i32| {
            // SAFETY: the vocabulary is valid, and the id in its range.
            let attributes = unsafe { sys::llama_vocab_get_attr(self.vocab(), *id) };
            attributes & no_text != 0
        };
        (0..self.n_vocab() as i32).filter(is_control).collect()
    }

    /// The bytes of one token, which may be part of a character. Control tokens other than the
    /// first three (`<unk>`, `<s>`, `</s>`) are written out, as the reference does. An id that the
    /// vocabulary does not have has no bytes.
    pub fn piece(&self, id: i32) -> Vec<u8> {
        let bytes = self.bytes(id, id > 2);
        if bytes == NUL_STAND_IN.as_bytes() {
            vec![0]
        } else {
            bytes
        }
    }

    /// The bytes of one token; of a control token only if `special`.
    fn bytes(&self, id: i32, special: bool) -> Vec<u8> {
        if !(0..self.n_vocab() as i32).contains(&id) {
            return Vec::new();
        }
        let mut bytes = vec![0u8; 64];
        loop {
            // SAFETY: `bytes` has the length that is told; the id is in range.
            let n = unsafe {
                sys::llama_token_to_piece(
                    self.vocab(),
                    id,
                    bytes.as_mut_ptr().cast::<c_char>(),
                    bytes.len() as i32,
                    0,
                    special,
                )
            };
            match usize::try_from(n) {
                Ok(n) => {
                    bytes.truncate(n);
                    return bytes;
                }
                Err(_) => bytes.resize(n.unsigned_abs() as usize, 0), // it told the size it needs
            }
        }
    }

    /// The text of `ids`; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[i32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.piece(*id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
