//! Continuous batching: several requests in one context.
//!
//! A decoding step reads all weights once, for one sequence or for eight, so the next tokens of all running answers
//! are computed in one batch. Prompts are prefilled one after another, because the adapter is on or off for a whole
//! batch. A prefix that a prompt has in common with any sequence in the context (at least the system turn) is
//! shared, not computed again. A finished sequence frees its slot at once.

use std::{ops::ControlFlow, time::Instant};

use super::{
    Answer, Engine, EngineError, N_BATCH, Request,
    generation::Generation,
    memory_check::MemoryRequest,
    prepared::{Prepared, Usage},
    slot::Slot,
    timed,
};
use crate::{
    language::decoder::{Decoder, Next},
    system::panics::{Panic, catch},
};

/// What a source of requests has next.
#[derive(Debug)]
pub enum Offer {
    /// A request.
    Request(Box<Request>),
    /// None at the moment; more may come.
    NotYet,
    /// No more requests.
    End,
}

/// A source of requests. Every iterator is one.
pub trait Requests {
    /// The next request. If `idle`, no answer is running and the source may block; otherwise it should return
    /// [`Offer::NotYet`] rather than delay the running answers.
    fn next_request(&mut self, idle: bool) -> Offer;
}

impl<I: Iterator<Item = Request>> Requests for I {
    fn next_request(&mut self, _idle: bool) -> Offer {
        self.next()
            .map_or(Offer::End, |request| Offer::Request(Box::new(request)))
    }
}

/// Positions of each sequence beyond what the first request needs, for later requests that are a little longer.
const SPARE_POSITIONS: usize = 64;

