//! The generation of an answer: sample, emit, decode.

use std::{ops::ControlFlow, time::Instant};

use super::{Engine, EngineError, Observer, Request, StopReason};
use crate::language::{
    decoder::{Decoder, TextStream},
    grammar::Grammar,
    llama::{Constraint, Sampler},
    prompt::{Run, Sequence},
};

/// An answer that is being generated.
pub(super) struct Generation<'a> {
    pub(super) engine: &'a Engine,
    n_predict: usize,
    plora: bool,
    sampler: Sampler,
    stream: TextStream,
    /// The maximum number of positions of prompt and answer.
    pub(super) n_ctx: usize,
    pub(super) ids: Vec<i32>,
    pub(super) text: String,
    /// When the engine received the request.
    start: Instant,
    /// Seconds from then to the first token, which may be the stop token of an empty answer.
    pub(super) first_token_seconds: Option<f64>,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        request: &Request,
        sequence: &Sequence,
        n_ctx: usize,
        start: Instant,
    ) -> Result<Self, EngineError> {
        let prompt = &engine.container.info().prompt;
        let stops = [prompt.eos, prompt.turn_end];
        let constrain =
            |grammar: &Grammar| Constraint::new(grammar.as_gbnf(), &engine.tokenizer, &stops);
        let constraint = request.grammar.as_ref().map(constrain).transpose()?;
        let n_vocab = engine.tokenizer.n_vocab();
        let sampler = Sampler::new(request.sampling, n_vocab, n_ctx);
        let sampler = sampler.with_constraint(constraint);
        let mut sampler = sampler.without(engine.tokenizer.unused());
        if sequence.n_image_tokens() == 0 {
            // As in the original: without pictures its repetition penalty counts the prompt's ids as well; with
            // pictures it generates from embeddings and counts generated ids only.
            for run in sequence.runs() {
                if let Run::Tokens(ids) = run {
                    ids.iter().for_each(|id| sampler.count(*id));
                }
            }
        }
        Ok(Self {
            engine,
            n_predict: request.n_predict,
            plora: request.plora.generated(),
            sampler,
            stream: TextStream::default(),
            n_ctx,
            ids: Vec::new(),
            text: String::new(),
            start,
            first_token_seconds: None,
        })
    }

    /// Samples and decodes until the answer ends.
    pub(super) fn run(
        &mut self,
        decoder: &mut Decoder,
        seq: usize,
        observer: &mut dyn Observer,
    ) -> Result<StopReason, EngineError> {
        loop {
            let is_full = decoder.n_past(seq) == self.n_ctx;
            match self.next(decoder.logits(), is_full, observer)? {
                ControlFlow::Continue(id) => {
                    decoder.step(seq, id, self.plora)?;
                }
                ControlFlow::Break(stop) => return Ok(stop),
            }
        }
    }

    /// Samples a token from `logits`. `Continue` holds the token to decode; `is_full` says that the context has no
    /// room for it.
    pub(super) fn next(
        &mut self,
        logits: &[f32],
        is_full: bool,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<StopReason, i32>, EngineError> {
        let flow = self.sample(logits, is_full, observer)?;
        if flow.is_break() {
            let rest = self.stream.finish();
            let _ = self.emit(&rest, observer); // the answer ends here anyway
        }
        Ok(flow)
    }

    fn sample(
        &mut self,
        logits: &[f32],
        is_full: bool,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<StopReason, i32>, EngineError> {
        let stop = |reason| Ok(ControlFlow::Break(reason));
        let prompt = &self.engine.container.info().prompt;
        if self.n_predict == 0 {
            return stop(StopReason::Length);
        }
        if !logits.iter().all(|l| l.is_finite()) {
            return Err(EngineError::NotFinite);
        }
        let id = self.sampler.sample(logits);
        self.note_first_token();
        if id == prompt.eos || id == prompt.turn_end {
            return stop(StopReason::Stop);
        }
        self.sampler.accept(id);
        self.ids.push(id);
        let text = self.stream.push(&self.engine.tokenizer.piece(id));
        if self.emit(&text, observer).is_break() {
            return stop(StopReason::Interrupted);
        }
        if is_full {
            return stop(StopReason::Context);
        }
        if self.ids.len() == self.n_predict {
            return stop(StopReason::Length);
        }
        Ok(ControlFlow::Continue(id))
    }

    /// Takes over a complete answer, found by beam search.
    pub(super) fn set_answer(&mut self, ids: Vec<i32>, observer: &mut dyn Observer) {
        let text = self.engine.tokenizer.decode(&ids);
        self.ids = ids;
        if self.n_predict > 0 {
            self.note_first_token();
        }
        let _ = self.emit(&text, observer); // the answer ends here anyway
    }

    fn note_first_token(&mut self) {
        let start = self.start;
        let seconds = || start.elapsed().as_secs_f64();
        self.first_token_seconds.get_or_insert_with(seconds);
    }

    fn emit(&mut self, text: &str, observer: &mut dyn Observer) -> ControlFlow<()> {
        self.text.push_str(text);
        if text.is_empty() {
            ControlFlow::Continue(())
        } else {
            observer.text(text)
        }
    }
}
