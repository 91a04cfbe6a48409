//! A conversation with a model: what was computed for one request serves the next.

use std::{thread, time::Instant};

use super::{
    AfterPrompt, Answer, Engine, EngineError, Observer, Request, StopReason,
    context_capacity::{ContextCapacity, ContextDemand},
    generation::Generation,
    memory_check::Asked,
    pictures::Ready,
    prepared::{Prepared, Use},
    prompt_cache::{Found, Verified},
    timed,
};
use crate::{engine::metrics::Timings, language::decoder::Decoder};

/// The sequence of the conversation.
const SEQ: usize = 0;

/// A sequence for passing states to the cache on disk.
const SPARE: usize = 1;

/// Room that a session makes beyond what a request needs, so that it need not grow at every turn.
const SPARE_POSITIONS: usize = 512;

/// Requests that share a KV cache. The longest common begin of what is held (prompt, pictures and
/// answer of the last request) and what is asked next is not computed again.
///
/// Any request may follow any other: where they differ, the cache is cut.
pub struct Session<'a> {
    engine: &'a Engine,
    spare: usize,
    open: Option<Open>,
    /// The logits of the last prompt's last position, `[n_vocab]`.
    logits: Vec<f32>,
    /// What was done ahead of the next request, and is told with its answer.
    ahead: Timings,
}

/// A context in use.
struct Open {
    decoder: Decoder,
    room: ContextCapacity,
}

impl Engine {
    /// A session. Its context is made at the first answer, unless [`Session::reserve`] does before, and
    /// grows with later ones.
    pub fn session(&self) -> Session<'_> {
        Session::new(self, SPARE_POSITIONS)
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(engine: &'a Engine, spare: usize) -> Self {
        Self {
            engine,
            spare,
            open: None,
            logits: Vec::new(),
            ahead: Timings {
                load: engine.load_seconds,
                ..Timings::default()
            },
        }
    }

    /// Positions that are held.
    pub fn n_past(&self) -> usize {
        self.open.as_ref().map_or(0, |o| o.decoder.n_past(SEQ))
    }

    /// Positions that there is room for at present; zero before a context is made. Where the options
    /// do not fix it, the context grows up to what the model was made for.
    pub fn n_ctx(&self) -> usize {
        self.room().n_ctx
    }

    /// Forgets everything; the memory is kept.
    pub fn clear(&mut self) {
        if let Some(open) = &mut self.open {
            for seq in 0..open.room.n_seq {
                open.decoder.truncate(seq, 0);
            }
        }
    }

    /// Makes ready for `request` before it is asked, so that the answer begins sooner: where there is no
    /// room for it, a context with room, and where nothing is held, a token computed in that. No picture
    /// is opened, and what is held remains. The seconds are told as [`Timings::context`] of the next answer.
    ///
    /// Any other request may follow; one that needs more room has it made then.
    ///
    /// # Errors
    /// If its beams, its prompt or its length are not possible, or if a context is to be made and there is
    /// no memory for that and for computing all of its pictures. If making it fails all the same, what
    /// was held is forgotten.
    pub fn reserve(&mut self, request: &Request) -> Result<(), EngineError> {
        let begun = Instant::now();
        let engine = self.engine;
        request.check_beams()?;
        let sequence = engine.sequence(request)?;
        let mask = sequence.plora_mask(request.plora);
        let demand = ContextDemand {
            n_needed: engine.context_for(&sequence, request.n_predict)?,
            n_prompt: sequence.len(),
            n_beams: request.beams,
            encodes: !request.images.is_empty(),
            adapts: !mask.set_runs().is_empty(),
        };
        if !self.room().suffices(demand) {
            self.make_room(demand, self.n_past())?;
            self.warm_up()?;
        }
        self.ahead.context += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Computes a token for nothing, in a context that holds nothing: the memory of weights and results
    /// has been touched then.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let id = self.engine.container.info().prompt.bos;
        if let Some(Open { decoder, .. }) = &mut self.open
            && decoder.n_past(SEQ) == 0
        {
            decoder.step(SPARE, id, false)?;
            decoder.truncate(SPARE, 0);
        }
        Ok(())
    }

