//! Several requests in one context.
//!
//! Decoding reads all weights for a token, whether one sequence takes it or eight, so the tokens of
//! all running answers are computed in one batch. Prompts are prefilled one after another, because
//! the adapter is on for all of a batch or for none of it; what a prompt has in common with any
//! sequence that is there (the system turn, at least) is shared and not computed. A sequence that is
//! done makes place at once.

use std::{ops::ControlFlow, time::Instant};

use super::{
    Answer, Engine, EngineError, N_BATCH, Request,
    generation::Generation,
    memory_check::Asked,
    prepared::{Prepared, Use},
    slot::Slot,
    timed,
};
use crate::{
    language::decoder::{Decoder, Next},
    system::panics::{Panic, caught},
};

/// What a source of requests says when it is asked for the next.
#[derive(Debug)]
pub enum Offer {
    /// Here it is.
    Request(Box<Request>),
    /// There may be more later.
    NotYet,
    /// That was all.
    End,
}

/// A source of requests. Every iterator is one.
pub trait Requests {
    /// The next request. If `idle`, nothing else is to be done and the source may wait; if not, it
    /// should say [`Offer::NotYet`] rather than hold up the answers that are running.
    fn next_request(&mut self, idle: bool) -> Offer;
}

impl<I: Iterator<Item = Request>> Requests for I {
    fn next_request(&mut self, _idle: bool) -> Offer {
        self.next()
            .map_or(Offer::End, |request| Offer::Request(Box::new(request)))
    }
}

/// Room of each sequence beyond what the first request needs, for requests that differ a little.
const SPARE_POSITIONS: usize = 64;

