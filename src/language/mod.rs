//! The language model: from conversations to sequences of tokens and pictures, and from sequences to text.

pub mod decoder;
pub mod grammar;
pub mod llama;
pub mod prompt;