    /// Answers `request`, as [`Engine::answer`] would: [`Timings::n_reused`](crate::engine::metrics::Timings::n_reused) and
    /// [`Timings::n_images_reused`](crate::engine::metrics::Timings::n_images_reused) tell what was not computed again.
    ///
    /// # Errors
    /// If the request cannot be served; nothing was said then, and what is held remains. If the
    /// model breaks down in the middle, the session forgets and can go on.
    pub fn answer(
        &mut self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        let begun = Instant::now();
        let engine = self.engine;
        let prepared = engine.prepare(request)?;
        let n_needed = engine.context_for(&prepared.prompt.sequence, request.n_predict)?;
        let mut use_of = Use {
            timings: self.ahead,
            ..Use::default()
        };
        let sequence = &prepared.prompt.sequence;
        let generation = Generation::new(engine, request, sequence, n_needed, begun)?;
        let ready = self.begin(&prepared, n_needed, &mut use_of)?;
        self.ahead = Timings::default();
        let answer = self.compute(&prepared, generation, ready, use_of, observer);
        if answer.is_err() {
            self.clear();
        }
        answer
    }

    /// Sees to a context that holds as much of the prompt as is known, here or on disk.
    fn begin(
        &mut self,
        prepared: &Prepared<'_>,
        n_needed: usize,
        Use { timings, counts }: &mut Use,
    ) -> Result<Vec<Ready>, EngineError> {
        let engine = self.engine;
        let prompt_key = &prepared.prompt.prompt_key;
        let mut n_held = self.reusable(prepared);
        let found = timed(&mut timings.restore, || {
            let prompt_cache = engine.prompt_cache.as_ref()?;
            prompt_cache.find(prompt_key, n_held, counts)
        });
        let n_hoped = found.as_ref().map_or(n_held, |found| found.n);
        let mut ready = engine.open_pictures(prepared, n_hoped, counts)?;
        let demand = ContextDemand::of(prepared, n_needed, &ready, n_hoped);
        let verified = self.verify_and_make_room(found.as_ref(), demand, n_held, timings)?;
        if let (Some(found), Some(verified), Some(open), Some(prompt_cache)) =
            (&found, verified, &mut self.open, &engine.prompt_cache)
        {
            let restored = timed(&mut timings.restore, || {
                prompt_cache.restore(found, verified, &mut open.decoder, SEQ, prompt_key, counts)
            });
            timings.n_restored = restored.unwrap_or(0);
            n_held = restored.unwrap_or(n_held);
            if n_held < n_hoped {
                ready = engine.open_pictures(prepared, n_held, counts)?;
                let demand = ContextDemand::of(prepared, n_needed, &ready, n_held);
                timed(&mut timings.context, || self.furnish(demand, n_held))?;
            }
        }
        timings.n_reused = n_held;
        Ok(ready)
    }

    /// How much of what is held is the begin of the prompt. The last position is always computed,
    /// for its logits.
    fn reusable(&self, prepared: &Prepared<'_>) -> usize {
        let prompt_key = &prepared.prompt.prompt_key;
        let same = |open: &Open| open.decoder.held(SEQ).common_prefix(prompt_key);
        self.open.as_ref().map_or(0, same).min(prompt_key.len() - 1)
    }

    /// Sees to room, and to what was found being whole.
    fn verify_and_make_room(
        &mut self,
        found: Option<&Found>,
        demand: ContextDemand,
        n_held: usize,
        timings: &mut Timings,
    ) -> Result<Option<Verified>, EngineError> {
        let Timings {
            context, restore, ..
        } = timings;
        let Some(found) = found.filter(|_| !self.room().suffices(demand)) else {
            timed(context, || self.furnish(demand, n_held))?;
            return Ok(timed(restore, || found.map(Found::verify)));
        };
        // Cores that wait while a context is made read what was found.
        thread::scope(|scope| {
            let verified = scope.spawn(|| found.verify());
            timed(context, || self.furnish(demand, n_held))?;
            let verified = timed(restore, || verified.join());
            Ok(Some(verified.expect("no panic")))
        })
    }

