//! A session: requests that share a KV cache.

use std::{thread, time::Instant};

use super::{
    Answer, Engine, EngineError, N_BATCH, Observer, PromptState, Request, StopReason,
    context_capacity::{ContextCapacity, ContextDemand},
    generation::Generation,
    memory_check::MemoryRequest,
    pictures::EncoderInput,
    prepared::{Prepared, Usage},
    prompt_cache::{CachedPrefix, Verified},
    timed,
};
use crate::{engine::metrics::Timings, language::decoder::Decoder};

/// The sequence of the conversation.
const SEQ: usize = 0;

/// The sequence for copying states to the cache on disk, and for warming up.
const SPARE: usize = 1;

/// Positions of a session's context beyond what a request needs, so that it need not grow at every turn.
const SPARE_POSITIONS: usize = 512;

/// Requests that share a KV cache. The common prefix of the cached positions (prompt, pictures and answer of the last
/// request) and the next prompt is not computed again.
///
/// Any request may follow any other: the cache is truncated at the first difference.
pub struct Session<'a> {
    engine: &'a Engine,
    spare: usize,
    current: Option<CurrentContext>,
    /// The logits of the last prompt's last position, `[n_vocab]`.
    logits: Vec<f32>,
    /// Timings of work ahead of the next request, reported with its answer.
    reserved_timings: Timings,
}

/// The present context.
struct CurrentContext {
    decoder: Decoder,
    capacity: ContextCapacity,
}

impl Engine {
    /// A session. Its context is created by the first answer or by [`Session::reserve`], and grows with later
    /// requests.
    pub fn session(&self) -> Session<'_> {
        Session::new(self, SPARE_POSITIONS)
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(engine: &'a Engine, spare: usize) -> Self {
        Self {
            engine,
            spare,
            current: None,
            logits: Vec::new(),
            reserved_timings: Timings {
                load: engine.load_seconds,
                ..Timings::default()
            },
        }
    }

    /// The number of cached positions.
    pub fn n_past(&self) -> usize {
        let n_past = |current: &CurrentContext| current.decoder.n_past(SEQ);
        self.current.as_ref().map_or(0, n_past)
    }

    /// The present context size; zero before a context is created. Unless the options fix it, the context grows up to
    /// the model's maximum.
    pub fn n_ctx(&self) -> usize {
        self.capacity().n_ctx
    }

    /// Clears the KV cache; its memory stays allocated.
    pub fn clear(&mut self) {
        if let Some(current) = &mut self.current {
            for seq in 0..current.capacity.n_seq {
                current.decoder.truncate(seq, 0);
            }
        }
    }

    /// Prepares for `request` in advance, so that its answer starts sooner: creates a context that is large enough,
    /// unless there is one, and warms it up with one token if it is empty. Decodes no picture, and keeps the cached
    /// positions. The time is reported in [`Timings::context`] of the next answer.
    ///
    /// Any other request may follow; the context grows if that needs more.
    ///
    /// # Errors
    /// If its beams, prompt or length are invalid, or there is no memory for a new context and for computing all of
    /// the pictures. If creating the context fails nevertheless, the cached positions are lost.
    pub fn reserve(&mut self, request: &Request) -> Result<(), EngineError> {
        let start = Instant::now();
        let engine = self.engine;
        request.check_beams()?;
        let sequence = engine.sequence(request, &engine.picture_lengths(request)?)?;
        let mask = sequence.plora_mask(request.plora);
        let demand = ContextDemand {
            n_needed: engine.context_size(&sequence, request.n_predict)?,
            n_prompt: sequence.len(),
            n_beams: request.beams,
            encodes: !request.images.is_empty(),
            adapts: !mask.set_runs().is_empty(),
        };
        if !self.capacity().suffices(demand) {
            self.ensure_capacity(demand, self.n_past())?;
            self.warm_up()?;
        }
        self.reserved_timings.context += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Computes and discards one token in an empty context, which touches the memory of weights and results.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let id = self.engine.container.info().prompt.bos;
        if let Some(CurrentContext { decoder, .. }) = &mut self.current
            && decoder.n_past(SEQ) == 0
        {
            decoder.step(SPARE, id, false)?;
            decoder.truncate(SPARE, 0);
        }
        Ok(())
    }

