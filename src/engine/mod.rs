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
//! pictures are decoded first, then the prompt is held against the context, then the memory
//! against the machine.

mod after_prompt;
mod error;
mod generation;
mod options;
mod request;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use after_prompt::AfterPrompt;
pub use error::EngineError;
use generation::Generation;
use ndarray::{Array2, ArrayView2};
pub use options::{EngineOptions, default_threads};
use rayon::prelude::*;
pub use request::{Answer, DEFAULT_N_PREDICT, Observer, Picture, Request, StopReason};

use crate::{
    container::{Container, View},
    decoder::Decoder,
    image::{self, ImageError, Preprocessor, RgbImage},
    llama::{Adapter, Context, ContextOptions, Model, Tokenizer},
    memory::MemoryNeed,
    metrics::Timings,
    prompt::{PromptLayout, Sequence, Template},
    vision::{StageObserver, VisionEncoder},
};

/// Tokens that are computed at once in the prefill. 512 is the fastest on the machines measured
/// (docs/performance.md), and longer batches take more scratch memory.
pub const N_BATCH: usize = 512;

/// A loaded model.
pub struct Engine {
    container: Container,
    encoder: VisionEncoder,
    preprocessor: Preprocessor,
    model: Arc<Model>,
    adapter: Mutex<Option<Arc<Adapter>>>,
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
        let container = open(path)?;
        let info = container.info();
        let encoder = VisionEncoder::new(info.vision.clone(), &container, options.tower)?;
        let (mean, std) = (info.image.image_mean, info.image.image_std);
        let preprocessor = Preprocessor::new(info.vision.image_size as u32, mean, std);
        let least = options.workload(1, encoder.work_bytes());
        options.check_memory(MemoryNeed::of(&container, least), 0)?;
        let model = Model::load(path, container.view_offset(View::Decoder), options.load)?;
        let tokenizer = Tokenizer::new(&model);
        let load_seconds = start.elapsed().as_secs_f64();
        Ok(Self {
            container,
            encoder,
            preprocessor,
            model,
            adapter: Mutex::new(None),
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

    /// A decoder with an empty context of `n_ctx` positions, which computes up to `n_batch` of them
    /// at once and can give the logits of `n_outputs` of those.
    ///
    /// # Errors
    /// If llama.cpp cannot make one.
    pub fn decoder(
        &self,
        n_ctx: usize,
        n_batch: usize,
        n_outputs: usize,
    ) -> Result<Decoder, EngineError> {
        let options = ContextOptions {
            n_ctx,
            n_batch: n_batch.min(n_ctx),
            n_outputs,
            n_threads: self.options.n_threads,
            kv_type: self.options.kv_type,
            flash_attn: self.options.flash_attn,
        };
        let adapter = self.adapter()?;
        Ok(Decoder::new(Context::new(
            &self.model,
            Some(adapter),
            options,
        )?))
    }

    /// The adapter, loaded when it is first needed.
    fn adapter(&self) -> Result<Arc<Adapter>, EngineError> {
        let mut loaded = self.adapter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(adapter) = &*loaded {
            return Ok(Arc::clone(adapter));
        }
        let offset = self.container.view_offset(View::Adapter);
        let adapter = Arc::new(Adapter::load(&self.model, self.container.path(), offset)?);
        *loaded = Some(Arc::clone(&adapter));
        Ok(adapter)
    }

    /// What a context of `n_ctx` positions will need.
    pub fn memory_need(&self, n_ctx: usize) -> MemoryNeed {
        let load = self.options.workload(n_ctx, self.encoder.work_bytes());
        MemoryNeed::of(&self.container, load)
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
        Ok(self.answer_and_stay(request, observer)?.0)
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
        let pictures = self.open_pictures(&request.images)?;
        let mut template = self.template(request.layout);
        if let Some(rule) = request.bos_rule {
            template.prompt.bos_rule = rule;
        }
        let sequence = template.sequence(&request.chat, pictures.len(), &self.tokenizer)?;
        let n_ctx = self.context_for(&sequence, request.n_predict)?;
        self.options
            .check_memory(self.memory_need(n_ctx), self.loaded_bytes(n_ctx))?;

        let mut timings = Timings {
            load: self.load_seconds,
            ..Timings::default()
        };
        let mut decoder = timed(&mut timings.load, || self.decoder(n_ctx, N_BATCH, 1))?;
        let embeddings = timed(&mut timings.encode, || self.encode(&pictures, observer));
        timings.n_images = pictures.len();
        timed(&mut timings.prefill, || {
            let mask = sequence.plora_mask(request.plora);
            let views: Vec<_> = embeddings.iter().map(|e| e.view()).collect();
            let progress = |done| observer.progress("prefill", done, sequence.len());
            decoder.prefill(&sequence, &mask, &views, progress)
        })?;
        timings.n_prefill = sequence.len();
        let logits = decoder.logits().to_vec();
        let mut generation = Generation::new(self, request, &sequence, n_ctx);
        let stop = timed(&mut timings.decode, || {
            generation.run(&mut decoder, observer)
        })?;
        timings.n_decode = decoder.n_past() - sequence.len();
        let answer = Answer {
            text: generation.text,
            n_prompt: sequence.len(),
            n_image: sequence.n_image_tokens(),
            ids: generation.ids,
            stop,
            timings,
        };
        let stay = AfterPrompt {
            decoder,
            n_prompt: sequence.len(),
            n_ctx,
            logits,
            plora: request.plora.generated(),
        };
        Ok((answer, stay))
    }

    /// The pictures, resized for the tower.
    fn open_pictures(&self, pictures: &[Picture]) -> Result<Vec<RgbImage>, EngineError> {
        let open = |picture: &Picture| match picture {
            Picture::File(path) => {
                let picture = image::open(path, self.options.orientation)?;
                Ok(self.preprocessor.resize(&picture)) // at once: the original may be large
            }
            Picture::Pixels(picture) => match picture.dimensions() {
                (width, height) if width == 0 || height == 0 => {
                    Err(ImageError::NoPixels { width, height }.into())
                }
                _ => Ok(self.preprocessor.resize(picture)),
            },
        };
        pictures.par_iter().map(open).collect()
    }

    /// The projected embeddings of every picture, `[n_tokens, n_embd]` each.
    fn encode(&self, pictures: &[RgbImage], observer: &mut dyn Observer) -> Vec<Array2<f32>> {
        let n_stages = self.encoder.config().n_layer + STAGES_BESIDE_LAYERS;
        let mut progress = StageCount {
            observer,
            done: 0,
            total: pictures.len() * n_stages,
        };
        let encode = |picture| {
            let pixels = self.preprocessor.normalize(picture);
            self.encoder.encode_observed(&pixels, &mut progress)
        };
        pictures.iter().map(encode).collect()
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

    /// What of [`Self::memory_need`] this process holds already; mapped weights do not count,
    /// since the system reckons their pages as available.
    fn loaded_bytes(&self, n_ctx: usize) -> u64 {
        let need = self.memory_need(n_ctx);
        let read = if self.options.load.mmap {
            0
        } else {
            need.decoder
        };
        read + need.repacked + need.vocabulary
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
