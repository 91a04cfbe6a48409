//! The whole way from pictures and a question to an answer.
//!
//! ```text
//! pictures ─decode, resize─▶ pixel_values ─vision─▶ embeddings [n_image_tokens, n_embd]
//! question ─template, tokenizer──────────▶ Sequence, PloraMask        │
//!                                              └──────── prefill ◀────┘
//!                                                           └─▶ decode ─sample─▶ text
//! ```
//!
//! Everything that can be wrong with the input is found before anything expensive begins: the
//! pictures are read, the prompt is held against the context, new pictures are decoded, then the
//! memory is held against the machine.

mod after_prompt;
mod batch_scheduler;
mod beams;
pub mod cache;
mod context_capacity;
mod decoding;
mod error;
mod generation;
pub mod memory;
mod memory_check;
pub mod metrics;
mod options;
mod pictures;
mod prepared;
mod prompt_cache;
mod request;
mod session;
mod slot;

use std::{path::Path, sync::Arc, time::Instant};

pub use after_prompt::AfterPrompt;
pub use batch_scheduler::{Offer, Requests};
pub use beams::MAX_BEAMS;
pub use error::EngineError;
use ndarray::ArrayView2;
pub use options::{EngineOptions, default_threads};
use pictures::EmbeddingCache;
pub use prepared::PromptSize;
use prompt_cache::PromptCache;
pub use request::{Answer, DEFAULT_N_PREDICT, Observer, Picture, Request, StopReason};
pub use session::Session;

use crate::{
    language::{
        decoder::Decoder,
        llama::{self, Context, ContextOptions, LazyAdapter, Model, Products, Tokenizer},
        prompt::{PromptLayout, Sequence, Template},
    },
    model::{
        VisionConfig,
        container::{Container, View},
    },
    vision::StageObserver,
    vision::VisionEncoder,
    vision::image::Preprocessor,
};

/// Tokens that are computed at once in the prefill. 512 is the fastest on the machines measured
/// (docs/performance.md), and longer batches take more scratch memory.
pub const N_BATCH: usize = 512;

/// Embeddings of pictures that an engine remembers: six of the largest tower's, or dozens.
const EMBEDDING_CACHE_BYTES: usize = 128 << 20;

/// A loaded model.
pub struct Engine {
    container: Container,
    encoder: VisionEncoder,
    preprocessor: Preprocessor,
    model: Arc<Model>,
    adapter: Arc<LazyAdapter>,
    embeddings: EmbeddingCache,
    prompt_cache: Option<PromptCache>,
    tokenizer: Tokenizer,
    options: EngineOptions,
    load_seconds: f64,
}

impl Engine {
    /// Opens a model file. Weights are mapped, not read.
    ///
    /// # Errors
    /// If the file is damaged or no model of ours.
    pub fn load(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        let start = Instant::now();
        // llama.cpp fills tables of its own before it can load anything.
        let (opened, ()) = rayon::join(|| open_with_tower(path, &options), llama::init);
        let (container, encoder) = opened?;
        let info = container.info();
        let (mean, std) = (info.image.image_mean, info.image.image_std);
        let preprocessor = Preprocessor::new(info.vision.image_size as u32, mean, std);
        memory_check::check_weights(&container, &options)?;
        let model = Model::load(path, container.view_offset(View::Decoder), options.load)?;
        let offset = container.view_offset(View::Adapter);
        let adapter = Arc::new(LazyAdapter::new(&model, path, offset));
        let tokenizer = Tokenizer::new(&model);
        let prompt_cache = PromptCache::new(&container, &options);
        let load_seconds = start.elapsed().as_secs_f64();
        Ok(Self {
            container,
            encoder,
            preprocessor,
            model,
            adapter,
            embeddings: EmbeddingCache::new(EMBEDDING_CACHE_BYTES),
            prompt_cache,
            tokenizer,
            options,
            load_seconds,
        })
    }

    /// The model file.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The vision tower and projector.
    pub fn encoder(&self) -> &VisionEncoder {
        &self.encoder
    }

    /// Who multiplies matrices in the decoder.
    pub fn products(&self) -> Products {
        self.options.products
    }

    /// Who multiplies in decoders that are made from now on.
    pub fn set_products(&mut self, products: Products) {
        self.options.products = products;
    }

    /// The image preparation.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template in the given layout.
    pub fn template(&self, layout: PromptLayout) -> Template {
        let info = self.container.info();
        Template {
            prompt: info.prompt.clone(),
            layout,
            n_image_tokens: info.vision.n_patches(),
        }
    }

