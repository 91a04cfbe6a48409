//! llama.cpp's grammar engine: which tokens may follow.
//!
//! Grammars are passed as GBNF text. `language::grammar` uses this module for its checks and conversions; this module
//! does not depend on it.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    ptr::{self, NonNull},
};

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Tokenizer, log};

/// The state of a grammar while an answer is generated.
#[derive(Debug)]
pub struct Constraint {
    ptr: NonNull<sys::llama_sampler>,
    /// Keeps the vocabulary alive.
    _tokenizer: Tokenizer,
    /// Ids that end an answer.
    stops: Vec<i32>,
    /// Ids of control tokens, which are not text.
    controls: Vec<i32>,
}

// SAFETY: a sampler has no state of the thread that created it.
unsafe impl Send for Constraint {}

impl Constraint {
    /// Constrains an answer to `gbnf`, the text of a grammar in GBNF whose rule `root` matches the whole answer. One of
    /// `stops` ends the answer; the first is the vocabulary's end of text.
    ///
    /// # Errors
    /// If llama.cpp refuses the grammar, for example because of left recursion.
    pub fn new(gbnf: &str, tokenizer: &Tokenizer, stops: &[i32]) -> Result<Self, LlamaError> {
        // SAFETY: the vocabulary outlives the sampler, which holds its tokenizer.
        let grammar_sampler = unsafe { new_sampler(gbnf, tokenizer.vocab()) };
        Ok(Self {
            ptr: grammar_sampler.map_err(|reason| LlamaError::Grammar { reason })?,
            _tokenizer: tokenizer.clone(),
            stops: stops.to_vec(),
            controls: tokenizer.controls(),
        })
    }

    /// Whether `id` may follow.
    pub fn allows(&self, id: i32) -> bool {
        if self.stops.contains(&id) {
            return self.admits(&[self.stops[0]])[0];
        }
        !self.controls.contains(&id) && self.admits(&[id])[0]
    }

    /// Sets the logits, `[n_vocab]`, of tokens that may not follow to minus infinity. If no token may follow, only the
    /// end of text remains.
    pub fn mask(&self, logits: &mut [f32]) {
        let all: Vec<i32> = (0..logits.len() as i32).collect();
        let mut admitted = self.admits(&all);
        let may_end = admitted[self.stops[0] as usize];
        for id in &self.controls {
            admitted[*id as usize] = false; // a grammar would match their names as text
        }
        for id in &self.stops {
            admitted[*id as usize] = may_end;
        }
        if !admitted.contains(&true) {
            admitted[self.stops[0] as usize] = true;
        }
        for (logit, admitted) in logits.iter_mut().zip(admitted) {
            if !admitted {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Whether the grammar admits each of `ids`. The only stop token that it knows is the vocabulary's end of text.
    fn admits(&self, ids: &[i32]) -> Vec<bool> {
        let entry = |id: &i32| sys::llama_token_data {
            id: *id,
            logit: 0.0,
            p: 0.0,
        };
        let mut entries: Vec<_> = ids.iter().map(entry).collect();
        let mut array = sys::llama_token_data_array {
            data: entries.as_mut_ptr(),
            size: entries.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array describes `entries`, and a grammar changes nothing but its logits.
        unsafe { sys::llama_sampler_apply(self.ptr.as_ptr(), &raw mut array) };
        entries.iter().map(|e| e.logit == 0.0).collect()
    }

    /// Advances the grammar by `id`, which [`Self::allows`] must have allowed.
    pub fn accept(&mut self, id: i32) {
        if self.stops.contains(&id) {
            return; // the answer ends
        }
        // SAFETY: the sampler is valid; C++ exceptions become a status.
        let status = unsafe { sys::llama_rs_sampler_accept(self.ptr.as_ptr(), id) };
        if status != sys::LLAMA_RS_STATUS_OK {
            tracing::error!("the grammar does not allow token {id}, which was accepted");
        }
    }
}

impl Drop for Constraint {
    fn drop(&mut self) {
        // SAFETY: the handle is ours alone.
        unsafe { sys::llama_sampler_free(self.ptr.as_ptr()) }
    }
}

/// Checks, without a vocabulary, that llama.cpp accepts a grammar, given as GBNF text.
///
/// # Errors
/// llama.cpp's reason.
pub fn check_grammar(gbnf: &str) -> Result<(), String> {
    // SAFETY: without a vocabulary a sampler may be created and freed; nothing else is done with it.
    let grammar_sampler = unsafe { new_sampler(gbnf, ptr::null()) }?;
    // SAFETY: the handle is ours alone.
    unsafe { sys::llama_sampler_free(grammar_sampler.as_ptr()) };
    Ok(())
}

/// Creates llama.cpp's sampler for a grammar, given as GBNF text.
///
/// # Errors
/// llama.cpp's reason.
///
/// # Safety
/// - `vocab` is null or outlives the sampler.
/// - A sampler without a vocabulary may only be freed.
unsafe fn new_sampler(
    gbnf: &str,
    vocab: *const sys::llama_vocab,
) -> Result<NonNull<sys::llama_sampler>, String> {
    super::backend(); // installs the log
    log::clear();
    let gbnf = CString::new(gbnf).map_err(|e| e.to_string())?;
    // SAFETY: both strings are NUL-terminated and copied; the caller guarantees the vocabulary.
    let ptr = unsafe { sys::llama_rs_sampler_init_grammar(vocab, gbnf.as_ptr(), c"root".as_ptr()) };
    NonNull::new(ptr).ok_or_else(log::take_error)
}

/// Converts a JSON schema to a grammar in GBNF.
///
/// # Errors
/// The usual causes; llama.cpp gives no reason.
pub fn json_schema_to_gbnf(schema: &str) -> Result<String, String> {
    llama_cpp_2::json_schema_to_grammar(schema).map_err(|_| {
        "llama.cpp cannot convert it to a grammar; usual causes: a `$ref` without a target, a \
         `type` that JSON does not have, or a `pattern` that is not a regular expression"
            .to_owned()
    })
}
