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

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::{
    container::{Container, ContainerError, View},
    decoder::{Decoder, TextStream},
    image::{self, ImageError, Orientation, Preprocessor, RgbImage},
    llama::{
        Adapter, Context, ContextOptions, KvType, LlamaError, LoadOptions, Model, Sampler,
        SamplerOptions, Tokenizer,
    },
    memory::{self, MemoryNeed, Workload},
    metrics::Timings,
    prompt::{Chat, PloraPolicy, PromptError, PromptLayout, Run, Sequence, Template},
    vision::{StageObserver, VisionEncoder, VisionError},
};

/// Tokens that are computed at once in the prefill. 512 is the fastest on the machines measured
/// (docs/performance.md), and longer batches take more scratch memory.
pub const N_BATCH: usize = 512;

/// The most tokens of an answer where nothing else is asked for: the original's limit.
pub const DEFAULT_N_PREDICT: usize = 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EngineError {
    /// The model file.
    #[error("{}", path.display())]
    Container {
        path: PathBuf,
        source: ContainerError,
    },
    /// A picture.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The tower's tensors.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The decoder.
    #[error(transparent)]
    Llama(#[from] LlamaError),
    /// The question.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The model was made for shorter texts than asked for.
    #[error("context: expected 1 to {max} tokens with this model, found {asked}")]
    ContextTooLong { asked: usize, max: usize },
    /// The prompt does not fit.
    #[error(
        "the prompt takes {n_prompt} tokens ({n_image} of them pictures) and the answer at least \
         one, but the context holds {n_ctx}"
    )]
    PromptTooLong {
        n_prompt: usize,
        n_image: usize,
        n_ctx: usize,
        max: usize,
    },
    /// The arithmetic broke down, which good weights do not let happen.
    #[error("the model computed logits that are no numbers; its weights are damaged")]
    NotFinite,
    /// The machine is too small.
    #[error(
        "not enough memory: {} needed ({} weights, {} context, {} scratch), {} available",
        memory::human(need.total()),
        memory::human(need.all_weights()),
        memory::human(need.kv_cache),
        memory::human(need.rest()),
        memory::human(*available)
    )]
    Memory { need: MemoryNeed, available: u64 },
}

/// How a model is run; one setting for all requests.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Positions of the context; `None` for what the request needs.
    pub n_ctx: Option<usize>,
    /// Threads that compute.
    pub n_threads: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Fused attention in the decoder.
    pub flash_attn: bool,
    /// How the decoder is loaded.
    pub load: LoadOptions,
    /// Whether EXIF orientation is applied to pictures.
    pub orientation: Orientation,
    /// Whether the memory is checked before a run.
    pub check_memory: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_ctx: None,
            n_threads: default_threads(),
            kv_type: KvType::F16,
            flash_attn: true,
            load: LoadOptions::default(),
            orientation: Orientation::Apply,
            check_memory: true,
        }
    }
}

impl EngineOptions {
    /// What a run with a context of `n_ctx` positions is to memory.
    fn workload(&self, n_ctx: usize, vision_work: usize) -> Workload {
        Workload {
            n_ctx,
            n_batch: N_BATCH.min(n_ctx),
            kv_type: self.kv_type,
            repack: self.load.repack,
            vision_work,
        }
    }

    /// Refuses what does not fit, less what is `loaded` already.
    fn check_memory(&self, need: MemoryNeed, loaded: u64) -> Result<(), EngineError> {
        match memory::available() {
            Some(available)
                if self.check_memory && need.total().saturating_sub(loaded) > available =>
            {
                Err(EngineError::Memory { need, available })
            }
            _ => Ok(()),
        }
    }
}

/// As many threads as cores that this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Pictures, in the order of their markers.
    pub images: Vec<PathBuf>,
    /// The conversation.
    pub chat: Chat,
    /// Where pictures stand in the prompt.
    pub layout: PromptLayout,
    /// Which tokens see Partial-LoRA.
    pub plora: PloraPolicy,
    /// How tokens are chosen.
    pub sampling: SamplerOptions,
    /// The most tokens to generate.
    pub n_predict: usize,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            images: Vec::new(),
            chat: Chat::default(),
            layout: PromptLayout::default(),
            plora: PloraPolicy::default(),
            sampling: SamplerOptions::default(),
            n_predict: DEFAULT_N_PREDICT,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its turn.
    Stop,
    /// The limit of tokens to generate.
    Length,
    /// The context is full.
    Context,
    /// The caller had enough.
    Interrupted,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text, without the stop token.
    pub text: String,
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// How many of them are pictures.
    pub n_image: usize,
    /// Tokens generated, the stop token not counted.
    pub n_generated: usize,
    /// Why it ended.
    pub stop: StopReason,
    /// How long each stage took.
    pub timings: Timings,
}

