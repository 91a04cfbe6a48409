//! The tokenizer: text to token ids and back, with the vocabulary in the decoder view.
//!
//! llama.cpp's SentencePiece tokenizer gives the reference's ids (`tests/it/tokenizer.rs` compares them), so the
//! vocabulary is stored once and no second tokenizer is needed.
#![allow(unsafe_code)]

use std::{
    borrow::Cow,
    ffi::{CStr, c_char},
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{Model, TextStream, token_cache::TokenCache};

/// C strings end at NUL, so the vocabulary's NUL piece is stored as this noncharacter, which no text contains. Encoding
/// and decoding replace it.
pub const NUL_STAND_IN: &str = "\u{FDD0}";

/// How `<s>`, `[UNUSED_TOKEN_145]` and the like in a text are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialText {
    /// As ordinary text. For everything that a person typed.
    Plain,
    /// As the control tokens that they name, as in the reference. For trusted text only.
    Parse,
}

/// The tokenizer of a model.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    model: Arc<Model>,
    /// Whether the vocabulary has a NUL piece. Without one, NUL falls back to its byte.
    has_nul: bool,
    /// BOS and EOS, which have no text.
    silent: [i32; 2],
    /// Ids of vocabulary rows without a token.
    unused: Arc<[i32]>,
    cache: Arc<TokenCache>,
}

/// Tokens that plain text is never encoded to.
const CONTROL: sys::llama_token_attr =
    sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;

impl Tokenizer {
    /// The tokenizer of `model`.
    pub fn new(model: &Arc<Model>) -> Self {
        let mut tokenizer = Self {
            model: Arc::clone(model),
            has_nul: false,
            silent: [-1; 2],
            unused: Arc::default(),
            cache: Arc::default(),
        };
        // SAFETY: the vocabulary is valid. A missing token is -1.
        tokenizer.silent = unsafe {
            let vocab = tokenizer.vocab();
            [sys::llama_vocab_bos(vocab), sys::llama_vocab_eos(vocab)]
        };
        tokenizer.unused = tokenizer.ids_of(sys::LLAMA_TOKEN_ATTR_UNUSED).into();
        tokenizer.has_nul = tokenizer.encode(NUL_STAND_IN, SpecialText::Plain).len() == 1;
        tokenizer
    }

    pub(super) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded, and its vocabulary has the same lifetime.
        unsafe { sys::llama_model_get_vocab(self.model.as_ptr()) }
    }

    /// Size of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) as usize }
    }

    /// The ids of `text`, without `<s>`.
    pub fn encode(&self, text: &str, special: SpecialText) -> Vec<i32> {
        match special {
            SpecialText::Parse => self.encode_uncached(text, special),
            SpecialText::Plain => (self.cache).ids(text, || self.encode_uncached(text, special)),
        }
    }

    fn encode_uncached(&self, text: &str, special: SpecialText) -> Vec<i32> {
        let text = match self.has_nul {
            true => Cow::Owned(text.replace('\0', NUL_STAND_IN)),
            false => Cow::Borrowed(text),
        };
        let excluded = match special {
            SpecialText::Parse => sys::LLAMA_TOKEN_ATTR_UNUSED,
            SpecialText::Plain => sys::LLAMA_TOKEN_ATTR_UNUSED | CONTROL,
        };
        let ids = self.tokenize(&text, special).into_iter();
        ids.flat_map(|id| self.spell_out(id, excluded)).collect()
    }

    /// `id`, or the ids of its characters if it has one of the `excluded` attributes. Merging pieces can produce `<s>`
    /// even if control tokens are not parsed.
    fn spell_out(&self, id: i32, excluded: sys::llama_token_attr) -> Vec<i32> {
        if self.attributes(id) & excluded == 0 {
            return vec![id];
        }
        // SAFETY: the vocabulary is valid, and the id came from it; its texts are NUL-terminated.
        let name = unsafe { CStr::from_ptr(sys::llama_vocab_get_text(self.vocab(), id)) };
        let name = name.to_string_lossy();
        let characters = name.chars().map(String::from);
        characters
            .flat_map(|c| self.tokenize(&c, SpecialText::Plain))
            .collect()
    }

    /// The attributes of token `id`, which must be in the vocabulary.
    fn attributes(&self, id: i32) -> sys::llama_token_attr {
        // SAFETY: the vocabulary is valid, and the id is in its range.
        unsafe { sys::llama_vocab_get_attr(self.vocab(), id) }
    }

    fn tokenize(&self, text: &str, special: SpecialText) -> Vec<i32> {
        let mut ids = vec![0; text.len() + 1]; // a piece has at least one byte
        // SAFETY: text and `ids` have the lengths that are passed.
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
        ids.truncate(usize::try_from(n).expect("there are at most as many ids as bytes"));
        ids
    }

    /// The ids of control tokens and of the unknown token.
    pub(super) fn controls(&self) -> Vec<i32> {
        self.ids_of(CONTROL)
    }

    /// The ids of vocabulary rows without a token. No text is encoded to them, and no answer may have them.
    pub fn unused(&self) -> &[i32] {
        &self.unused
    }

    /// All ids with at least one of these attributes.
    fn ids_of(&self, attributes: sys::llama_token_attr) -> Vec<i32> {
        let all = 0..self.n_vocab() as i32;
        all.filter(|id| self.attributes(*id) & attributes != 0)
            .collect()
    }

    /// The bytes of one token, which may be part of a character. Control tokens are written out as in the reference,
    /// except `<unk>`, `<s>` and `</s>`, whatever their ids. An id outside the vocabulary has no bytes.
    pub fn piece(&self, id: i32) -> Vec<u8> {
        if !(0..self.n_vocab() as i32).contains(&id) {
            return Vec::new();
        }
        let is_unknown = self.attributes(id) & sys::LLAMA_TOKEN_ATTR_UNKNOWN != 0;
        let bytes = self.bytes(id, !is_unknown && !self.silent.contains(&id));
        if bytes == NUL_STAND_IN.as_bytes() {
            vec![0]
        } else {
            bytes
        }
    }

    /// The bytes of a token of the vocabulary; those of a control token only if `special`.
    fn bytes(&self, id: i32, special: bool) -> Vec<u8> {
        let mut bytes = vec![0u8; 64];
        loop {
            // SAFETY: `bytes` has the length that is passed; the id is in range.
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
                Err(_) => bytes.resize(n.unsigned_abs() as usize, 0), // minus the size that it needs
            }
        }
    }

    /// The text of `ids`; each byte that belongs to no character becomes U+FFFD.
    pub fn decode(&self, ids: &[i32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.piece(*id)).collect();
        TextStream::decode_all(&bytes)
    }
}