impl Engine {
    /// Answers `requests`, up to `n_parallel` at a time. `on_answer` receives each request's index, from zero, and
    /// its result, in the order in which they finish; `Break` ends the run. A request that fails does not stop the
    /// others.
    ///
    /// # Errors
    /// If there is no memory for the context, or the decoder fails.
    ///
    /// # Panics
    /// If `n_parallel` is zero.
    pub fn answer_many(
        &self,
        n_parallel: usize,
        mut requests: impl Requests,
        mut on_answer: impl FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let mut scheduler = BatchScheduler::new(self, n_parallel);
        let mut deferred = None;
        let mut n_requests = 0;
        loop {
            while scheduler.has_free_slot() {
                let idle = scheduler.is_idle();
                let request = match deferred.take() {
                    Some(request) => request,
                    None => match requests.next_request(idle) {
                        Offer::Request(request) => request,
                        Offer::End if idle => return Ok(()),
                        Offer::NotYet if idle => continue,
                        Offer::NotYet | Offer::End => break,
                    },
                };
                let admission = match catch(|| scheduler.admit(n_requests, &request)) {
                    Ok(admission) => admission?,
                    Err(panic) => scheduler.recover_from_panic(panic),
                };
                match admission {
                    Admission::Running => n_requests += 1,
                    Admission::Deferred => {
                        deferred = Some(request);
                        break;
                    }
                    Admission::Finished(result) => {
                        n_requests += 1;
                        if on_answer(n_requests - 1, *result).is_break() {
                            return Ok(());
                        }
                    }
                }
            }
            let finished = match catch(|| scheduler.step()) {
                Ok(finished) => finished?,
                Err(panic) => scheduler.fail_all(&panic),
            };
            for (index, result) in finished {
                if on_answer(index, result).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// The index of a request and its result.
type Finished = (usize, Result<Answer, EngineError>);

/// Whether a request was admitted.
enum Admission {
    Running,
    /// There is no room before other answers finish.
    Deferred,
    /// It finished with its first token, or failed.
    Finished(Box<Result<Answer, EngineError>>),
}

/// The sequences of one context. A free one keeps the positions of its last answer for reuse.
struct BatchScheduler<'a> {
    engine: &'a Engine,
    decoder: Option<Decoder>,
    /// Cells of the KV cache.
    n_cells: usize,
    /// The answer that runs in each sequence.
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

    /// Prefills a request and samples its first token. The request's own errors are in [`Admission::Finished`].
    fn admit(&mut self, index: usize, request: &Request) -> Result<Admission, EngineError> {
        let start = Instant::now();
        let engine = self.engine;
        let prepared = engine.prepare(request).and_then(|prepared| {
            let sequence = &prepared.prompt.sequence;
            if request.beams > 1 {
                let found = "several requests".to_owned();
                return Err(EngineError::Beams { found });
            }
            let n_needed = engine.context_size(sequence, request.n_predict)?;
            let generation = Generation::new(engine, request, sequence, n_needed, start)?;
            Ok((prepared, generation, n_needed))
        });
        let (prepared, generation, n_needed) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Admission::Finished(Box::new(Err(error)))),
        };
        let mut usage = Usage::default();
        if self.decoder.is_none() {
            usage.timings.load = engine.load_seconds;
        }
        if !timed(&mut usage.timings.context, || {
            self.ensure_capacity(n_needed, &prepared)
        })? {
            return Ok(Admission::Deferred);
        }
        let seq = match self.prefill(&prepared, n_needed, &mut usage)? {
            Ok(seq) => seq,
            Err(error) => return Ok(Admission::Finished(Box::new(Err(error)))),
        };
        let mut slot = Slot::new(index, &prepared, generation, n_needed, usage);
        let logits = self.decoder.as_mut().expect("it was created").logits();
        match slot.next_token(logits) {
            None => {
                self.slots[seq] = Some(slot);
                Ok(Admission::Running)
            }
            Some(result) => Ok(Admission::Finished(Box::new(result))),
        }
    }

    /// Clears the free sequences after a panic in [`Self::admit`], which leaves their contents undefined.
    fn recover_from_panic(&mut self, panic: Panic) -> Admission {
        if let Some(decoder) = &mut self.decoder {
            let slots = self.slots.iter().enumerate();
            for (seq, _) in slots.filter(|(_, slot)| slot.is_none()) {
                decoder.truncate(seq, 0);
            }
        }
        Admission::Finished(Box::new(Err(panic.into())))
    }

    /// Fails all running answers after a panic in [`Self::step`], which computes them together.
    fn fail_all(&mut self, panic: &Panic) -> Vec<Finished> {
        self.decoder = None;
        self.n_cells = 0;
        let slots = self.slots.iter_mut().filter_map(Option::take);
        slots
            .map(|slot| (slot.index, Err(panic.clone().into())))
            .collect()
    }

    /// Provides `n_needed` free positions; false if running answers have to finish first.
    fn ensure_capacity(
        &mut self,
        n_needed: usize,
        prepared: &Prepared<'_>,
    ) -> Result<bool, EngineError> {
        let reserved: usize = self.slots.iter().flatten().map(|slot| slot.n_ctx).sum();
        if reserved + n_needed <= self.n_cells {
            return Ok(true);
        }
        if !self.is_idle() {
            return Ok(false);
        }
        let n_parallel = self.slots.len();
        let n_seq = n_parallel + usize::from(self.engine.prompt_cache.is_some());
        let max = self.engine.max_context();
        let pictures = !prepared.pictures.is_empty();
        let fits = |n_ctx| {
            self.engine.check_memory(MemoryRequest {
                n_ctx,
                n_ctx_min: n_parallel * (prepared.prompt.len() + 1),
                n_seq: n_parallel,
                n_beams: 1,
                n_answer: 0,
                encodes: pictures,
                adapts: pictures,
                n_freed_cells: self.n_cells,
            })
        };
        let with_spare = n_parallel * (n_needed + SPARE_POSITIONS).min(max);
        let n_cells = match fits(with_spare) {
            Ok(()) => with_spare,
            Err(_) => fits(n_parallel * n_needed).map(|()| n_parallel * n_needed)?,
        };
        self.decoder = None; // free the old context before the new one is created
        self.n_cells = 0;
        self.decoder = Some(self.engine.decoder(n_cells, N_BATCH, n_parallel, n_seq)?);
        self.n_cells = n_cells;
        let max_bytes = self.engine.embedding_cache_bytes(n_cells);
        self.engine.embeddings.limit(max_bytes);
        Ok(true)
    }

    /// Chooses a free sequence for the prompt and fills it with the longest prefix that another one has in common.
    /// Returns the sequence and the prefix length.
    fn choose_sequence(&mut self, prepared: &Prepared<'_>, n_needed: usize) -> (usize, usize) {
        let decoder = self.decoder.as_mut().expect("there is a context");
        let prompt_key = &prepared.prompt.prompt_key;
        let n_common = |seq: usize| {
            decoder
                .prompt_key(seq)
                .common_prefix(prompt_key)
                .min(prompt_key.len() - 1)
        };
        let all = 0..self.slots.len();
        let source = all
            .clone()
            .max_by_key(|seq| n_common(*seq))
            .expect("a slot");
        let n_shared = n_common(source);
        // Later requests may reuse earlier answers: choose the sequence that loses the fewest positions.
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

    /// Clears sequences of earlier answers until sequence `seq` has cells for `n_needed` positions.
    fn free_cells(&mut self, seq: usize, n_needed: usize) {
        let decoder = self.decoder.as_mut().expect("there is a context");
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

    /// Computes a prompt in a free sequence and returns that. The inner error is the request's own.
    fn prefill(
        &mut self,
        prepared: &Prepared<'_>,
        n_needed: usize,
        usage: &mut Usage,
    ) -> Result<Result<usize, EngineError>, EngineError> {
        let engine = self.engine;
        let (seq, n_shared) = self.choose_sequence(prepared, n_needed);
        let decoder = self.decoder.as_mut().expect("there is a context");
        let Usage { timings, counts } = usage;
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
        let inputs = match engine.open_pictures(prepared, timings.n_reused, counts) {
            Ok(inputs) => inputs,
            Err(error) => return Ok(Err(error)),
        };
        // The observer `()` never interrupts.
        let _ = engine.prefill(decoder, seq, prepared, inputs, usage, &mut ())?;
        if let Some(prompt_cache) = &engine.prompt_cache {
            let spare = self.slots.len();
            let computed = usage.timings.n_reused..prepared.prompt.len();
            timed(&mut usage.timings.keep, || {
                prompt_cache.store(decoder, seq, spare, computed, &mut usage.counts);
            });
        }
        Ok(Ok(seq))
    }

    /// Decodes one token of every running answer and returns the answers that finish.
    fn step(&mut self) -> Result<Vec<Finished>, EngineError> {
        let mut finished = Vec::new();
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
                if let Some(result) = slot.next_token(decoder.logits_of(i)) {
                    finished.push((slot.index, result));
                    self.slots[next.seq] = None;
                }
            }
        }
        Ok(finished)
    }

    /// The tokens to decode next, of the running answers with this mask bit.
    fn nexts(&self, plora: bool) -> Vec<Next> {
        let slots = self.slots.iter().enumerate();
        let running = slots.filter_map(|(seq, slot)| Some((seq, slot.as_ref()?)));
        let same_bit = running.filter(|(_, slot)| slot.plora == plora);
        same_bit
            .map(|(seq, slot)| Next { seq, id: slot.id })
            .collect()
    }
}