/// What happens during a request, for whoever shows it.
pub trait Observer {
    /// A stage (`encode`, `prefill`) stands at `done` of `total`.
    fn progress(&mut self, _stage: &'static str, _done: usize, _total: usize) {}
    /// More text of the answer; always whole characters. `Break` ends the answer.
    fn text(&mut self, _text: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Watches nothing.
impl Observer for () {}

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
        let encoder = VisionEncoder::new(info.vision.clone(), &container)?;
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
        let pictures = self.open_pictures(&request.images)?;
        let template = self.template(request.layout);
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
        let mut generation = Generation::new(self, request, &sequence, n_ctx);
        let stop = timed(&mut timings.decode, || {
            generation.run(&mut decoder, observer)
        })?;
        timings.n_decode = decoder.n_past() - sequence.len();
        Ok(Answer {
            text: generation.text,
            n_prompt: sequence.len(),
            n_image: sequence.n_image_tokens(),
            n_generated: generation.ids.len(),
            stop,
            timings,
        })
    }

    /// The pictures, resized for the tower.
    fn open_pictures(&self, paths: &[PathBuf]) -> Result<Vec<RgbImage>, EngineError> {
        let open = |path: &PathBuf| {
            let picture = image::open(path, self.options.orientation)?;
            Ok(self.preprocessor.resize(&picture)) // at once: the original may be large
        };
        paths.par_iter().map(open).collect()
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

/// An answer in the making.
struct Generation<'a> {
    engine: &'a Engine,
    request: &'a Request,
    sampler: Sampler,
    n_ctx: usize,
    ids: Vec<i32>,
    text: String,
}

impl<'a> Generation<'a> {
    fn new(engine: &'a Engine, request: &'a Request, sequence: &Sequence, n_ctx: usize) -> Self {
        let mut sampler = Sampler::new(request.sampling, engine.tokenizer.n_vocab(), n_ctx);
        if sequence.n_image_tokens() == 0 {
            // As in the original: with pictures it generates from embeddings and its repetition
            // penalty sees generated ids only; without it counts the prompt's as well.
            for run in sequence.runs() {
                if let Run::Tokens(ids) = run {
                    ids.iter().for_each(|id| sampler.accept(*id));
                }
            }
        }
        Self {
            engine,
            request,
            sampler,
            n_ctx,
            ids: Vec::new(),
            text: String::new(),
        }
    }

    /// Samples and decodes until something ends the answer.
    fn run(
        &mut self,
        decoder: &mut Decoder,
        observer: &mut dyn Observer,
    ) -> Result<StopReason, EngineError> {
        let prompt = &self.engine.container.info().prompt;
        let mut stream = TextStream::default();
        let stop = loop {
            if self.ids.len() == self.request.n_predict {
                break StopReason::Length;
            }
            let logits = decoder.logits();
            if !logits.iter().all(|l| l.is_finite()) {
                return Err(EngineError::NotFinite);
            }
            let id = self.sampler.sample(logits);
            if id == prompt.eos || id == prompt.turn_end {
                break StopReason::Stop;
            }
            self.sampler.accept(id);
            self.ids.push(id);
            let text = stream.push(&self.engine.tokenizer.piece(id));
            if self.say(&text, observer).is_break() {
                break StopReason::Interrupted;
            }
            if decoder.n_past() == self.n_ctx {
                break StopReason::Context;
            }
            if self.ids.len() < self.request.n_predict {
                decoder.step(id, self.request.plora.generated())?;
            }
        };
        let rest = stream.finish();
        let _ = self.say(&rest, observer); // it ends here anyway
        Ok(stop)
    }

    fn say(&mut self, text: &str, observer: &mut dyn Observer) -> ControlFlow<()> {
        self.text.push_str(text);
        if text.is_empty() {
            ControlFlow::Continue(())
        } else {
            observer.text(text)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_told_with_what_takes_it() {
        let options = EngineOptions::default();
        let need = MemoryNeed {
            decoder: 1 << 60,
            kv_cache: 5_000_000,
            ..MemoryNeed::default()
        };
        let error = options.check_memory(need, 0).unwrap_err().to_string();
        assert!(
            error.contains("not enough memory") && error.contains("5.0 MB context"),
            "{error}"
        );
        options.check_memory(need, 1 << 60).unwrap(); // what is loaded already is not needed again
        EngineOptions {
            check_memory: false,
            ..options
        }
        .check_memory(need, 0)
        .unwrap();
    }
}
