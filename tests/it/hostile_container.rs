//! Well-formed GGUF files with invalid content: refused with a named error before llama.cpp, which would abort the
//! process, reads them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xc2_convert::mix::Preset;
use xc2_edge::model::{
    container::{Container, View, keys},
    gguf::{GgufFile, Header, Metadata, Value},
};

fn model() -> PathBuf {
    crate::common::model("tiny-composer", Preset::Q8_0)
}

/// A copy of the model with changed outer header and decoder view.
fn changed(outer: impl Fn(&mut Header), decoder: impl Fn(&mut Header)) -> tempfile::NamedTempFile {
    let whole = fs::read(model()).unwrap();
    let (mut header, data_start) = Header::parse(&whole).unwrap();
    let container = Container::open(&model()).unwrap();
    let mut view = container.view_header(View::Decoder);
    decoder(&mut view);
    let view = view.encode();
    let begin = container.view_offset(View::Decoder);
    let blob = header
        .tensors
        .iter_mut()
        .find(|t| t.name == keys::VIEW_DECODER)
        .unwrap();
    let end = begin + blob.shape[0];
    blob.shape = vec![view.len()];
    outer(&mut header);
    let bytes = [
        &header.encode(),
        &whole[data_start..begin],
        &view,
        &whole[end..],
    ]
    .concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

fn message(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|s| format!(": {}", message(s)));
    format!("{error}{}", cause.unwrap_or_default())
}

#[track_caller]
fn assert_refused(file: &tempfile::NamedTempFile, naming: &str) {
    let error = Container::open(file.path()).err();
    let message = message(&error.unwrap_or_else(|| panic!("accepted; expected `{naming}`")));
    assert!(
        message.contains(naming),
        "`{message}` does not name `{naming}`"
    );
}

fn same(_: &mut Header) {}

#[test]
fn an_unchanged_copy_is_accepted() {
    Container::open(changed(same, same).path()).unwrap();
}

#[test]
fn invalid_outer_headers_are_refused() {
    let set = |key: &'static str, value: Value| {
        changed(move |h| h.metadata.set(key, value.clone()), same)
    };
    assert_refused(&set(keys::GENERAL_ARCHITECTURE, "llama".into()), "llama");
    assert_refused(&set(keys::XC2_VERSION, 2u32.into()), "expected 1, found 2");
    assert_refused(
        &set(keys::XC2_FAMILY, "vision".into()),
        "`composition`, `4khd` or `2.5`",
    );
    assert_refused(
        &set(keys::CLIP_IMAGE_SIZE, 0u32.into()),
        keys::CLIP_IMAGE_SIZE,
    );
    assert_refused(
        &set(keys::CLIP_IMAGE_MEAN, Value::f32s([0.5])),
        keys::CLIP_IMAGE_MEAN,
    );
    assert_refused(
        &set(keys::PROMPT_TURN_END, 5000u32.into()),
        "an id below 1280",
    );
    for (key, _) in GgufFile::open(&model()).unwrap().metadata().0.clone() {
        let removed = changed(|h| h.metadata.0.retain(|(k, _)| *k != key), same);
        let optional = [
            "general.file_type",
            "general.quantization_version",
            "clip.has_vision_encoder",
        ];
        let ours = key.starts_with("xc2.prompt") || key.starts_with("clip.vision");
        if ours && !optional.contains(&&key[..]) {
            assert_refused(&removed, &key);
        }
    }
}