    /// Answers `request` with the result of [`Engine::answer`]. [`Timings::n_reused`] and
    /// [`Timings::n_images_reused`] count what was not computed again.
    ///
    /// # Errors
    /// If the request cannot be served; the observer received no text then, and the cached positions remain. If the
    /// decoder fails in the middle, the session is cleared and can be used further.
    pub fn answer(
        &mut self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        let start = Instant::now();
        let engine = self.engine;
        let prepared = engine.prepare(request)?;
        let n_needed = engine.context_size(&prepared.prompt.sequence, request.n_predict)?;
        let mut usage = Usage {
            timings: self.reserved_timings,
            ..Usage::default()
        };
        let sequence = &prepared.prompt.sequence;
        let generation = Generation::new(engine, request, sequence, n_needed, start)?;
        let inputs = self
            .prepare_context(&prepared, n_needed, &mut usage)
            .map_err(|error| engine.with_fewer_tiles(error, request))?;
        self.reserved_timings = Timings::default();
        let answer = self.compute(&prepared, generation, inputs, usage, observer);
        if answer.is_err() {
            self.clear();
        }
        answer
    }

    /// Provides a context with the longest prefix of the prompt that is cached, in memory or on disk.
    fn prepare_context(
        &mut self,
        prepared: &Prepared<'_>,
        n_needed: usize,
        Usage { timings, counts }: &mut Usage,
    ) -> Result<Vec<EncoderInput>, EngineError> {
        let engine = self.engine;
        let prompt_key = &prepared.prompt.prompt_key;
        let mut n_cached = self.n_reusable(prepared);
        let found = timed(&mut timings.restore, || {
            let prompt_cache = engine.prompt_cache.as_ref()?;
            prompt_cache.find(prompt_key, n_cached, counts)
        });
        let n_expected = found.as_ref().map_or(n_cached, |found| found.n);
        let mut inputs = engine.open_pictures(prepared, n_expected, counts)?;
        let demand = ContextDemand::of(prepared, n_needed, &inputs, n_expected);
        let verified = self.verify_and_make_room(found.as_ref(), demand, n_cached, timings)?;
        if let (Some(found), Some(verified), Some(current), Some(prompt_cache)) =
            (&found, verified, &mut self.current, &engine.prompt_cache)
        {
            let restored = timed(&mut timings.restore, || {
                let decoder = &mut current.decoder;
                prompt_cache.restore(found, verified, decoder, SEQ, prompt_key, counts)
            });
            timings.n_restored = restored.unwrap_or(0);
            n_cached = restored.unwrap_or(n_cached);
            if n_cached < n_expected {
                inputs = engine.open_pictures(prepared, n_cached, counts)?;
                let demand = ContextDemand::of(prepared, n_needed, &inputs, n_cached);
                timed(&mut timings.context, || self.ensure_ready(demand, n_cached))?;
            }
        }
        timings.n_reused = n_cached;
        Ok(inputs)
    }

    /// The length of the prompt's prefix that the KV cache has. The last position is always computed, for its logits.
    fn n_reusable(&self, prepared: &Prepared<'_>) -> usize {
        let prompt_key = &prepared.prompt.prompt_key;
        let n_common =
            |current: &CurrentContext| (current.decoder.prompt_key(SEQ)).common_prefix(prompt_key);
        let n_common = self.current.as_ref().map_or(0, n_common);
        n_common.min(prompt_key.len() - 1)
    }

    /// Prepares the context, and verifies the entry that was found on disk.
    fn verify_and_make_room(
        &mut self,
        found: Option<&CachedPrefix>,
        demand: ContextDemand,
        n_cached: usize,
        timings: &mut Timings,
    ) -> Result<Option<Verified>, EngineError> {
        let Timings {
            context, restore, ..
        } = timings;
        let Some(found) = found.filter(|_| !self.capacity().suffices(demand)) else {
            timed(context, || self.ensure_ready(demand, n_cached))?;
            return Ok(timed(restore, || found.map(CachedPrefix::verify)));
        };
        // Creating a context uses one core: verify the entry on another.
        thread::scope(|scope| {
            let verified = scope.spawn(|| found.verify());
            timed(context, || self.ensure_ready(demand, n_cached))?;
            let verified = timed(restore, || verified.join());
            Ok(Some(verified.expect("no panic")))
        })
    }

    /// Provides a context for `demand`, and Partial-LoRA if it is needed.
    fn ensure_ready(&mut self, demand: ContextDemand, n_cached: usize) -> Result<(), EngineError> {
        self.ensure_capacity(demand, n_cached)?;
        if demand.adapts {
            self.engine.adapter.get()?;
        }
        Ok(())
    }

