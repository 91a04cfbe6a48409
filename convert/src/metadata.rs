//! Metadata of the model file's three headers.

use xc2_edge::{
    model::{
        container::{BosRule, Family, UnmarkedImage, keys},
        gguf::{Metadata, Value},
    },
    vision::image::{CLIP_MEAN, CLIP_STD},
};

use crate::{
    checkpoint::{Checkpoint, PackedFormat},
    mix::Preset,
    model::Model,
    tokenizer::Tokenizer,
};

/// CLIP's LayerNorm epsilon.
const LAYER_NORM_EPS: f32 = 1e-5;
/// Version of the block layouts of ggml's quantized types.
const QUANTIZATION_VERSION: u32 = 2;

/// The system prompt of the comprehension models; they were always trained with it.
const SYSTEM_VL: &str = "\
You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).
- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model that is developed by \
Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.
- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the \
user such as English and 中文.
- InternLM-XComposer (浦语·灵笔) is capable of comprehending and articulating responses effectively based \
on the provided image.";

/// The system prompt of the composition model.
const SYSTEM_COMPOSITION: &str = "\
You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).
- InternLM-XComposer (浦语·灵笔) is a conversational language model that is developed by \
Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.
- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the \
user such as English and 中文.";

/// The inputs of the headers besides the tensors.
pub struct Facts<'a> {
    /// The source of the model.
    pub checkpoint: &'a Checkpoint,
    /// Its sizes.
    pub model: &'a Model,
    /// Its vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// The mix of types.
    pub preset: Preset,
    /// The layout of the checkpoint's packed numbers, if the file holds them exactly.
    pub exact: Option<PackedFormat>,
    /// The options of the conversion, as a command line.
    pub options: &'a str,
}

/// Metadata of the outer header. The checksum is added when the file is laid out.
pub fn outer(facts: &Facts) -> Metadata {
    let mut meta = Metadata::default();
    meta.set(keys::GENERAL_ARCHITECTURE, keys::ARCHITECTURE);
    general(&mut meta, facts);
    meta.set(keys::XC2_VERSION, keys::VERSION as u32);
    meta.set(keys::XC2_FAMILY, facts.model.family.name());
    let converter = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    meta.set(keys::XC2_CONVERTER, converter);
    meta.set(keys::XC2_OPTIONS, facts.options);
    meta.set(keys::XC2_SOURCE_NAME, facts.checkpoint.name());
    let files = facts.checkpoint.files().iter().cloned();
    meta.set(keys::XC2_SOURCE_FILES, Value::strings(files));
    if let Some(format) = facts.exact {
        meta.set(keys::XC2_SOURCE_QUANTIZATION, format.name().to_lowercase());
    }
    meta.set(
        keys::XC2_CONTEXT_LENGTH,
        facts.model.decoder.max_length as u32,
    );
    if let Some(factor) = facts.model.decoder.rope_dynamic_factor {
        meta.set(keys::XC2_ROPE_DYNAMIC_FACTOR, factor);
    }
    if facts.model.family == Family::V2d5 {
        meta.set(keys::XC2_TASK, facts.model.task.name());
    }
    if let Some(tiling) = facts.model.vision.tiling {
        meta.set(keys::XC2_TILING, tiling.name());
    }
    prompt(&mut meta, facts);
    clip(&mut meta, facts.model);
    meta
}

/// Metadata of the adapter view. With an `alpha` of zero, llama.cpp adds the product unscaled.
pub fn adapter(facts: &Facts, alpha: f32) -> Metadata {
    let mut meta = Metadata::default();
    meta.set("general.type", "adapter");
    meta.set(keys::GENERAL_ARCHITECTURE, keys::DECODER_ARCHITECTURE);
    meta.set(keys::GENERAL_NAME, facts.checkpoint.name());
    meta.set("adapter.type", "lora");
    meta.set(keys::ADAPTER_ALPHA, alpha);
    meta
}

/// Metadata of the decoder view, including the vocabulary: what any llama.cpp program needs.
pub fn decoder(facts: &Facts) -> Metadata {
    let d = &facts.model.decoder;
    let mut meta = Metadata::default();
    meta.set("general.type", "model");
    meta.set(keys::GENERAL_ARCHITECTURE, keys::DECODER_ARCHITECTURE);
    general(&mut meta, facts);
    meta.set(keys::LLM_VOCAB_SIZE, d.n_vocab as u32);
    meta.set(keys::LLM_CONTEXT_LENGTH, d.n_ctx_train as u32);
    meta.set(keys::LLM_EMBEDDING_LENGTH, d.n_embd as u32);
    meta.set(keys::LLM_BLOCK_COUNT, d.n_layer as u32);
    meta.set(keys::LLM_FEED_FORWARD_LENGTH, d.n_ff as u32);
    meta.set(keys::LLM_HEAD_COUNT, d.n_head as u32);
    meta.set(keys::LLM_HEAD_COUNT_KV, d.n_head_kv as u32);
    meta.set(keys::LLM_RMS_EPS, d.rms_eps);
    meta.set(keys::LLM_ROPE_FREQ_BASE, d.rope_freq_base);
    vocabulary(&mut meta, facts.tokenizer);
    meta
}