impl Engine {
    /// Answers `requests`, up to `n_parallel` of them at a time. `on_answer` is told the number of
    /// the request, from zero, in the order in which they are done, and ends everything with
    /// `Break`. A request that fails gives its error there and does not stop the others.
    ///
    /// # Errors
    /// If there is no memory for the context, or the decoder breaks down.
    ///
    /// # Panics
    /// If `n_parallel` is zero.
    pub fn answer_many(
        &self,
        n_parallel: usize,
        mut requests: impl Requests,
        mut on_answer: impl FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let mut many = BatchScheduler::new(self, n_parallel);
        let mut waiting = None;
        let mut n_seen = 0;
        loop {
            while many.has_free_slot() {
                let idle = many.is_idle();
                let request = match waiting.take() {
                    Some(request) => request,
                    None => match requests.next_request(idle) {
                        Offer::Request(request) => request,
                        Offer::End if idle => return Ok(()),
                        Offer::NotYet if idle => continue,
                        Offer::NotYet | Offer::End => break,
                    },
                };
                let begun = match caught(|| many.begin(n_seen, &request)) {
                    Ok(begun) => begun?,
                    Err(panic) => many.drop_what_was_begun(panic),
                };
                match begun {
                    Begun::Running => n_seen += 1,
                    Begun::NoRoomYet => {
                        waiting = Some(request);
                        break;
                    }
                    Begun::Done(result) => {
                        n_seen += 1;
                        if on_answer(n_seen - 1, *result).is_break() {
                            return Ok(());
                        }
                    }
                }
            }
            let done = match caught(|| many.step()) {
                Ok(done) => done?,
                Err(panic) => many.drop_all(&panic),
            };
            for (index, result) in done {
                if on_answer(index, result).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// The number of a request, and what came of it.
type Done = (usize, Result<Answer, EngineError>);

/// What became of a request.
enum Begun {
    Running,
    /// Others have to end first.
    NoRoomYet,
    Done(Box<Result<Answer, EngineError>>),
}

/// The sequences of one context, each running or left from an answer that is done.
struct BatchScheduler<'a> {
    engine: &'a Engine,
    decoder: Option<Decoder>,
    /// Positions of the context.
    n_cells: usize,
    /// What runs in each sequence.
    slots: Vec<Option<Slot<'a>>>,
}

impl<'a> BatchScheduler<'a> {
    fn new(engine: &'a Engine, n_parallel: usize) -> Self {
        assert!(n_parallel > 0, "at least one request at a time");
        Self {
            engine,
            decoder: None,
            n_cells: 0,
            slots: (0..n_parallel).map(|_| None).collect(),
        }
    }

    fn has_free_slot(&self) -> bool {
        self.slots.iter().any(Option::is_none)
    }

    fn is_idle(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Prefills a request and takes its first token. Errors of the request are in [`Begun::Done`].
    fn begin(&mut self, index: usize, request: &Request) -> Result<Begun, EngineError> {
        let begun = Instant::now();
        let engine = self.engine;
        let prepared = engine.prepare(request).and_then(|prepared| {
            let sequence = &prepared.prompt.sequence;
            if request.beams > 1 {
                let found = "several requests".to_owned();
                return Err(EngineError::Beams { found });
            }
            let n_needed = engine.context_for(sequence, request.n_predict)?;
            let generation = Generation::new(engine, request, sequence, n_needed, begun)?;
            Ok((prepared, generation, n_needed))
        });
        let (prepared, generation, n_needed) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Begun::Done(Box::new(Err(error)))),
        };
        let mut use_of = Use::default();
        if self.decoder.is_none() {
            use_of.timings.load = engine.load_seconds;
        }
        if !timed(&mut use_of.timings.context, || {
            self.make_room(n_needed, &prepared)
        })? {
            return Ok(Begun::NoRoomYet);
        }
        let seq = match self.compute(&prepared, n_needed, &mut use_of)? {
            Ok(seq) => seq,
            Err(error) => return Ok(Begun::Done(Box::new(Err(error)))),
        };
        let mut slot = Slot::new(index, &prepared, generation, n_needed, use_of);
        let logits = self.decoder.as_mut().expect("made").logits();
        match slot.take(logits) {
            None => {
                self.slots[seq] = Some(slot);
                Ok(Begun::Running)
            }
            Some(result) => Ok(Begun::Done(Box::new(result))),
        }
    }

    /// After a panic in [`Self::begin`]: nobody knows what is in the sequences that do not run.
    fn drop_what_was_begun(&mut self, panic: Panic) -> Begun {
        if let Some(decoder) = &mut self.decoder {
            let slots = self.slots.iter().enumerate();
            for (seq, _) in slots.filter(|(_, slot)| slot.is_none()) {
                decoder.truncate(seq, 0);
            }
        }
        Begun::Done(Box::new(Err(panic.into())))
    }

    /// After a panic in [`Self::step`], which is work on all running answers.
    fn drop_all(&mut self, panic: &Panic) -> Vec<Done> {
        self.decoder = None;
        self.n_cells = 0;
        let slots = self.slots.iter_mut().filter_map(Option::take);
        slots
            .map(|slot| (slot.index, Err(panic.clone().into())))
            .collect()
    }

    /// Sees to `n_needed` free positions; false if running answers have to end first.
    fn make_room(&mut self, n_needed: usize, prepared: &Prepared<'_>) -> Result<bool, EngineError> {
        let reserved: usize = self.slots.iter().flatten().map(|slot| slot.n_ctx).sum();
        if reserved + n_needed <= self.n_cells {
            return Ok(true);
        }
        if !self.is_idle() {
            return Ok(false);
        }
        let n_parallel = self.slots.len();
        let n_seq = n_parallel + usize::from(self.engine.prompt_cache.is_some());
        let max = self.engine.container.info().max_context();
        let pictures = !prepared.pictures.is_empty();
        let fits = |n_ctx| {
            self.engine.check_memory(Asked {
                n_ctx,
                n_ctx_least: n_parallel * (prepared.prompt.len() + 1),
                n_seq: n_parallel,
                n_beams: 1,
                n_answer: 0,
                encodes: pictures,
                adapts: pictures,
                n_held: self.n_cells,
            })
        };
        let roomy = n_parallel * (n_needed + SPARE_POSITIONS).min(max);
        let n_cells = match fits(roomy) {
            Ok(()) => roomy,
            Err(_) => fits(n_parallel * n_needed).map(|()| n_parallel * n_needed)?,
        };
        self.decoder = None; // the old context is gone before the new one is made
        self.n_cells = 0;
        self.decoder = Some(self.engine.decoder(n_cells, N_BATCH, n_parallel, n_seq)?);
        self.n_cells = n_cells;
        let kept = self.engine.kept_embeddings(n_cells);
        self.engine.embeddings.limit(kept);
        Ok(true)
    }

    /// The free sequence that the prompt shall go to, holding already what could be shared: how much
    /// that is.
    fn place(&mut self, prepared: &Prepared<'_>, n_needed: usize) -> (usize, usize) {
        let decoder = self.decoder.as_mut().expect("there is room");
        let prompt_key = &prepared.prompt.prompt_key;
        let n_same = |seq: usize| {
            decoder
                .held(seq)
                .common_prefix(prompt_key)
                .min(prompt_key.len() - 1)
        };
        let all = 0..self.slots.len();
        let source = all.clone().max_by_key(|seq| n_same(*seq)).expect("a slot");
        let n_shared = n_same(source);
        // What is left from earlier answers may be asked about again: take what loses least.
        let n_lost = |seq: usize| decoder.n_past(seq) - if seq == source { n_shared } else { 0 };
        let free = all.filter(|seq| self.slots[*seq].is_none());
        let seq = free.min_by_key(|seq| n_lost(*seq)).expect("a free slot");
        if seq == source {
            decoder.truncate(seq, n_shared);
        } else {
            decoder.share(source, seq, n_shared);
        }
        self.free_cells(seq, n_needed);
        (seq, n_shared)
    }

    /// Drops what is left from earlier answers if sequence `seq` may need its place.
    fn free_cells(&mut self, seq: usize, n_needed: usize) {
        let decoder = self.decoder.as_mut().expect("there is room");
        let mut n_taken = n_needed;
        for (i, slot) in self.slots.iter().enumerate().filter(|(i, _)| *i != seq) {
            n_taken += slot.as_ref().map_or(decoder.n_past(i), |slot| slot.n_ctx);
        }
        for i in 0..self.slots.len() {
            if n_taken > self.n_cells && i != seq && self.slots[i].is_none() {
                n_taken -= decoder.n_past(i);
                decoder.truncate(i, 0);
            }
        }
    }

    /// Computes a prompt in a free sequence, and says which. The inner error is the request's own.
    fn compute(
        &mut self,
        prepared: &Prepared<'_>,
        n_needed: usize,
        use_of: &mut Use,
    ) -> Result<Result<usize, EngineError>, EngineError> {
        let engine = self.engine;
        let (seq, n_shared) = self.place(prepared, n_needed);
        let decoder = self.decoder.as_mut().expect("there is room");
        let Use { timings, counts } = use_of;
        timings.n_reused = n_shared;
        if let Some(prompt_cache) = &engine.prompt_cache {
            timed(&mut timings.restore, || {
                let prompt_key = &prepared.prompt.prompt_key;
                if let Some(found) = prompt_cache.find(prompt_key, n_shared, counts)
                    && let Some(n) = prompt_cache.restore(
                        &found,
                        found.verify(),
                        decoder,
                        seq,
                        prompt_key,
                        counts,
                    )
                {
                    (timings.n_restored, timings.n_reused) = (n, n);
                }
            });
        }
        let ready = match engine.open_pictures(prepared, timings.n_reused, counts) {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        // Nobody interrupts here.
        let _ = engine.prefill(decoder, seq, prepared, ready, use_of, &mut ())?;
        if let Some(prompt_cache) = &engine.prompt_cache {
            let spare = self.slots.len();
            let computed = use_of.timings.n_reused..prepared.prompt.len();
            timed(&mut use_of.timings.keep, || {
                prompt_cache.keep(decoder, seq, spare, computed, &mut use_of.counts);
            });
        }
        Ok(Ok(seq))
    }

    /// Decodes a token of every running answer, and returns those that are done with it.
    fn step(&mut self) -> Result<Vec<Done>, EngineError> {
        let mut done = Vec::new();
        for plora in [false, true] {
            let nexts = self.nexts(plora);
            if nexts.is_empty() {
                continue;
            }
            let decoder = self.decoder.as_mut().expect("answers are running");
            let mut seconds = 0.0;
            timed(&mut seconds, || decoder.step_all(&nexts, plora))?;
            for (i, next) in nexts.iter().enumerate() {
                let slot = self.slots[next.seq].as_mut().expect("it is running");
                slot.timings.decode += seconds / nexts.len() as f64;
                slot.timings.n_decode += 1;
                if let Some(result) = slot.take(decoder.logits_of(i)) {
                    done.push((slot.index, result));
                    self.slots[next.seq] = None;
                }
            }
        }
        Ok(done)
    }

    /// The tokens that running answers go on with, of one mask bit.
    fn nexts(&self, plora: bool) -> Vec<Next> {
        let slots = self.slots.iter().enumerate();
        let running = slots.filter_map(|(seq, slot)| Some((seq, slot.as_ref()?)));
        let same_bit = running.filter(|(_, slot)| slot.plora == plora);
        same_bit
            .map(|(seq, slot)| Next { seq, id: slot.id })
            .collect()
    }
}
