//! The language model: conversations to sequences of tokens and pictures, and sequences to text.

pub mod decoder;
pub mod grammar;
pub mod llama;
pub mod prompt;
