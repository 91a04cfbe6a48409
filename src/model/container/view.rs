//! Checks a view before llama.cpp reads it.
//!
//! llama.cpp trusts the metadata of a model: a duplicated piece or a zero head count ends the process. Therefore a
//! view must contain the keys that our converter writes, with valid values in every key that llama.cpp reads, and no
//! other keys.

use std::collections::HashSet;

use super::{ContainerError, DecoderInfo, View, keys};
use crate::model::{
    gguf::{GgufError, GgufFile, Header, Metadata, TensorInfo, Value, ValueType},
    quant::GgmlType,
};

/// Keys allowed in a decoder view.
const DECODER_KEYS: [&str; 27] = [
    "general.type",
    keys::GENERAL_ARCHITECTURE,
    keys::GENERAL_NAME,
    keys::FILE_TYPE,
    keys::QUANTIZATION_VERSION,
    keys::LLM_VOCAB_SIZE,
    keys::LLM_CONTEXT_LENGTH,
    keys::LLM_EMBEDDING_LENGTH,
    keys::LLM_BLOCK_COUNT,
    keys::LLM_FEED_FORWARD_LENGTH,
    keys::LLM_HEAD_COUNT,
    keys::LLM_HEAD_COUNT_KV,
    keys::LLM_RMS_EPS,
    keys::LLM_ROPE_FREQ_BASE,
    keys::VOCAB_MODEL,
    "tokenizer.ggml.pre",
    keys::VOCAB_TOKENS,
    keys::VOCAB_SCORES,
    keys::VOCAB_TYPES,
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
];

/// Keys allowed in an adapter view.
const ADAPTER_KEYS: [&str; 5] = [
    "general.type",
    keys::GENERAL_ARCHITECTURE,
    keys::GENERAL_NAME,
    "adapter.type",
    keys::ADAPTER_ALPHA,
];

/// Token types: normal, unknown, control, user-defined, unused, byte.
const TOKEN_TYPES: [i32; 6] = [1, 2, 3, 4, 5, 6];
const BYTE: i32 = 6;

/// Reads a view's header and checks its structure, tensors and metadata.
pub(super) fn checked(file: &GgufFile, view: View) -> Result<Header, ContainerError> {
    let name = view.tensor_name();
    let blob = file.require(name)?;
    let in_view = |source| ContainerError::View { view: name, source };
    let (header, data_start) = Header::parse(&blob.data).map_err(in_view)?;
    if data_start != blob.data.len() {
        let expected = format!("{data_start} bytes");
        let found = format!("{} bytes", blob.data.len());
        return Err(in_view(GgufError::invalid(
            "length of the header",
            expected,
            found,
        )));
    }
    check_tensors(file, name, &header)?;
    let metadata = &header.metadata;
    match view {
        View::Adapter => check_keys(metadata, &ADAPTER_KEYS)
            .and_then(|()| check_text(metadata, "general.type", "adapter"))
            .and_then(|()| check_text(metadata, "adapter.type", "lora"))
            .and_then(|()| check_alpha(metadata)),
        View::Decoder => check_keys(metadata, &DECODER_KEYS).and_then(|()| check_decoder(&header)),
    }
    .and_then(|()| {
        check_text(
            metadata,
            keys::GENERAL_ARCHITECTURE,
            keys::DECODER_ARCHITECTURE,
        )
    })
    .map_err(in_view)?;
    Ok(header)
}

/// The tensors after the blob must be the view's, in the same order and with the same types and shapes. Equal lists
/// have equal offsets, because both are without gaps.
fn check_tensors(
    file: &GgufFile,
    view: &'static str,
    header: &Header,
) -> Result<(), ContainerError> {
    let after_blob = file.tensors().iter().skip_while(|t| t.name != view).skip(1);
    let mut after_blob = after_blob.map(Some).chain(std::iter::repeat(None));
    for inner in &header.tensors {
        if inner.ty == GgmlType::I8 {
            let field = format!("tensor `{}`: type", inner.name);
            let source = GgufError::invalid(field, "a type for weights", inner.ty);
            return Err(ContainerError::View { view, source });
        }
        let outer = after_blob.next().flatten();
        if outer != Some(inner) {
            return Err(ContainerError::ViewMismatch {
                view,
                expected: describe(inner),
                found: outer.map_or("the end of the list".to_owned(), describe),
            });
        }
    }
    Ok(())
}

fn describe(t: &TensorInfo) -> String {
    format!("`{}` {} {:?}", t.name, t.ty, t.shape)
}

fn check_keys(metadata: &Metadata, known: &[&str]) -> Result<(), GgufError> {
    match metadata
        .0
        .iter()
        .find(|(key, _)| !known.contains(&key.as_str()))
    {
        Some((key, _)) => Err(GgufError::invalid("metadata", "known keys", key)),
        None => Ok(()),
    }
}

fn check_text(metadata: &Metadata, key: &str, expected: &str) -> Result<(), GgufError> {
    match metadata.str(key)? {
        found if found == expected => Ok(()),
        found => Err(GgufError::invalid(
            format!("metadata key `{key}`"),
            expected,
            found,
        )),
    }
}

