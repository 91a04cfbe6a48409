//! The answer in the making: sample, say, decode.

use std::ops::ControlFlow;

use super::{Engine, EngineError, Observer, Request, StopReason};
use crate::{
    decoder::{Decoder, TextStream},
    llama::Sampler,
    prompt::{Run, Sequence},
};

/// An answer in the making.
pub(super) struct Generation<'a> {
    engine: &'a Engine,
    request: &'a Request,
    sampler: Sampler,
    n_ctx: usize,
    pub(super) ids: Vec<i32>,
    pub(super) text: String,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        request: &'a Request,
        sequence: &Sequence,
        n_ctx: usize,
    ) -> Self {
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
    pub(super) fn run(
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