fn general(meta: &mut Metadata, facts: &Facts) {
    meta.set(keys::GENERAL_NAME, facts.checkpoint.name());
    meta.set(keys::FILE_TYPE, facts.preset.file_type());
    meta.set(keys::QUANTIZATION_VERSION, QUANTIZATION_VERSION);
}

fn prompt(meta: &mut Metadata, facts: &Facts) {
    let system = match facts.model.family {
        // The 2.5 models' code omits it unless asked; their published example asks.
        Family::Vl | Family::Khd4 | Family::V2d5 => SYSTEM_VL,
        Family::Composition => SYSTEM_COMPOSITION,
    };
    meta.set(keys::PROMPT_SYSTEM, system);
    meta.set(keys::PROMPT_IMAGE_MARKER, "<ImageHere>");
    meta.set(keys::PROMPT_TURN_START, facts.tokenizer.turn_start);
    meta.set(keys::PROMPT_TURN_END, facts.tokenizer.turn_end);
    meta.set(keys::PROMPT_BOS, facts.tokenizer.bos);
    meta.set(keys::PROMPT_EOS, facts.tokenizer.eos);
    // In the published `chat()` of the 2.0 models, every text segment starts with BOS; in that of 2.5, the prompt does.
    let rule = match facts.model.family {
        Family::V2d5 => BosRule::Once,
        _ => BosRule::EverySegment,
    };
    meta.set(keys::PROMPT_BOS_RULE, rule.name());
    if facts.model.family == Family::V2d5 {
        meta.set(keys::PROMPT_UNMARKED_IMAGE, UnmarkedImage::Prompt.name());
    }
}

fn clip(meta: &mut Metadata, model: &Model) {
    let v = &model.vision;
    meta.set(keys::CLIP_HAS_VISION, true);
    meta.set(keys::CLIP_PROJECTOR_TYPE, "mlp");
    meta.set(keys::CLIP_IMAGE_SIZE, v.image_size as u32);
    meta.set(keys::CLIP_PATCH_SIZE, v.patch_size as u32);
    meta.set(keys::CLIP_EMBEDDING_LENGTH, v.n_embd as u32);
    meta.set(keys::CLIP_FEED_FORWARD_LENGTH, v.n_ff as u32);
    meta.set(keys::CLIP_BLOCK_COUNT, v.n_layer as u32);
    meta.set(keys::CLIP_HEAD_COUNT, v.n_head as u32);
    meta.set(keys::CLIP_LAYER_NORM_EPS, LAYER_NORM_EPS);
    meta.set(keys::CLIP_PROJECTION_DIM, model.decoder.n_embd as u32);
    meta.set(keys::CLIP_IMAGE_MEAN, Value::f32s(CLIP_MEAN));
    meta.set(keys::CLIP_IMAGE_STD, Value::f32s(CLIP_STD));
}

/// Adds the vocabulary under llama.cpp's keys.
pub fn vocabulary(meta: &mut Metadata, t: &Tokenizer) {
    meta.set(keys::VOCAB_MODEL, "llama");
    meta.set("tokenizer.ggml.pre", "default");
    meta.set(
        keys::VOCAB_TOKENS,
        Value::strings(t.tokens.iter().map(String::as_str)),
    );
    meta.set(keys::VOCAB_SCORES, Value::f32s(t.scores.iter().copied()));
    meta.set(keys::VOCAB_TYPES, Value::i32s(t.types.iter().copied()));
    meta.set("tokenizer.ggml.bos_token_id", t.bos);
    meta.set("tokenizer.ggml.eos_token_id", t.eos);
    meta.set("tokenizer.ggml.unknown_token_id", t.unk);
    meta.set("tokenizer.ggml.padding_token_id", t.eos);
    meta.set("tokenizer.ggml.eot_token_id", t.turn_end);
    meta.set("tokenizer.ggml.add_bos_token", true);
    meta.set("tokenizer.ggml.add_eos_token", false);
    meta.set("tokenizer.ggml.add_space_prefix", t.add_space_prefix);
}
