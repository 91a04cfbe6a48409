//! InternLM-XComposer2 on the CPU: pictures and questions to text, from one quantized file.
//!
//! ```text
//! picture ──image──▶ pixel_values [3, S, S] ──vision──▶ embeddings [n_tokens, n_embd] ─┐
//! question ─prompt─▶ Sequence (tokens and pictures) + PloraMask (true on pictures) ────┴─decoder─▶ text
//! ```
//!
//! For the published models S = 490, n_tokens = 1225, n_embd = 2048 or 4096. The vision tower runs
//! in Rust, the language model in llama.cpp, with the Partial-LoRA weights applied to the tokens of
//! pictures and to no others.
//!
//! | module | what it knows |
//! |---|---|
//! | [`engine`] | the whole way; start here |
//! | [`image`], [`vision`] | pictures to embeddings |
//! | [`prompt`] | conversations to sequences, and the mask |
//! | [`decoder`], [`llama`] | sequences to text; everything that touches llama.cpp |
//! | [`grammar`] | what answers can be held to |
//! | [`container`], [`gguf`] | the model file |
//! | [`tensor`], [`quant`] | tensors in ggml's element types |
//! | [`verify`] | comparison with recorded outputs of the original |
//! | [`caption`] | many pictures: where they come from, where captions go, what is done already |
//! | [`scenes`] | drawn pictures, and prompts about them |
//! | [`compose`] | articles with pictures in their places |
//! | [`closeness`] | comparison of two models' next-token distributions |
//! | [`cache`] | computed things kept on disk |
//! | [`memory`], [`metrics`] | what a run takes, in bytes and seconds |
//! | [`machine`] | what it runs on |
//! | [`panics`] | a panic in the work on one of many pictures |
//! | [`text`] | text that people give, in whatever form their programs write it |
//! | [`whole_file`] | files that are written whole or not at all |
//!
//! ```no_run
//! use std::path::Path;
//! use xc2_edge::engine::{Engine, EngineOptions, Request};
//! use xc2_edge::language::prompt::Chat;
//!
//! let engine = Engine::load(Path::new("model.gguf"), EngineOptions::default())?;
//! let chat = Chat { query: "What is in this picture?".into(), ..Chat::default() };
//! let request = Request { images: vec!["photo.jpg".into()], chat, n_predict: 64, ..Request::default() };
//! let answer = engine.answer(&request, &mut ())?;
//! println!("{}", answer.text);
//! # Ok::<(), xc2_edge::engine::EngineError>(())
//! ```

pub mod engine;
pub mod evaluation;
pub mod language;
pub mod model;
pub mod system;
pub mod tasks;
pub mod vision;
