//! Requests and answers.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::{
    engine::{cache::CacheCounts, metrics::Timings},
    language::{
        grammar::Grammar,
        llama::SamplerOptions,
        prompt::{Chat, PloraPolicy, PromptLayout},
    },
    model::{TileGrid, container::BosRule},
    vision::image::RgbImage,
};

/// The default limit of generated tokens, as in the original.
pub const DEFAULT_N_PREDICT: usize = 1024;

/// A picture of a request.
#[derive(Clone, Debug)]
pub enum Picture {
    /// A file of any supported format.
    File(PathBuf),
    /// The content of such a file.
    Encoded {
        /// The name in error messages, for example the picture's origin.
        name: String,
        /// The content.
        bytes: Bytes,
    },
    /// 8-bit RGB, as decoded or drawn.
    Pixels(RgbImage),
    /// A picture that is resized already, by [`Engine::prepare_picture`](super::Engine::prepare_picture).
    Prepared(PreparedPicture),
    /// Frames of a video, which become one picture. Only for models that see strips of frames
    /// ([`Tiling::V2d5`](crate::model::Tiling::V2d5)).
    Frames(Frames),
    /// A picture with a maximum number of tiles of its own, instead of [`TileOptions::hd_num`].
    WithTiles {
        /// The picture.
        picture: Box<Picture>,
        /// The maximum number of tiles.
        hd_num: u32,
    },
}

/// A picture in the size that the tower takes, or all of its tiles side by side.
#[derive(Clone, Debug)]
pub struct PreparedPicture {
    pub(super) pixels: Arc<RgbImage>,
    pub(super) grid: Option<TileGrid>,
}

impl PreparedPicture {
    /// The pixels; tiles are side by side.
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }
}

/// Frames of a video, in order.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The frames.
    pub pictures: Vec<Picture>,
    /// Whether each frame gets a label with its number, as in the original.
    pub labels: bool,
}

/// How many tiles pictures are cut into, for models that cut pictures into tiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileOptions {
    /// The maximum number of tiles per picture; `None` for [`Engine::default_hd_num`](super::Engine::default_hd_num).
    pub hd_num: Option<u32>,
    /// Whether several pictures get as many tiles each as a single one. 2.5 models otherwise use at most 6 for each
    /// of several pictures, as the original does.
    pub full_for_several: bool,
}

impl<P: Into<PathBuf>> From<P> for Picture {
    fn from(path: P) -> Self {
        Self::File(path.into())
    }
}

/// A request: a conversation with pictures, and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Pictures, in the order of their markers.
    pub images: Vec<Picture>,
    /// How many tiles they are cut into.
    pub tiles: TileOptions,
    /// The conversation.
    pub chat: Chat,
    /// Where pictures are placed in the prompt.
    pub layout: PromptLayout,
    /// Where `<s>` is inserted; `None` for the model's own rule.
    pub bos_rule: Option<BosRule>,
    /// The positions that Partial-LoRA applies to.
    pub plora: PloraPolicy,
    /// How tokens are sampled.
    pub sampling: SamplerOptions,
    /// The maximum number of generated tokens.
    pub n_predict: usize,
    /// The number of beams; 1 for no beam search. The answer with the highest log-probability per token wins, and its
    /// text is emitted when the search ends.
    pub beams: usize,
    /// A grammar that constrains the answer.
    pub grammar: Option<Grammar>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            images: Vec::new(),
            tiles: TileOptions::default(),
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
    /// The limit of generated tokens is reached.
    Length,
    /// The context is full.
    Context,
    /// The caller interrupted it.
    Interrupted,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text, without the stop token.
    pub text: String,
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// Those of them that are pictures.
    pub n_image: usize,
    /// Tokens generated, without the stop token.
    pub ids: Vec<i32>,
    /// Why it ended.
    pub stop: StopReason,
    /// Durations and counts of the stages.
    pub timings: Timings,
    /// Hits, writes and faults of the cache on disk.
    pub cache: CacheCounts,
}

/// Receives events during a request.
pub trait Observer {
    /// A stage (`encode`, `prefill`, `search`) has finished `done` of `total` steps.
    fn progress(&mut self, _stage: &'static str, _done: usize, _total: usize) {}
    /// Whether to stop; called between the batches of the prompt. A later request can reuse what was computed.
    fn is_interrupted(&mut self) -> bool {
        false
    }
    /// The next piece of the answer's text; always whole characters. `Break` ends the answer.
    fn text(&mut self, _text: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Ignores all events.
impl Observer for () {}
