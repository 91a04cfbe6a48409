//! llama.cpp's grammar engine: which tokens may follow.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    ptr::{self, NonNull},
};

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Tokenizer, log};

/// An answer in the making that is held to a grammar.
#[derive(Debug)]
pub struct Constraint {
    ptr: NonNull<sys::llama_sampler>,
    /// Keeps the vocabulary alive.
    _tokenizer: Tokenizer,
    /// Ids that end an answer.
    stops: Vec<i32>,
    /// Ids that are no text.
    controls: Vec<i32>,
}

// SAFETY: nothing of a sampler belongs to the thread that made it.
unsafe impl Send for Constraint {}

impl Constraint {
    /// Holds an answer that ends with one of `stops` to the grammar `gbnf`, in GBNF. The first of them is the one that
    /// the vocabulary calls the end of text.
    ///
    /// # Errors
    /// If llama.cpp refuses the grammar, for example because a rule begins with itself.
    pub fn new(gbnf: &str, tokenizer: &Tokenizer, stops: &[i32]) -> Result<Self, LlamaError> {
        // SAFETY: the vocabulary outlives the sampler, which holds its tokenizer.
        let made = unsafe { sampler(gbnf, tokenizer.vocab()) };
        Ok(Self {
            ptr: made.map_err(|reason| LlamaError::Grammar { reason })?,
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

    /// Sets the logits of what may not follow, `[n_vocab]`, to minus infinity. If nothing may, the
    /// answer has to end.
    pub fn mask(&self, logits: &mut [f32]) {
        let all: Vec<i32> = (0..logits.len() as i32).collect();
        let mut admitted = self.admits(&all);
        let may_end = admitted[self.stops[0] as usize];
        for id in &self.controls {
            admitted[*id as usize] = false; // spelled out, they might pass for text
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

    /// What the grammar says of each of `ids`, which knows only the vocabulary's own end of text.
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

    /// Goes on with `id`, which [`Self::allows`] allowed.
    pub fn accept(&mut self, id: i32) {
        if self.stops.contains(&id) {
            return; // it is over
        }
        // SAFETY: the sampler is valid; exceptions become a status.
        let status = unsafe { sys::llama_rs_sampler_accept(self.ptr.as_ptr(), id) };
        if status != sys::LLAMA_RS_STATUS_OK {
            tracing::error!("a token was accepted that the grammar does not allow: {id}");
        }
    }
}

impl Drop for Constraint {
    fn drop(&mut self) {
        // SAFETY: the handle is ours alone.
        unsafe { sys::llama_sampler_free(self.ptr.as_ptr()) }
    }
}

/// Whether llama.cpp takes a grammar, apart from any vocabulary; if not, why.
///
/// # Errors
/// Gives llama.cpp's reason.
pub fn check_grammar(gbnf: &str) -> Result<(), String> {
    // SAFETY: without a vocabulary a grammar can be made and freed, and nothing else is done here.
    let made = unsafe { sampler(gbnf, ptr::null()) }?;
    // SAFETY: the handle is ours alone.
    unsafe { sys::llama_sampler_free(made.as_ptr()) };
    Ok(())
}

/// A grammar sampler, or llama.cpp's reason.
///
/// # Safety
/// - `vocab` is null or outlives the sampler.
/// - A sampler without a vocabulary is only freed.
unsafe fn sampler(
    gbnf: &str,
    vocab: *const sys::llama_vocab,
) -> Result<NonNull<sys::llama_sampler>, String> {
    super::backend(); // for its log
    log::clear();
    let gbnf = CString::new(gbnf).map_err(|e| e.to_string())?;
    // SAFETY: both strings end in zero and are copied; the caller answers for the vocabulary.
    let made =
        unsafe { sys::llama_rs_sampler_init_grammar(vocab, gbnf.as_ptr(), c"root".as_ptr()) };
    NonNull::new(made).ok_or_else(log::last_error)
}

/// llama.cpp's GBNF for a JSON schema.
///
/// # Errors
/// Says what may be wrong; llama.cpp does not tell.
pub fn json_schema_to_gbnf(schema: &str) -> Result<String, String> {
    llama_cpp_2::json_schema_to_grammar(schema).map_err(|_| {
        "llama.cpp has no grammar for it; usually a `$ref` leads nowhere, a `type` is none that \
         JSON has, or a `pattern` is no regular expression"
            .to_owned()
    })
}
