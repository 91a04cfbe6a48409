//! All metadata keys and tensor names of the container.
//!
//! Keys that GGUF or llama.cpp's `mtmd` define keep their names, so that common tools show them. Our own start with
//! `xc2.`.

/// `general.architecture` of the outer header.
pub const ARCHITECTURE: &str = "xcomposer2";
/// `general.architecture` of both views: llama.cpp's name for the decoder.
pub const DECODER_ARCHITECTURE: &str = "internlm2";
/// Version of this layout: the one that is written, and the only one that is read.
pub const VERSION: usize = 1;

/// The I8 tensor that holds the adapter's header.
pub const VIEW_ADAPTER: &str = "xc2.view.adapter";
/// The I8 tensor that holds the decoder's header.
pub const VIEW_DECODER: &str = "xc2.view.decoder";

/// Key of the architecture, in all three headers.
pub const GENERAL_ARCHITECTURE: &str = "general.architecture";
/// Key of the human-readable name of the model.
pub const GENERAL_NAME: &str = "general.name";
/// Key of the version of the block layouts (2 for all types that the converter writes).
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";
/// Key of llama.cpp's number for the mix of types (`llama_ftype`).
pub const FILE_TYPE: &str = "general.file_type";

/// Key of the container's version.
pub const XC2_VERSION: &str = "xc2.version";
/// Key of the family member's kind: `vl`, `composition`, `4khd` or `2.5`.
pub const XC2_FAMILY: &str = "xc2.family";
/// Key of the checksum: BLAKE3 of the data section, 64 hexadecimal digits.
pub const XC2_CHECKSUM: &str = "xc2.checksum.blake3";
/// Key of the converter's name and version.
pub const XC2_CONVERTER: &str = "xc2.converter";
/// Key of the options that the converter was given, as a command line.
pub const XC2_OPTIONS: &str = "xc2.converter.options";
/// Key of the checkpoint's file names.
pub const XC2_SOURCE_FILES: &str = "xc2.source.files";
/// Key of the checkpoint directory's name.
pub const XC2_SOURCE_NAME: &str = "xc2.source.name";
/// Key of the 4-bit layout of the checkpoint, `gptq` or `awq`, if the decoder's 4- and 5-bit tensors hold its numbers
/// exactly. Absent otherwise.
pub const XC2_SOURCE_QUANTIZATION: &str = "xc2.source.quantization";
/// Key of the longest sequence that the model was trained for (`max_length` in `config.json`).
pub const XC2_CONTEXT_LENGTH: &str = "xc2.context_length";

/// Key of the task whose extra adapters were merged into the decoder: `base` (none), `write` or `web`. Only in files
/// of the 2.5 models; absent means `base`.
pub const XC2_TASK: &str = "xc2.task";
/// Key of the factor of dynamic rotary scaling beyond the trained context. Absent if the model has none.
pub const XC2_ROPE_DYNAMIC_FACTOR: &str = "xc2.rope.dynamic_factor";

/// Key of how pictures are cut into tiles: `4khd` or `2.5`. Absent if they are resized to the tower's size.
pub const XC2_TILING: &str = "xc2.vision.tiling";
/// The tensor of the separator after each row of embeddings, `[4 * n_embd]`; only with tiles.
pub const ROW_SEPARATOR: &str = "v.sub_gn";
/// The tensor of the separator after the view of the whole picture, `[4 * n_embd]`; only with tiles.
pub const VIEW_SEPARATOR: &str = "v.glb_gn";

/// Key of the default system text; empty for none.
pub const PROMPT_SYSTEM: &str = "xc2.prompt.system";
/// Key of the placeholder of a picture in a query.
pub const PROMPT_IMAGE_MARKER: &str = "xc2.prompt.image_marker";
/// Key of the id that opens a turn (`[UNUSED_TOKEN_146]`).
pub const PROMPT_TURN_START: &str = "xc2.prompt.turn_start_id";
/// Key of the id that ends a turn (`[UNUSED_TOKEN_145]`), a stop token.
pub const PROMPT_TURN_END: &str = "xc2.prompt.turn_end_id";
/// Key of the id that begins a text (`<s>`).
pub const PROMPT_BOS: &str = "xc2.prompt.bos_id";
/// Key of the id that ends a text (`</s>`), a stop token.
pub const PROMPT_EOS: &str = "xc2.prompt.eos_id";
/// Key of the rule for `<s>`: `every_segment` or `once`.
pub const PROMPT_BOS_RULE: &str = "xc2.prompt.bos_rule";
/// Key of the place of a picture without a placeholder: `query` or `prompt` (their start). Absent means `query`.
pub const PROMPT_UNMARKED_IMAGE: &str = "xc2.prompt.unmarked_image";

