//! A conversation with a model: what was computed for one request serves the next.

use std::{
    thread::{self, ScopedJoinHandle},
    time::Instant,
};

use super::{
    AfterPrompt, Answer, Engine, EngineError, Observer, Request, StopReason, beams,
    fits::Asked,
    generation::Generation,
    pictures::Ready,
    prepared::{Prepared, Use},
    timed,
};
use crate::decoder::Decoder;

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
}

/// A context in use.
struct Open {
    decoder: Decoder,
    /// The most positions of a sequence.
    n_ctx: usize,
    room: Room,
}

/// What a context has to have.
#[derive(Clone, Copy, Default)]
struct Room {
    /// Positions of all sequences, what they share counted once.
    n_cells: usize,
    n_seq: usize,
}

impl Room {
    fn suffices(self, needed: Self) -> bool {
        self.n_cells >= needed.n_cells && self.n_seq >= needed.n_seq
    }
}

impl Engine {
    /// A session. Its context is made at the first answer and grows with later ones.
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
        }
    }

    /// Positions that are held.
    pub fn n_past(&self) -> usize {
        self.open.as_ref().map_or(0, |o| o.decoder.n_past(SEQ))
    }

    /// Positions that there is room for at present; zero before the first answer. Where the options
    /// do not fix it, the context grows up to what the model was made for.
    pub fn n_ctx(&self) -> usize {
        self.open.as_ref().map_or(0, |o| o.n_ctx)
    }

    /// Forgets everything; the memory is kept.
    pub fn clear(&mut self) {
        if let Some(open) = &mut self.open {
            for seq in 0..open.room.n_seq {
                open.decoder.truncate(seq, 0);
            }
        }
    }

    /// Answers `request`, as [`Engine::answer`] would: [`Timings::n_reused`](crate::metrics::Timings::n_reused) and
    /// [`Timings::n_images_reused`](crate::metrics::Timings::n_images_reused) tell what was not computed again.
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
        let mut use_of = Use::default();
        if self.open.is_none() {
            use_of.timings.load = engine.load_seconds;
        }
        let sequence = &prepared.prompt.sequence;
        let generation = Generation::new(engine, request, sequence, n_needed, begun)?;
        let ready = self.begin(&prepared, n_needed, &mut use_of)?;
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
        let trace = &prepared.prompt.trace;
        let mut n_held = self.reusable(prepared);
        let found = timed(&mut timings.restore, || {
            let remembered = engine.remembered.as_ref()?;
            remembered.find(trace, n_held, counts)
        });
        let n_hoped = found.as_ref().map_or(n_held, |found| found.n);
        let mut ready = engine.open_pictures(prepared, n_hoped, counts)?;
        // Cores that wait while a context is made read what was found.
        let verified = thread::scope(|scope| {
            let verified = found.as_ref().map(|found| scope.spawn(|| found.verify()));
            timed(&mut timings.context, || {
                self.make_room(n_needed, prepared, &ready, n_held, n_hoped)
            })?;
            let verified = timed(&mut timings.restore, || {
                verified.map(ScopedJoinHandle::join)
            });
            Ok::<_, EngineError>(verified.map(|v| v.expect("no panic")))
        })?;
        if let (Some(found), Some(verified), Some(open), Some(remembered)) =
            (&found, verified, &mut self.open, &engine.remembered)
        {
            let restored = timed(&mut timings.restore, || {
                remembered.restore(found, verified, &mut open.decoder, SEQ, trace, counts)
            });
            timings.n_restored = restored.unwrap_or(0);
            n_held = restored.unwrap_or(n_held);
            if n_held < n_hoped {
                ready = engine.open_pictures(prepared, n_held, counts)?;
                timed(&mut timings.context, || {
                    self.make_room(n_needed, prepared, &ready, n_held, n_held)
                })?;
            }
        }
        timings.n_reused = n_held;
        Ok(ready)
    }

    /// How much of what is held is the begin of the prompt. The last position is always computed,
    /// for its logits.
    fn reusable(&self, prepared: &Prepared<'_>) -> usize {
        let trace = &prepared.prompt.trace;
        let same = |open: &Open| open.decoder.held(SEQ).common_prefix(trace);
        self.open.as_ref().map_or(0, same).min(trace.len() - 1)
    }

    /// Sees to a context of at least `n_needed` positions that holds `n_held` of the prompt, and to
    /// memory for computing it from `n_hoped` on.
    fn make_room(
        &mut self,
        n_needed: usize,
        prepared: &Prepared<'_>,
        ready: &[Ready],
        n_held: usize,
        n_hoped: usize,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        let encodes = ready.iter().any(|r| matches!(r, Ready::ToEncode(_)));
        let adapts = prepared.prompt.plora_from(n_hoped);
        let room = self.open.as_ref().map_or(Room::default(), |open| open.room);
        let n_beams = prepared.request.beams;
        let n_prompt = prepared.prompt.len();
        let n_seq = beams::n_seq(n_beams).max(room.n_seq);
        let asked = |n_ctx| Asked {
            n_ctx,
            n_ctx_least: n_prompt + 1,
            n_seq: 1,
            n_beams,
            n_answer: n_needed - n_prompt,
            encodes,
            adapts,
            n_held: room.n_cells,
        };
        let fits = |n_ctx| engine.check_memory(asked(n_ctx)).map(|()| n_ctx);
        let n_cells = asked(n_needed).n_cells();
        if self.n_ctx() < n_needed || !room.suffices(Room { n_cells, n_seq }) {
            let n_ctx = engine.roomy(n_needed, self.spare).max(self.n_ctx());
            let n_ctx = fits(n_ctx).or_else(|_| fits(n_needed))?;
            let n_cells = asked(n_ctx).n_cells();
            self.remake(n_ctx, Room { n_cells, n_seq }, n_held)?;
        } else {
            let held = asked(self.n_ctx());
            engine.check_memory(Asked {
                n_held: held.n_cells(),
                ..held
            })?;
        }
        if adapts {
            engine.adapter.get()?;
        }
        Ok(())
    }

    /// Exchanges the context for another, and carries over the first `n_held` positions.
    fn remake(&mut self, n_ctx: usize, room: Room, n_held: usize) -> Result<(), EngineError> {
        let carried = self.open.take().filter(|_| n_held > 0).map(|mut open| {
            open.decoder.truncate(SEQ, n_held);
            (open.decoder.save(SEQ), open.decoder.held(SEQ).clone())
        }); // the old context is gone before the new one is made
        let Room { n_cells, n_seq } = room;
        let mut decoder = self.engine.decoder(n_cells, super::N_BATCH, n_seq, n_seq)?;
        if let Some((state, trace)) = carried {
            decoder.restore(SEQ, &state, &trace)?;
        }
        self.open = Some(Open {
            decoder,
            n_ctx,
            room,
        });
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
        if let Some(remembered) = &self.engine.remembered {
            let (n_known, n_prompt) = (timings.n_reused, prompt.len());
            timed(&mut timings.keep, || {
                remembered.keep(decoder, SEQ, SPARE, n_known..n_prompt, &mut answer.cache);
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
            n_ctx: open.n_ctx,
            logits: self.logits,
            plora: request.plora.generated(),
        }
    }
}