#[test]
fn decoder_views_that_llama_cpp_cannot_load_are_refused() {
    let set = |key: &'static str, value: Value| {
        changed(same, move |h| h.metadata.set(key, value.clone()))
    };
    assert_refused(
        &set(keys::LLM_HEAD_COUNT, 0u32.into()),
        keys::LLM_HEAD_COUNT,
    );
    assert_refused(
        &set(keys::LLM_HEAD_COUNT, 3u32.into()),
        keys::LLM_HEAD_COUNT,
    );
    assert_refused(
        &set(keys::LLM_HEAD_COUNT_KV, 3u32.into()),
        keys::LLM_HEAD_COUNT_KV,
    );
    assert_refused(&set(keys::LLM_BLOCK_COUNT, 60_000u32.into()), "blk.59999");
    assert_refused(
        &set(keys::LLM_VOCAB_SIZE, 99u32.into()),
        "token_embd.weight",
    );
    assert_refused(&set(keys::LLM_EMBEDDING_LENGTH, 512u32.into()), "shape");
    assert_refused(&set(keys::LLM_RMS_EPS, f32::NAN.into()), keys::LLM_RMS_EPS);
    assert_refused(
        &set("internlm2.rope.scaling.type", "yarn".into()),
        "known keys",
    );
    assert_refused(
        &set("tokenizer.ggml.bos_token_id", 1280u32.into()),
        "bos_token_id",
    );
    assert_refused(
        &set(keys::GENERAL_ARCHITECTURE, "llama".into()),
        "internlm2",
    );
}

#[test]
fn adapter_views_that_llama_cpp_cannot_load_are_refused() {
    let adapter = |alpha: Value| {
        let whole = fs::read(model()).unwrap();
        let container = Container::open(&model()).unwrap();
        let begin = container.view_offset(View::Adapter);
        let mut view = container.view_header(View::Adapter);
        view.metadata.set(keys::ADAPTER_ALPHA, alpha);
        let view = view.encode(); // of the same length
        let bytes = [&whole[..begin], &view, &whole[begin + view.len()..]].concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    };
    Container::open(adapter(32.0f32.into()).path()).unwrap();
    for bad in [Value::U32(32), f32::NAN.into(), (-1.0f32).into()] {
        assert_refused(&adapter(bad), keys::ADAPTER_ALPHA);
    }
}

#[test]
fn incomplete_vocabularies_are_refused() {
    let pieces = |change: fn(&mut Vec<Value>)| {
        changed(same, move |h| {
            let tokens = h
                .metadata
                .0
                .iter_mut()
                .find(|(k, _)| k == keys::VOCAB_TOKENS);
            if let Some((_, Value::Array(_, items))) = tokens {
                change(items);
            }
        })
    };
    assert_refused(
        &pieces(|items| items[900] = items[901].clone()),
        "piece 901",
    );
    assert_refused(&pieces(|items| items[900] = "".into()), "piece 900");
    assert_refused(&pieces(|items| items[900] = "a\0b".into()), "piece 900");
    assert_refused(&pieces(|items| drop(items.pop())), "1280 values");
    assert_refused(&pieces(|items| items[7] = "seven".into()), "256 bytes");
}

#[test]
fn views_that_contradict_their_tensors_are_refused() {
    let swapped = changed(same, |h| h.tensors.swap(3, 4));
    assert_refused(&swapped, "expected the file's next tensor to be");
    let shorter = changed(same, |h| drop(h.tensors.remove(0)));
    assert_refused(&shorter, "expected the file's next tensor to be");
    let none = changed(|h| h.metadata = Metadata::default(), same);
    assert_refused(&none, keys::GENERAL_ARCHITECTURE);
}

/// Damage at random places of the headers: the program answers or fails, and is never killed by a signal.
#[test]
fn damaged_headers_give_an_answer_or_an_error_but_no_signal() {
    let bytes = fs::read(model()).unwrap();
    let container = Container::open(&model()).unwrap();
    let views = [View::Adapter, View::Decoder].map(|v| container.view_offset(v));
    let regions = [
        0..3000,
        views[0]..views[0] + 3000,
        views[1]..views[1] + 1500,
        views[1]..views[1] + 60_000,
    ];
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    for _ in 0..150 {
        let mut damaged = bytes.clone();
        let region = regions[random(4)].clone();
        for _ in 0..=random(3) {
            let at = region.start + random(region.len());
            damaged[at] = [0, 1, 127, 128, 255, damaged[at] ^ (1 << random(8))][random(6)];
        }
        fs::write(file.path(), damaged).unwrap();
        assert_ends_by_itself(file.path());
    }
}

#[track_caller]
fn assert_ends_by_itself(model: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(["run", "-n", "1", "-q", "-p", "Hi", "-m"])
        .arg(model)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{:?}: {stderr}",
        output.status
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}