    /// Sees to room, and to Partial-LoRA if it is needed.
    fn furnish(&mut self, demand: ContextDemand, n_held: usize) -> Result<(), EngineError> {
        self.make_room(demand, n_held)?;
        if demand.adapts {
            self.engine.adapter.get()?;
        }
        Ok(())
    }

    /// Sees to a context with room for what is asked, which holds the first `n_held` positions of this
    /// one, and to memory.
    fn make_room(&mut self, demand: ContextDemand, n_held: usize) -> Result<(), EngineError> {
        let engine = self.engine;
        let old = self.room();
        if old.suffices(demand) {
            if demand.encodes || demand.adapts {
                let held = demand.asked(old.n_ctx, 0);
                let n_held = held.n_cells();
                engine.check_memory(Asked { n_held, ..held })?;
            }
            return Ok(()); // nothing is to be allocated
        }
        let fits = |n_ctx| {
            let asked = demand.asked(n_ctx, old.n_cells);
            engine.check_memory(asked).map(|()| n_ctx)
        };
        let n_ctx = engine.roomy(demand.n_needed, self.spare).max(old.n_ctx);
        let n_least = demand.n_needed.max(n_held); // what is held comes along
        let n_ctx = fits(n_ctx).or_else(|_| fits(n_least))?;
        let room = demand.room(n_ctx);
        let n_seq = room.n_seq.max(old.n_seq);
        self.remake(ContextCapacity { n_seq, ..room }, n_held)
    }

    fn room(&self) -> ContextCapacity {
        self.open
            .as_ref()
            .map_or(ContextCapacity::default(), |open| open.room)
    }

    /// Exchanges the context for another, and carries over the first `n_held` positions.
    fn remake(&mut self, room: ContextCapacity, n_held: usize) -> Result<(), EngineError> {
        let carried = self.open.take().filter(|_| n_held > 0).map(|mut open| {
            open.decoder.truncate(SEQ, n_held);
            (open.decoder.save(SEQ), open.decoder.held(SEQ).clone())
        }); // the old context is gone before the new one is made
        let ContextCapacity { n_cells, n_seq, .. } = room;
        let mut decoder = self.engine.decoder(n_cells, super::N_BATCH, n_seq, n_seq)?;
        if let Some((state, prompt_key)) = carried {
            decoder.restore(SEQ, &state, &prompt_key)?;
        }
        self.open = Some(Open { decoder, room });
        Ok(())
    }

    fn compute(
        &mut self,
        prepared: &Prepared<'_>,
        mut generation: Generation<'_>,
        ready: Vec<Ready>,
        mut use_of: Use,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        let (request, prompt) = (prepared.request, &prepared.prompt);
        let Open { decoder, .. } = self.open.as_mut().expect("there is room");
        decoder.truncate(SEQ, use_of.timings.n_reused);
        let flow = self
            .engine
            .prefill(decoder, SEQ, prepared, ready, &mut use_of, observer)?;
        let mut answer = Answer {
            text: String::new(),
            n_prompt: prompt.len(),
            n_image: prompt.sequence.n_image_tokens(),
            ids: Vec::new(),
            stop: StopReason::Interrupted,
            timings: use_of.timings,
            cache: use_of.counts,
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
        timings.first_token = generation.first_token;
        if let Some(prompt_cache) = &self.engine.prompt_cache {
            let (n_known, n_prompt) = (timings.n_reused, prompt.len());
            timed(&mut timings.keep, || {
                prompt_cache.keep(decoder, SEQ, SPARE, n_known..n_prompt, &mut answer.cache);
            });
        }
        (answer.text, answer.ids) = (generation.text, generation.ids);
        Ok(answer)
    }

    /// The place after the prompt of the last answer.
    ///
    /// # Panics
    /// If there was no answer.
    pub(super) fn into_after_prompt(self, answer: &Answer, request: &Request) -> AfterPrompt {
        let open = self.open.expect("there was an answer");
        AfterPrompt {
            decoder: open.decoder,
            n_prompt: answer.n_prompt,
            n_ctx: open.room.n_ctx,
            logits: self.logits,
            plora: request.plora.generated(),
        }
    }
}
