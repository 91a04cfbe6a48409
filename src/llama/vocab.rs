//! Text to token ids and back, by the vocabulary in the decoder view.
//!
//! llama.cpp's SentencePiece tokenizer gives the reference's ids (`tests/tokenizer.rs` holds it
//! against them), so the vocabulary is stored once and no second tokenizer is needed.
#![allow(unsafe_code)]

use std::{ffi::c_char, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::Model;

/// C strings end at NUL, so the vocabulary's NUL piece is stored as this noncharacter, which no
/// text contains. It is exchanged on the way in and out.
const NUL_STAND_IN: &str = "\u{FDD0}";

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
}

impl Tokenizer {
    /// The tokenizer of `model`.
    pub fn new(model: &Arc<Model>) -> Self {
        Self {
            model: Arc::clone(model),
        }
    }

    fn vocab(&self) -> *const sys::llama_vocab {
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
        let text = text.replace('\0', NUL_STAND_IN);
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

    /// The bytes of one token, which may be part of a character. Control tokens other than the
    /// first three (`<unk>`, `<s>`, `</s>`) are written out, as the reference does.
    pub fn piece(&self, id: i32) -> Vec<u8> {
        let special = id > 2;
        let mut bytes = vec![0u8; 64];
        loop {
            // SAFETY: `bytes` has the length that is told; llama.cpp checks the id.
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
                    break;
                }
                Err(_) => bytes.resize(n.unsigned_abs() as usize, 0), // it told the size it needs
            }
        }
        if bytes == NUL_STAND_IN.as_bytes() {
            vec![0]
        } else {
            bytes
        }
    }

    /// The text of `ids`; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[i32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.piece(*id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
