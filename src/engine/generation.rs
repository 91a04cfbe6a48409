//! The answer in the making: sample, say, decode.

use std::{ops::ControlFlow, time::Instant};

use super::{Engine, EngineError, Observer, Request, StopReason};
use crate::language::grammar::Grammar;
use crate::language::{
    decoder::{Decoder, TextStream},
    llama::{Constraint, Sampler},
    prompt::{Run, Sequence},
};

/// An answer in the making.
pub(super) struct Generation<'a> {
    pub(super) engine: &'a Engine,
    n_predict: usize,
    plora: bool,
    sampler: Sampler,
    stream: TextStream,
    /// The most positions of prompt and answer.
    pub(super) n_ctx: usize,
    pub(super) ids: Vec<i32>,
    pub(super) text: String,
    /// When the engine got the request.
    begun: Instant,
    /// Seconds from then to the first token, the one that ends an empty answer included.
    pub(super) first_token: Option<f64>,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        request: &Request,
        sequence: &Sequence,
        n_ctx: usize,
        begun: Instant,
    ) -> Result<Self, EngineError> {
        let prompt = &engine.container.info().prompt;
        let stops = [prompt.eos, prompt.turn_end];
        let hold =
            |grammar: &Grammar| Constraint::new(grammar.as_gbnf(), &engine.tokenizer, &stops);
        let constraint = request.grammar.as_ref().map(hold).transpose()?;
        let n_vocab = engine.tokenizer.n_vocab();
        let sampler = Sampler::new(request.sampling, n_vocab, n_ctx);
        let sampler = sampler.with_constraint(constraint);
        let mut sampler = sampler.without(engine.tokenizer.unused());
        if sequence.n_image_tokens() == 0 {
            // As in the original: with pictures it generates from embeddings and its repetition
            // penalty sees generated ids only; without it counts the prompt's as well.
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
            begun,
            first_token: None,
        })
    }

    /// Samples and decodes until something ends the answer.
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

    /// Takes the token that `logits` decide for. It has to be decoded if the answer goes on;
    /// `is_full` tells that there is no room for that.
    pub(super) fn next(
        &mut self,
        logits: &[f32],
        is_full: bool,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<StopReason, i32>, EngineError> {
        let taken = self.take(logits, is_full, observer)?;
        if taken.is_break() {
            let rest = self.stream.finish();
            let _ = self.say(&rest, observer); // it ends here anyway
        }
        Ok(taken)
    }

    fn take(
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
        if self.say(&text, observer).is_break() {
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

    /// Takes an answer that was found otherwise.
    pub(super) fn adopt(&mut self, ids: Vec<i32>, observer: &mut dyn Observer) {
        let text = self.engine.tokenizer.decode(&ids);
        self.ids = ids;
        if self.n_predict > 0 {
            self.note_first_token();
        }
        let _ = self.say(&text, observer); // it ends here anyway
    }

    fn note_first_token(&mut self) {
        let begun = self.begun;
        let seconds = || begun.elapsed().as_secs_f64();
        self.first_token.get_or_insert_with(seconds);
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
