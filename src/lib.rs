//! InternLM-XComposer2 on the CPU: pictures and questions to text, from one quantized file.
//!
//! ```text
//! picture ──image──▶ pixel_values [3, S, S] ──vision──▶ embeddings [n_tokens, n_embd] ─┐
//! question ─prompt─▶ Sequence (tokens and pictures) + PloraMask (true on pictures) ────┴─decoder─▶ text
//! ```
//!
//! For the published models S = 490, n_tokens = 1225, n_embd = 2048 or 4096. The vision tower runs in Rust, the language
//! model in llama.cpp, with the Partial-LoRA weights applied to the tokens of pictures and to no others.
//!
//! - [`Engine::load`] opens a model file. [`Engine::answer`] answers one [`Request`], [`Engine::answer_many`] a batch of
//!   them, and a [`Session`] keeps what it has computed for the next turn of a conversation.
//! - [`caption`] writes a caption for each of many pictures and resumes after any interruption.
//! - [`compose`] writes illustrated articles.
//!
//! ```
//! # use xc2_convert::{checkpoint::Checkpoint, mix::{Mix, Preset}, plan::{Options, Plan}, write};
//! # let dir = tempfile::tempdir()?;
//! # let model = dir.path().join("xc2-scenes.gguf");
//! # let checkpoint = Checkpoint::open("models/xc2-scenes".as_ref())?;
//! # let mix = Mix::new(Preset::Q4K);
//! # let (task, command_line) = Default::default();
//! # let options = Options { mix, family: None, task, plora_scale: None, command_line };
//! # write::convert(&Plan::new(&checkpoint, &options)?, &model, 1, &Default::default(), |_| {})?;
//! use xc2_edge::{Chat, Engine, EngineOptions, Request};
//!
//! let engine = Engine::load(&model, EngineOptions::default())?;
//! let system = engine.container().info().prompt.system.clone();
//! let chat = Chat { system, query: "Please describe this image in detail.".into(), ..Chat::default() };
//! let images = vec!["models/scenes/three-shapes.png".into()];
//! let answer = engine.answer(&Request { images, chat, ..Request::default() }, &mut ())?;
//! assert!(answer.text.starts_with("The image shows three objects"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `cli` (default) builds the program `xc2-edge` and includes the two tasks: `compose`, which includes `caption`.
//! Without features the library has the engine alone. `heic` reads HEIC pictures.
//!
//! # Internal modules
//!
//! The folders of `src/` are layers, described in `docs/architecture.md`. Those that this page does not list are public
//! for the programs of this repository (`xc2-edge`, `xc2-convert`, tests and benches) and change without notice.

pub mod engine;
#[doc(hidden)]
pub mod evaluation;
#[doc(hidden)]
pub mod language;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod system;
#[doc(hidden)]
pub mod tasks;
#[doc(hidden)]
pub mod vision;

pub use engine::{
    Answer, Engine, EngineError, EngineOptions, Observer, Picture, Request, Session, StopReason,
};
pub use language::{
    grammar::{Grammar, GrammarError},
    llama::{KvType, SamplerOptions},
    prompt::{Chat, PloraPolicy},
};
#[cfg(feature = "caption")]
#[doc(inline)]
pub use tasks::caption;
#[cfg(feature = "compose")]
#[doc(inline)]
pub use tasks::compose;
