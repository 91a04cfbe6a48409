//! The pipeline from pictures and a question to an answer.
//!
//! ```text
//! pictures ─decode, resize─▶ pixel_values ─vision─▶ embeddings [n_image_tokens, n_embd]
//! question ─template, tokenizer──────────▶ Sequence, PloraMask        │
//!                                              └──────── prefill ◀────┘
//!                                                           └─▶ decode ─sample─▶ text
//! ```
//!
//! Invalid input is detected before any expensive work: pictures are read, the prompt is compared with the
//! context size, new pictures are decoded, and then the memory need is compared with the machine.

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
mod prompt_state;
mod request;
mod session;
mod slot;
mod tiles;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

use ndarray::ArrayView2;

pub use batch_scheduler::{Offer, Requests};
pub use beams::MAX_BEAMS;
pub use error::EngineError;
pub use options::{EngineOptions, default_threads};
use pictures::EmbeddingCache;
pub use prepared::PromptSize;
use prompt_cache::PromptCache;
pub use prompt_state::PromptState;
pub use request::{
    Answer, DEFAULT_N_PREDICT, Frames, Observer, Picture, PreparedPicture, Request, StopReason,
    TileOptions,
};
pub use session::Session;
pub use tiles::{DefaultHdNum, MAX_HD_NUM, PictureSize};

use crate::{
    language::{
        decoder::Decoder,
        llama::{self, Context, ContextOptions, LazyAdapter, MatmulBackend, Model, Tokenizer},
        prompt::{PromptLayout, Sequence, Template},
    },
    model::{
        VisionConfig,
        container::{Container, ModelInfo, View},
    },
    vision::{StageObserver, VisionEncoder, image::Preprocessor},
};

/// Batch size of the prefill, in tokens. 512 is the fastest on the machines measured
/// (docs/decisions/006-batch-of-512.md); longer batches take more scratch memory.
pub const N_BATCH: usize = 512;

/// Size of the in-memory cache of picture embeddings: six pictures of the largest tower, dozens of smaller ones.
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
    default_hd_num: OnceLock<DefaultHdNum>,
    load_seconds: f64,
}

impl Engine {
    /// Opens a model file. Weights are mapped, not read.
    ///
    /// # Errors
    /// If the file is damaged or is not a model file of this project.
    pub fn load(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        let start = Instant::now();
        // llama.cpp's own initialization runs in parallel.
        let (opened, ()) = rayon::join(|| open_with_tower(path, &options), llama::init);
        let (container, encoder) = opened?;
        let info = container.info();
        let (mean, std) = (info.image.image_mean, info.image.image_std);
        let preprocessor = Preprocessor::new(info.vision.image_size as u32, mean, std);
        check_context(info, &options)?;
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
            default_hd_num: OnceLock::new(),
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

    /// The kernels that compute the decoder's matrix products.
    pub fn matmul_backend(&self) -> MatmulBackend {
        self.options.matmul_backend
    }

    /// Selects the kernels for decoders that are created from now on.
    pub fn set_matmul_backend(&mut self, backend: MatmulBackend) {
        self.options.matmul_backend = backend;
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
        }
    }

    /// A decoder with an empty context: `n_ctx` positions in all, shared by `n_seq` sequences. A batch has up to
    /// `n_batch` positions, and logits for up to `n_outputs` of them.
    ///
    /// # Errors
    /// If llama.cpp cannot create one.
    pub fn decoder(
        &self,
        n_ctx: usize,
        n_batch: usize,
        n_outputs: usize,
        n_seq: usize,
    ) -> Result<Decoder, EngineError> {
        let planned = match self.options.n_ctx {
            Some(n_ctx) if self.options.long_context => n_ctx,
            _ => n_ctx.min(self.max_context()),
        };
        self.decoder_planned(planned, n_ctx, n_batch, n_outputs, n_seq)
    }

    /// As [`Self::decoder`], with the rotary embedding of a session of up to `planned` positions.
    pub(crate) fn decoder_planned(
        &self,
        planned: usize,
        n_ctx: usize,
        n_batch: usize,
        n_outputs: usize,
        n_seq: usize,
    ) -> Result<Decoder, EngineError> {
        let info = self.container.info();
        let rope_freq_base = info
            .rope_base(planned)
            .ok_or_else(|| EngineError::CannotExtend {
                asked: planned,
                max: info.max_context(),
            })?;
        let options = ContextOptions {
            n_ctx,
            n_seq,
            n_batch: n_batch.min(n_ctx),
            n_outputs: n_outputs.max(n_seq), // llama.cpp reserves one per sequence
            n_threads: self.options.n_threads,
            kv_type: self.options.kv_type,
            flash_attn: self.options.flash_attn,
            matmul_backend: self.options.matmul_backend,
            rope_freq_base,
        };
        let context = Context::new(&self.model, Arc::clone(&self.adapter), options)?;
        Ok(Decoder::new(context, n_seq))
    }

    /// Whether the adapter is in memory. It is loaded for the first picture that is computed.
    pub fn is_adapter_loaded(&self) -> bool {
        self.adapter.is_loaded()
    }

    /// Answers `request`.
    ///
    /// # Errors
    /// If the request cannot be served; the observer received no text then.
    pub fn answer(
        &self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        Session::new(self, 0).answer(request, observer)
    }

    /// Answers `request`, and returns the state after the prompt as well, so that the logits of other answers can
    /// be computed without computing the prompt again.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn answer_and_keep_prompt(
        &self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(Answer, PromptState), EngineError> {
        let mut session = Session::new(self, 0);
        let answer = session.answer(request, observer)?;
        let state = session.into_prompt_state(&answer, request);
        Ok((answer, state))
    }

    /// The longest context of a request, in positions: the model's, or the one that the options ask for with
    /// [`EngineOptions::long_context`].
    pub fn max_context(&self) -> usize {
        let max = self.container.info().max_context();
        match self.options.n_ctx {
            Some(asked) if self.options.long_context => asked.max(max),
            _ => max,
        }
    }

    /// The context size for a prompt: as set in the options, or as large as prompt and answer need.
    fn context_size(&self, sequence: &Sequence, n_predict: usize) -> Result<usize, EngineError> {
        let max = self.max_context();
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

    /// A context size above the `n_needed` positions of a request, unless the options fix it.
    fn context_size_with_spare(&self, n_needed: usize, spare: usize) -> usize {
        if self.options.n_ctx.is_some() || spare == 0 {
            return n_needed;
        }
        (n_needed + n_needed / 2 + spare).min(self.max_context())
    }
}

/// Stages that the tower reports besides its layers: `patch_embed`, `embeddings`, `hidden.0`, `features` and
/// `projected`.
const STAGES_BESIDE_LAYERS: usize = 5;

/// Reports the tower's stages as progress.
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

/// Runs `work` and adds its duration to `seconds`.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *seconds += start.elapsed().as_secs_f64();
    result
}

/// Checks that the model can have a context beyond its own, if the options ask for one.
fn check_context(info: &ModelInfo, options: &EngineOptions) -> Result<(), EngineError> {
    match options.n_ctx {
        Some(asked) if options.long_context && info.rope_base(asked).is_none() => {
            let max = info.max_context();
            Err(EngineError::CannotExtend { asked, max })
        }
        _ => Ok(()),
    }
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
