//! Who answers in a stage: a loaded model, or in tests a script.

use super::prompts::Ask;
use crate::{
    engine::{Answer, Engine, EngineError, Observer, Picture, Request, Session},
    language::{
        llama::SamplerOptions,
        prompt::{Chat, PromptLayout},
    },
    model::container::BosRule,
};

/// Answers what is asked.
pub trait ChatModel {
    /// Positions of the context: the most that prompt and answer may take.
    fn n_ctx(&self) -> usize;

    /// Positions that the prompt takes.
    ///
    /// # Errors
    /// If it cannot be put at all.
    fn n_prompt(&self, ask: &Ask) -> Result<usize, EngineError>;

    /// Answers in at most `n_predict` tokens. `pictures` are those of the ask, in order.
    ///
    /// # Errors
    /// If the model cannot be asked.
    fn respond(
        &mut self,
        ask: &Ask,
        pictures: &[Picture],
        n_predict: usize,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError>;
}

/// The draws of the published demo: temperature 1, top-k 40, top-p 0.8, repetition penalty 1.005.
pub fn demo_sampling(seed: u32) -> SamplerOptions {
    SamplerOptions {
        temperature: 1.0,
        top_k: 40,
        top_p: 0.8,
        repeat_penalty: 1.005,
        seed,
    }
}

/// A loaded model, asked in the form of the published demo: no system turn, one `<s>`. What
/// prompts begin with in common is computed once, and each picture is encoded once.
pub struct EngineChatModel<'a> {
    engine: &'a Engine,
    session: Session<'a>,
    sampling: SamplerOptions,
    n_ctx: usize,
}

impl<'a> EngineChatModel<'a> {
    /// Asks `engine`, with at most `n_ctx` positions if that is less than the model takes.
    pub fn new(engine: &'a Engine, sampling: SamplerOptions, n_ctx: Option<usize>) -> Self {
        let max = engine.container().info().max_context();
        Self {
            engine,
            session: engine.session(),
            sampling,
            n_ctx: n_ctx.map_or(max, |n| n.min(max)),
        }
    }

    fn chat(&self, ask: &Ask) -> Chat {
        Chat {
            query: ask
                .user
                .query(&self.engine.container().info().prompt.image_marker),
            answer_prefix: ask.assistant.clone(),
            ..Chat::default()
        }
    }
}

impl ChatModel for EngineChatModel<'_> {
    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn n_prompt(&self, ask: &Ask) -> Result<usize, EngineError> {
        let mut template = self.engine.template(PromptLayout::Chat);
        template.prompt.bos_rule = BosRule::Once;
        let n_pictures = ask.user.pictures().len();
        let tokenizer = self.engine.tokenizer();
        Ok(template
            .sequence(&self.chat(ask), n_pictures, tokenizer)?
            .len())
    }

    fn respond(
        &mut self,
        ask: &Ask,
        pictures: &[Picture],
        n_predict: usize,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        let request = Request {
            images: pictures.to_vec(),
            chat: self.chat(ask),
            bos_rule: Some(BosRule::Once),
            sampling: self.sampling,
            n_predict,
            ..Request::default()
        };
        self.session.answer(&request, observer)
    }
}
