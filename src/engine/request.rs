//! What goes in and what comes out.

use std::{ops::ControlFlow, path::PathBuf};

use bytes::Bytes;

use crate::{
    engine::{cache::CacheCounts, metrics::Timings},
    language::{
        grammar::Grammar,
        llama::SamplerOptions,
        prompt::{Chat, PloraPolicy, PromptLayout},
    },
    model::container::BosRule,
    vision::image::RgbImage,
};

/// The most tokens of an answer where nothing else is asked for: the original's limit.
pub const DEFAULT_N_PREDICT: usize = 1024;

/// A picture to be asked about.
#[derive(Clone, Debug)]
pub enum Picture {
    /// A file of any known format.
    File(PathBuf),
    /// The content of such a file, and what errors call it.
    Encoded {
        /// For example where it came from.
        name: String,
        /// The content.
        bytes: Bytes,
    },
    /// 8-bit RGB, as decoded or drawn.
    Pixels(RgbImage),
}

impl<P: Into<PathBuf>> From<P> for Picture {
    fn from(path: P) -> Self {
        Self::File(path.into())
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Pictures, in the order of their markers.
    pub images: Vec<Picture>,
    /// The conversation.
    pub chat: Chat,
    /// Where pictures stand in the prompt.
    pub layout: PromptLayout,
    /// Where `<s>` stands; `None` for the model's own rule.
    pub bos_rule: Option<BosRule>,
    /// Which tokens see Partial-LoRA.
    pub plora: PloraPolicy,
    /// How tokens are chosen.
    pub sampling: SamplerOptions,
    /// The most tokens to generate.
    pub n_predict: usize,
    /// Answers followed side by side; 1 for none beside. The likeliest for its length wins, and its
    /// text is said when it is whole.
    pub beams: usize,
    /// What the answer has to look like.
    pub grammar: Option<Grammar>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            images: Vec::new(),
            chat: Chat::default(),
            layout: PromptLayout::default(),
            bos_rule: None,
            plora: PloraPolicy::default(),
            sampling: SamplerOptions::default(),
            n_predict: DEFAULT_N_PREDICT,
            beams: 1,
            grammar: None,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its turn.
    Stop,
    /// The limit of tokens to generate.
    Length,
    /// The context is full.
    Context,
    /// The caller had enough.
    Interrupted,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text, without the stop token.
    pub text: String,
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// How many of them are pictures.
    pub n_image: usize,
    /// Tokens generated, without the stop token.
    pub ids: Vec<i32>,
    /// Why it ended.
    pub stop: StopReason,
    /// How long each stage took.
    pub timings: Timings,
    /// What the cache on disk was of use for.
    pub cache: CacheCounts,
}

/// What happens during a request, for whoever shows it.
pub trait Observer {
    /// A stage (`encode`, `prefill`) stands at `done` of `total`.
    fn progress(&mut self, _stage: &'static str, _done: usize, _total: usize) {}
    /// Whether the caller has had enough: asked between the batches of the prompt. What was computed
    /// stays, and serves when it is asked again.
    fn is_interrupted(&mut self) -> bool {
        false
    }
    /// More text of the answer; always whole characters. `Break` ends the answer.
    fn text(&mut self, _text: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Watches nothing.
impl Observer for () {}