    /// A decoder with an empty context of `n_ctx` positions for `n_seq` sequences together, which
    /// computes up to `n_batch` of them at once and can give the logits of `n_outputs` of those.
    ///
    /// # Errors
    /// If llama.cpp cannot make one.
    pub fn decoder(
        &self,
        n_ctx: usize,
        n_batch: usize,
        n_outputs: usize,
        n_seq: usize,
    ) -> Result<Decoder, EngineError> {
        let options = ContextOptions {
            n_ctx,
            n_seq,
            n_batch: n_batch.min(n_ctx),
            n_outputs: n_outputs.max(n_seq), // llama.cpp reserves one for each sequence
            n_threads: self.options.n_threads,
            kv_type: self.options.kv_type,
            flash_attn: self.options.flash_attn,
            products: self.options.products,
        };
        let context = Context::new(&self.model, Arc::clone(&self.adapter), options)?;
        Ok(Decoder::new(context, n_seq))
    }

    /// Whether the adapter's memory is held: it is loaded when a picture is first computed.
    pub fn holds_adapter(&self) -> bool {
        self.adapter.is_loaded()
    }

    /// Answers `request`.
    ///
    /// # Errors
    /// If the request cannot be served; nothing was said then.
    pub fn answer(
        &self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        Session::new(self, 0).answer(request, observer)
    }

    /// Answers `request`, and stays where the prompt ends: other answers can be followed from
    /// there without computing it again.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn answer_and_stay(
        &self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(Answer, AfterPrompt), EngineError> {
        let mut session = Session::new(self, 0);
        let answer = session.answer(request, observer)?;
        let stay = session.into_after_prompt(&answer, request);
        Ok((answer, stay))
    }

    /// The size of the context for a prompt: what was asked for, or what prompt and answer need.
    fn context_for(&self, sequence: &Sequence, n_predict: usize) -> Result<usize, EngineError> {
        let max = self.container.info().max_context();
        let n_ctx = match self.options.n_ctx {
            Some(asked) if !(1..=max).contains(&asked) => {
                return Err(EngineError::ContextTooLong { asked, max });
            }
            Some(asked) => asked,
            None => max.min(sequence.len().saturating_add(n_predict.max(1))),
        };
        if sequence.len() >= n_ctx {
            return Err(EngineError::PromptTooLong {
                n_prompt: sequence.len(),
                n_image: sequence.n_image_tokens(),
                n_ctx,
                max,
            });
        }
        Ok(n_ctx)
    }

    /// A context with room for more than the `n_needed` positions of a request, if the options leave
    /// its size open.
    fn roomy(&self, n_needed: usize, spare: usize) -> usize {
        if self.options.n_ctx.is_some() || spare == 0 {
            return n_needed;
        }
        let max = self.container.info().max_context();
        (n_needed + n_needed / 2 + spare).min(max)
    }
}

/// What the tower reports besides its layers: `patch_embed`, `embeddings`, `hidden.0`, `features`
/// and `projected`.
const STAGES_BESIDE_LAYERS: usize = 5;

/// Turns the tower's stages into progress.
struct StageCount<'a> {
    observer: &'a mut dyn Observer,
    done: usize,
    total: usize,
}

impl<'a> StageCount<'a> {
    fn new(observer: &'a mut dyn Observer, tower: &VisionConfig, n_pictures: usize) -> Self {
        Self {
            observer,
            done: 0,
            total: n_pictures * (tower.n_layer + STAGES_BESIDE_LAYERS),
        }
    }
}

impl StageObserver for StageCount<'_> {
    fn stage(&mut self, _name: &str, _values: ArrayView2<f32>) {
        self.done += 1;
        self.observer.progress("encode", self.done, self.total);
    }
}

/// Adds the seconds that `work` takes to `seconds`.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *seconds += start.elapsed().as_secs_f64();
    result
}

fn open_with_tower(
    path: &Path,
    options: &EngineOptions,
) -> Result<(Container, VisionEncoder), EngineError> {
    let container = open(path)?;
    let vision = container.info().vision.clone();
    let encoder = VisionEncoder::new(vision, &container, options.tower)?;
    Ok((container, encoder))
}

/// Opens a model file.
///
/// # Errors
/// As [`Container::open`], with the path.
pub fn open(path: &Path) -> Result<Container, EngineError> {
    Container::open(path).map_err(|source| EngineError::Container {
        path: path.to_owned(),
        source,
    })
}