    /// Provides a context for `demand` that has at least the first `n_cached` positions of the present one, after
    /// checking the memory.
    fn ensure_capacity(
        &mut self,
        demand: ContextDemand,
        n_cached: usize,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        let old = self.capacity();
        if old.suffices(demand) {
            if demand.encodes || demand.adapts {
                let request = demand.memory_request(old.n_ctx, 0);
                let n_freed_cells = request.n_cells(); // the context stays
                engine.check_memory(MemoryRequest {
                    n_freed_cells,
                    ..request
                })?;
            }
            return Ok(()); // nothing to allocate
        }
        let fits = |n_ctx| {
            let request = demand.memory_request(n_ctx, old.n_cells);
            engine.check_memory(request).map(|()| n_ctx)
        };
        let n_ctx = engine
            .context_size_with_spare(demand.n_needed, self.spare)
            .max(old.n_ctx);
        let n_min = demand.n_needed.max(n_cached); // cached positions are copied
        let n_ctx = fits(n_ctx).or_else(|_| fits(n_min))?;
        let capacity = demand.capacity(n_ctx);
        let n_seq = capacity.n_seq.max(old.n_seq);
        self.recreate(ContextCapacity { n_seq, ..capacity }, n_cached)
    }

    fn capacity(&self) -> ContextCapacity {
        let capacity = |current: &CurrentContext| current.capacity;
        self.current.as_ref().map(capacity).unwrap_or_default()
    }

    /// Replaces the context with a new one, and copies the first `n_cached` positions.
    fn recreate(&mut self, capacity: ContextCapacity, n_cached: usize) -> Result<(), EngineError> {
        let old = self.current.take().filter(|_| n_cached > 0);
        let saved = old.map(|CurrentContext { mut decoder, .. }| {
            decoder.truncate(SEQ, n_cached);
            (decoder.save(SEQ), decoder.prompt_key(SEQ).clone())
        }); // frees the old context before the new one is created
        let ContextCapacity { n_cells, n_seq, .. } = capacity;
        let mut decoder = self.engine.decoder(n_cells, N_BATCH, n_seq, n_seq)?;
        if let Some((state, prompt_key)) = saved {
            decoder.restore(SEQ, &state, &prompt_key)?;
        }
        self.current = Some(CurrentContext { decoder, capacity });
        Ok(())
    }

    fn compute(
        &mut self,
        prepared: &Prepared<'_>,
        mut generation: Generation<'_>,
        inputs: Vec<EncoderInput>,
        mut usage: Usage,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        let (request, prompt) = (prepared.request, &prepared.prompt);
        let CurrentContext { decoder, .. } = self.current.as_mut().expect("there is a context");
        decoder.truncate(SEQ, usage.timings.n_reused);
        let flow = self
            .engine
            .prefill(decoder, SEQ, prepared, inputs, &mut usage, observer)?;
        let mut answer = Answer {
            text: String::new(),
            n_prompt: prompt.len(),
            n_image: prompt.sequence.n_image_tokens(),
            ids: Vec::new(),
            stop: StopReason::Interrupted,
            timings: usage.timings,
            cache: usage.counts,
        };
        if flow.is_break() {
            return Ok(answer);
        }
        self.logits.clear();
        self.logits.extend_from_slice(decoder.logits());
        let timings = &mut answer.timings;
        (answer.stop, timings.n_decode) = timed(&mut timings.decode, || match request.beams {
            1 => {
                let stop = generation.run(decoder, SEQ, observer)?;
                Ok::<_, EngineError>((stop, decoder.n_past(SEQ) - prompt.len()))
            }
            _ => generation.search(decoder, request, &prompt.sequence, &self.logits, observer),
        })?;
        timings.first_token = generation.first_token_seconds;
        if let Some(prompt_cache) = &self.engine.prompt_cache {
            let computed = timings.n_reused..prompt.len();
            timed(&mut timings.keep, || {
                prompt_cache.store(decoder, SEQ, SPARE, computed, &mut answer.cache);
            });
        }
        (answer.text, answer.ids) = (generation.text, generation.ids);
        Ok(answer)
    }

    /// The state after the prompt of the last answer.
    ///
    /// # Panics
    /// If there was no answer.
    pub(super) fn into_prompt_state(self, answer: &Answer, request: &Request) -> PromptState {
        let current = self.current.expect("there was an answer");
        PromptState {
            decoder: current.decoder,
            n_prompt: answer.n_prompt,
            n_ctx: current.capacity.n_ctx,
            logits: self.logits,
            plora: request.plora.generated(),
        }
    }
}
