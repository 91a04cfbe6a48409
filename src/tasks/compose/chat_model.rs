//! The model that answers the prompts: a loaded one, or a script in tests.

use super::prompts::RenderedPrompt;
use crate::{
    engine::{Answer, Engine, EngineError, Observer, Picture, Request, Session, TileOptions},
    language::{
        llama::SamplerOptions,
        prompt::{Chat, PromptLayout},
    },
    model::container::BosRule,
};

/// A model that answers the prompts of a composition.
pub trait ChatModel {
    /// Size of the context: the maximum number of positions of prompt and answer together.
    fn n_ctx(&self) -> usize;

    /// Number of positions of the prompt, or the largest possible one if pictures differ.
    ///
    /// # Errors
    /// If the prompt cannot be built.
    fn n_prompt(&self, ask: &RenderedPrompt) -> Result<usize, EngineError>;

    /// Answers in at most `n_predict` tokens. `pictures` are those of the prompt, in order.
    ///
    /// # Errors
    /// If the model cannot answer.
    fn respond(
        &mut self,
        ask: &RenderedPrompt,
        pictures: &[Picture],
        n_predict: usize,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError>;
}

/// The sampling of the published demo: temperature 1, top-k 40, top-p 0.8, repetition penalty 1.005.
pub fn demo_sampling(seed: u32) -> SamplerOptions {
    SamplerOptions {
        temperature: 1.0,
        top_k: 40,
        top_p: 0.8,
        repeat_penalty: 1.005,
        seed,
    }
}

/// A loaded model, prompted as in the published demo: no system turn, one `<s>`. A common prefix of prompts is
/// computed once, and each picture is encoded once.
pub struct EngineChatModel<'a> {
    engine: &'a Engine,
    session: Session<'a>,
    sampling: SamplerOptions,
    n_ctx: usize,
    tiles: TileOptions,
}

impl<'a> EngineChatModel<'a> {
    /// Uses `engine` with a context of `n_ctx` positions, or the model's maximum if that is less.
    pub fn new(engine: &'a Engine, sampling: SamplerOptions, n_ctx: Option<usize>) -> Self {
        let max = engine.max_context();
        Self {
            engine,
            session: engine.session(),
            sampling,
            n_ctx: n_ctx.map_or(max, |n| n.min(max)),
            tiles: TileOptions::default(),
        }
    }

    /// The same, with pictures cut into tiles as `tiles` says.
    pub fn with_tiles(self, tiles: TileOptions) -> Self {
        Self { tiles, ..self }
    }

    fn chat(&self, ask: &RenderedPrompt) -> Chat {
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

    fn n_prompt(&self, ask: &RenderedPrompt) -> Result<usize, EngineError> {
        let mut template = self.engine.template(PromptLayout::Chat);
        template.prompt.bos_rule = BosRule::Once;
        let n_pictures = ask.user.pictures().len();
        let n_tokens = self.engine.n_tokens_at_most(n_pictures, self.tiles);
        let pictures = vec![n_tokens; n_pictures];
        let tokenizer = self.engine.tokenizer();
        Ok(template
            .sequence(&self.chat(ask), &pictures, tokenizer)?
            .len())
    }

    fn respond(
        &mut self,
        ask: &RenderedPrompt,
        pictures: &[Picture],
        n_predict: usize,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        let request = Request {
            images: pictures.to_vec(),
            tiles: self.tiles,
            chat: self.chat(ask),
            bos_rule: Some(BosRule::Once),
            sampling: self.sampling,
            n_predict,
            ..Request::default()
        };
        self.session.answer(&request, observer)
    }
}
