//! Integration tests of `xc2-convert`, in one binary: llama.cpp is linked once.

mod common;

mod added_tokens;
mod errors;
mod folders;
mod formats;
mod llama_cpp;
mod output;
mod packed;
mod snapshots;