/// llama.cpp treats zero as "unscaled".
fn check_alpha(metadata: &Metadata) -> Result<(), GgufError> {
    let alpha = metadata.f32(keys::ADAPTER_ALPHA)?;
    if alpha.is_finite() && alpha >= 0.0 {
        return Ok(());
    }
    let field = format!("metadata key `{}`", keys::ADAPTER_ALPHA);
    Err(GgufError::invalid(field, "0 or more", alpha))
}

fn check_decoder(header: &Header) -> Result<(), GgufError> {
    let metadata = &header.metadata;
    check_text(metadata, "general.type", "model")?;
    check_text(metadata, keys::VOCAB_MODEL, "llama")?;
    for key in [keys::LLM_RMS_EPS, keys::LLM_ROPE_FREQ_BASE] {
        let value = metadata.f32(key)?;
        if !(value.is_finite() && value > 0.0) {
            return Err(GgufError::invalid(
                format!("metadata key `{key}`"),
                "above 0",
                value,
            ));
        }
    }
    let sizes = DecoderInfo::read(metadata)?;
    check_shapes(header, &sizes)?;
    let ids = metadata
        .0
        .iter()
        .filter(|(key, _)| key.ends_with("_token_id"));
    for (key, _) in ids {
        let id = metadata.usize(key)?;
        if id >= sizes.n_vocab {
            let expected = format!("an id below {}", sizes.n_vocab);
            return Err(GgufError::invalid(
                format!("metadata key `{key}`"),
                expected,
                id,
            ));
        }
    }
    check_vocabulary(metadata, sizes.n_vocab)
}

/// The last layer exists, and the embedding has the declared size.
fn check_shapes(header: &Header, sizes: &DecoderInfo) -> Result<(), GgufError> {
    let last_layer = format!("blk.{}.attn_norm.weight", sizes.n_layer - 1);
    for (name, shape) in [
        (last_layer.as_str(), vec![sizes.n_embd]),
        ("token_embd.weight", vec![sizes.n_embd, sizes.n_vocab]),
    ] {
        let tensor = header.tensors.iter().find(|t| t.name == name);
        let found = &tensor
            .ok_or_else(|| GgufError::MissingTensor {
                name: name.to_owned(),
            })?
            .shape;
        if *found != shape {
            let (expected, found) = (format!("{shape:?}"), format!("{found:?}"));
            return Err(GgufError::invalid(
                format!("tensor `{name}`: shape"),
                expected,
                found,
            ));
        }
    }
    Ok(())
}

/// A vocabulary has one score and one type per piece, a piece for every byte, and no piece that is duplicated, empty
/// or contains a NUL (C strings end there).
fn check_vocabulary(metadata: &Metadata, n_vocab: usize) -> Result<(), GgufError> {
    let pieces = array(metadata, keys::VOCAB_TOKENS, ValueType::String, n_vocab)?;
    let types = array(metadata, keys::VOCAB_TYPES, ValueType::I32, n_vocab)?;
    let scores = array(metadata, keys::VOCAB_SCORES, ValueType::F32, n_vocab)?;
    let invalid = |i: usize, expected: &str, found: &dyn std::fmt::Display| {
        Err(GgufError::invalid(
            format!("piece {i} of the vocabulary"),
            expected,
            found,
        ))
    };
    let mut seen = HashSet::with_capacity(n_vocab);
    let mut n_bytes = 0;
    for (i, ((piece, ty), score)) in pieces.iter().zip(types).zip(scores).enumerate() {
        let (Value::String(text), Value::I32(ty), Value::F32(score)) = (piece, ty, score) else {
            unreachable!("`array` checked the types")
        };
        if text.is_empty() || text.contains('\0') || !seen.insert(text) {
            return invalid(i, "text without NUL that occurs once", &format!("{text:?}"));
        }
        if !TOKEN_TYPES.contains(ty) {
            return invalid(i, "one of the types 1 to 6", ty);
        }
        if !score.is_finite() {
            return invalid(i, "a finite score", score);
        }
        n_bytes += usize::from(*ty == BYTE);
    }
    let has_byte = |b: u32| seen.contains(&format!("<0x{b:02X}>"));
    if n_bytes != 256 || !(0..256).all(has_byte) {
        return Err(GgufError::invalid(
            "vocabulary",
            "one piece for each of 256 bytes",
            n_bytes,
        ));
    }
    Ok(())
}

fn array<'a>(
    metadata: &'a Metadata,
    key: &str,
    ty: ValueType,
    len: usize,
) -> Result<&'a [Value], GgufError> {
    let expected = || format!("{len} values of type {ty:?}");
    let field = || format!("metadata key `{key}`");
    match metadata.get(key) {
        Some(Value::Array(t, items)) if *t == ty && items.len() == len => Ok(items),
        Some(other) => Err(GgufError::invalid(field(), expected(), other)),
        None => Err(GgufError::MissingKey {
            key: key.to_owned(),
        }),
    }
}