/// Key of the side of the square that pictures are resized to, in pixels.
pub const CLIP_IMAGE_SIZE: &str = "clip.vision.image_size";
/// Key of the side of a patch, in pixels.
pub const CLIP_PATCH_SIZE: &str = "clip.vision.patch_size";
/// Key of the tower's width.
pub const CLIP_EMBEDDING_LENGTH: &str = "clip.vision.embedding_length";
/// Key of the width of the tower's MLP.
pub const CLIP_FEED_FORWARD_LENGTH: &str = "clip.vision.feed_forward_length";
/// Key of the number of the tower's layers.
pub const CLIP_BLOCK_COUNT: &str = "clip.vision.block_count";
/// Key of the number of the tower's heads.
pub const CLIP_HEAD_COUNT: &str = "clip.vision.attention.head_count";
/// Key of the tower's LayerNorm epsilon.
pub const CLIP_LAYER_NORM_EPS: &str = "clip.vision.attention.layer_norm_epsilon";
/// Key of the width of the projector's output: the decoder's embedding length.
pub const CLIP_PROJECTION_DIM: &str = "clip.vision.projection_dim";
/// Key of the channel means that are subtracted from the pixels.
pub const CLIP_IMAGE_MEAN: &str = "clip.vision.image_mean";
/// Key of the channel standard deviations by which the pixels are divided.
pub const CLIP_IMAGE_STD: &str = "clip.vision.image_std";
/// Key that tells `mtmd` that the file has a vision tower.
pub const CLIP_HAS_VISION: &str = "clip.has_vision_encoder";
/// Key of `mtmd`'s name for the projector: `mlp`.
pub const CLIP_PROJECTOR_TYPE: &str = "clip.projector_type";

/// Key in a view of the decoder's training context.
pub const LLM_CONTEXT_LENGTH: &str = "internlm2.context_length";
/// Key in a view of the decoder's width.
pub const LLM_EMBEDDING_LENGTH: &str = "internlm2.embedding_length";
/// Key in a view of the number of the decoder's layers.
pub const LLM_BLOCK_COUNT: &str = "internlm2.block_count";
/// Key in a view of the width of the decoder's MLP.
pub const LLM_FEED_FORWARD_LENGTH: &str = "internlm2.feed_forward_length";
/// Key in a view of the number of query heads.
pub const LLM_HEAD_COUNT: &str = "internlm2.attention.head_count";
/// Key in a view of the number of key and value heads.
pub const LLM_HEAD_COUNT_KV: &str = "internlm2.attention.head_count_kv";
/// Key in a view of the RMSNorm epsilon.
pub const LLM_RMS_EPS: &str = "internlm2.attention.layer_norm_rms_epsilon";
/// Key in a view of the rotary base.
pub const LLM_ROPE_FREQ_BASE: &str = "internlm2.rope.freq_base";
/// Key in a view of the vocabulary size.
pub const LLM_VOCAB_SIZE: &str = "internlm2.vocab_size";

/// Key in the adapter view of the scale's numerator; the scale is alpha / rank.
pub const ADAPTER_ALPHA: &str = "adapter.lora.alpha";

/// Key in the decoder view of the tokenizer's kind: `llama` for SentencePiece.
pub const VOCAB_MODEL: &str = "tokenizer.ggml.model";
/// Key in the decoder view of the pieces' texts.
pub const VOCAB_TOKENS: &str = "tokenizer.ggml.tokens";
/// Key in the decoder view of the pieces' scores.
pub const VOCAB_SCORES: &str = "tokenizer.ggml.scores";
/// Key in the decoder view of the pieces' types.
pub const VOCAB_TYPES: &str = "tokenizer.ggml.token_type";
