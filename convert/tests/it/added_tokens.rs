//! Added tokens, embedding rows without tokens, and vocabularies with other ids.

use std::{fs, path::Path};

use crate::common::{Fixture, SMALL, assert_refused, converted, reference, stderr, xc2_convert};
use serde_json::json;
use tempfile::TempDir;
use xc2_edge::{
    engine::{Engine, EngineOptions, Request},
    language::{
        llama::{LoadOptions, Model, SamplerOptions, SpecialText, Tokenizer},
        prompt::Chat,
    },
    model::{
        container::{Container, View, keys},
        gguf::{Metadata, Value},
    },
};

/// A checkpoint with `n_spare` rows more than pieces, and `files` beside it.
fn padded(n_spare: usize, files: &[(&str, serde_json::Value)]) -> Fixture {
    let mut fixture = Fixture::new(SMALL);
    fixture.pad_vocabulary(crate::common::N_VOCAB + n_spare);
    fixture.save();
    for (file, contents) in files {
        fixture.write(file, contents.to_string());
    }
    fixture
}

/// Texts and types of a converted vocabulary.
fn vocabulary(model: &Path) -> (Vec<String>, Vec<i32>) {
    let header: Metadata = Container::open(model)
        .unwrap()
        .view_header(View::Decoder)
        .metadata;
    let items = |key| match header.get(key) {
        Some(Value::Array(_, items)) => items.clone().into_iter(),
        other => panic!("{key}: {other:?}"),
    };
    let text = |item| match item {
        Value::String(text) => text,
        other => panic!("{other:?}"),
    };
    let ty = |item| match item {
        Value::I32(ty) => ty,
        other => panic!("{other:?}"),
    };
    let texts = items(keys::VOCAB_TOKENS).map(text).collect();
    (texts, items(keys::VOCAB_TYPES).map(ty).collect())
}

fn tokenizer(model: &Path) -> Tokenizer {
    let offset = Container::open(model).unwrap().view_offset(View::Decoder);
    let options = LoadOptions {
        vocab_only: true,
        ..LoadOptions::default()
    };
    Tokenizer::new(&Model::load(model, offset, options).unwrap())
}

fn said(fixture: &Fixture) -> String {
    let out = TempDir::new().unwrap();
    let output = xc2_convert([fixture.path(), &out.path().join("model.gguf")]);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn spare_rows_become_unused_tokens() {
    for n_spare in [8, 64, 128, 1] {
        let fixture = padded(n_spare, &[]);
        let (_out, model) = converted(fixture.path(), &[]);
        let (texts, types) = vocabulary(&model);
        assert_eq!(texts.len(), 1280 + n_spare);
        assert!(types[1280..].iter().all(|ty| *ty == 5));
        let different: std::collections::HashSet<&String> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
        let tokenizer = tokenizer(&model);
        let unused: Vec<i32> = (1280..1280 + n_spare as i32).collect();
        assert_eq!(tokenizer.unused(), unused);
        for text in &texts[1280..] {
            for special in [SpecialText::Plain, SpecialText::Parse] {
                let ids = tokenizer.encode(&format!("a {text}b"), special);
                assert!(ids.iter().all(|id| *id < 1280), "{text}: {ids:?}");
            }
        }
        assert_eq!(tokenizer.decode(&unused), "");
        let said = said(&fixture);
        assert!(
            said.contains(&format!("{n_spare} of {} rows", texts.len())),
            "{said}"
        );
    }
}

#[test]
fn unused_tokens_never_occur_in_answers() {
    let mut fixture = Fixture::copy_of("tiny-composer");
    fixture.pad_vocabulary(1344);
    let (_out, model) = converted(fixture.save(), &["--f16"]);
    let engine = Engine::load(&model, EngineOptions::default()).unwrap();
    let drawn = SamplerOptions {
        temperature: 1.0,
        ..SamplerOptions::default()
    };
    for (sampling, beams) in [
        (SamplerOptions::default(), 1),
        (drawn, 1),
        (SamplerOptions::default(), 3),
    ] {
        let request = Request {
            chat: Chat {
                query: "What is a dog?".to_owned(),
                ..Chat::default()
            },
            n_predict: 16,
            sampling,
            beams,
            ..Request::default()
        };
        let answer = engine.answer(&request, &mut ()).unwrap();
        assert!(!answer.ids.is_empty());
        assert!(answer.ids.iter().all(|id| *id < 1280), "{:?}", answer.ids);
    }
}

#[test]
fn named_tokens_of_any_file_are_found_in_texts() {
    let decoder = json!({ "added_tokens_decoder": {
        "0": { "content": "<unk>", "special": true },
        "1280": { "content": "<box>", "special": false },
        "1281": { "content": "</box>", "special": true },
    }});
    let list = json!({ "added_tokens": [
        { "id": 1280, "content": "<box>" }, { "id": 1281, "content": "</box>" },
    ]});
    let special = json!({
        "bos_token": "<s>",
        "additional_special_tokens": ["<box>", { "content": "</box>" }],
    });
    for (file, contents) in [
        (
            "added_tokens.json",
            json!({ "</box>": 1281, "<box>": 1280 }),
        ),
        ("tokenizer_config.json", decoder),
        ("tokenizer.json", list),
        ("special_tokens_map.json", special),
    ] {
        let fixture = padded(64, &[(file, contents)]);
        let (_out, model) = converted(fixture.path(), &[]);
        let (texts, types) = vocabulary(&model);
        assert_eq!(texts[1280..1282], ["<box>", "</box>"], "{file}");
        assert_eq!(
            (&types[1280..1282], types[1282]),
            (&[4, 4][..], 5),
            "{file}"
        );
        let tokenizer = tokenizer(&model);
        let text = "where<box>12</box><box>";
        let ids = tokenizer.encode(text, SpecialText::Plain);
        let named: Vec<i32> = ids.iter().copied().filter(|id| *id >= 1280).collect();
        assert_eq!(named, [1280, 1281, 1280], "{file}");
        assert_eq!(tokenizer.decode(&ids), text, "{file}");
    }
}

#[test]
fn a_padding_token_is_a_control_token() {
    let files = [
        ("added_tokens.json", json!({ "[PAD]": 1280 })),
        ("special_tokens_map.json", json!({ "pad_token": "[PAD]" })),
    ];
    let fixture = padded(8, &files);
    let (_out, model) = converted(fixture.path(), &[]);
    assert_eq!(vocabulary(&model).1[1280], 3);
    let ids = tokenizer(&model).encode("x[PAD]", SpecialText::Plain);
    assert!(!ids.contains(&1280), "{ids:?}");
}

#[test]
fn gaps_between_named_tokens_are_unused() {
    let fixture = padded(
        8,
        &[("added_tokens.json", json!({ "<a>": 1285, "<b>": 1281 }))],
    );
    let (_out, model) = converted(fixture.path(), &[]);
    let types = vocabulary(&model).1;
    assert_eq!(types[1280..], [5, 4, 5, 5, 5, 4, 5, 5]);
}

#[test]
fn a_name_that_unused_tokens_could_have_had_is_kept() {
    let name = "[UNUSED_TOKEN_147]"; // the pieces end with number 146
    let fixture = padded(8, &[("added_tokens.json", json!({ name: 1283 }))]);
    let (_out, model) = converted(fixture.path(), &[]);
    let (texts, types) = vocabulary(&model);
    assert_eq!((&texts[1283][..], types[1283]), (name, 4));
    assert_eq!(texts.iter().filter(|t| *t == name).count(), 1);
}

#[test]
fn tokens_without_a_row_are_skipped_and_reported() {
    let fixture = padded(0, &[("added_tokens.json", json!({ "<|im_start|>": 1280 }))]);
    let said = said(&fixture);
    assert!(
        said.contains("without a row") && said.contains("<|im_start|>") && said.contains("1280"),
        "{said}"
    );
    let (_out, model) = converted(fixture.path(), &[]);
    assert_eq!(vocabulary(&model).0.len(), 1280);
}

#[test]
fn duplicate_tokens_are_an_error() {
    let config = json!({ "added_tokens_decoder": { "1281": { "content": "<a>" } } });
    let shared = json!({ "added_tokens_decoder": { "1280": { "content": "<b>" } } });
    let refused = |files: &[(&str, serde_json::Value)], expected: &[&str]| {
        assert_refused(padded(8, files).path(), expected);
    };
    let map = ("added_tokens.json", json!({ "<a>": 1280 }));
    refused(
        &[map.clone(), ("tokenizer_config.json", config)],
        &["\"<a>\"", "1280", "1281", "tokenizer_config.json"],
    );
    refused(
        &[map, ("tokenizer_config.json", shared)],
        &["id 1280", "\"<a>\"", "\"<b>\""],
    );
    refused(
        &[("added_tokens.json", json!({ "<a>": 1280, "<b>": 1280 }))],
        &["id 1280", "\"<a>\"", "\"<b>\""],
    );
    refused(
        &[("added_tokens.json", json!({ "<s>": 1280 }))],
        &["\"<s>\"", "1280"],
    );
    for id in [json!(-1), json!("many"), json!(1.5)] {
        refused(
            &[("added_tokens.json", json!({ "<a>": id }))],
            &["added_tokens.json", "`<a>`", "whole number"],
        );
    }
}

#[test]
fn more_pieces_than_rows_and_far_too_few_are_errors() {
    let mut fixture = Fixture::new(SMALL);
    for name in ["model.tok_embeddings.weight", "output.weight"] {
        fixture.add(name, &[1216, 64]);
    }
    let expected = ["expected 1216 pieces", "found 1280"];
    assert_refused(fixture.save(), &expected);
    for name in ["model.tok_embeddings.weight", "output.weight"] {
        fixture.add(name, &[9000, 64]);
    }
    assert_refused(fixture.save(), &["expected 9000 pieces", "found 1280"]);
}

#[test]
fn the_embeddings_decide_and_not_the_configuration() {
    let mut fixture = Fixture::new(SMALL);
    fixture.config["vocab_size"] = 1294.into();
    fixture.save();
    let said = said(&fixture);
    assert!(said.contains("`vocab_size: 1294`; using 1280"), "{said}");
}

/// The encoded pieces of a `tokenizer.model`, and the bytes after them.
fn encoded_pieces(model: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while model[at] == 0x0a {
        let n = usize::from(model[at + 1]);
        assert!(n < 0x80, "pieces are short");
        pieces.push(&model[at..at + 2 + n]);
        at += 2 + n;
    }
    (pieces, &model[at..])
}

/// The old id of each new one: `<unk>`, `<s>` and `</s>` stand behind 300 others, in another order.
fn other_order() -> Vec<usize> {
    let (moved, at) = ([2, 0, 1], 300);
    (3..at + 3).chain(moved).chain(at + 3..1280).collect()
}

#[test]
fn a_vocabulary_with_other_ids_gives_the_same_answers() {
    let bytes = fs::read(reference("tiny-composer/tokenizer.model")).unwrap();
    let (pieces, rest) = encoded_pieces(&bytes);
    assert_eq!(pieces.len(), 1280);
    let order = other_order();
    let mut fixture = Fixture::copy_of("tiny-composer");
    let (_usual, usual) = converted(fixture.save(), &["--f32"]);
    for name in ["model.tok_embeddings.weight", "output.weight"] {
        let tensor = fixture.tensor(name);
        let n_cols = tensor.shape[1];
        let rows = order
            .iter()
            .map(|old| &tensor.values[old * n_cols..][..n_cols]);
        tensor.values = rows.flatten().copied().collect();
    }
    fixture.save();
    let reordered: Vec<u8> = order.iter().flat_map(|old| pieces[*old]).copied().collect();
    fixture.write("tokenizer.model", [&reordered, rest].concat());
    let (_other, other) = converted(fixture.path(), &["--f32"]);

    let prompt = Container::open(&other).unwrap().info().prompt.clone();
    assert_eq!((prompt.eos, prompt.bos), (300, 302));
    let tokenizer = tokenizer(&other);
    assert_eq!(tokenizer.decode(&[300, 301, 302]), "");
    assert_eq!(
        tokenizer.encode("</s><unk><s>", SpecialText::Parse),
        [300, 301, 302]
    );
    assert_eq!(tokenizer.piece(0), [0]); // `<0x00>`
    assert_eq!(tokenizer.decode(&[0x41, 0x42, 0x43]), "ABC");

    let answer = |model: &Path| {
        let engine = Engine::load(model, EngineOptions::default()).unwrap();
        let request = Request {
            chat: Chat {
                query: "What is a dog?".to_owned(),
                ..Chat::default()
            },
            n_predict: 24,
            ..Request::default()
        };
        engine.answer(&request, &mut ()).unwrap()
    };
    let (usual, other) = (answer(&usual), answer(&other));
    assert_eq!(usual.text, other.text);
    let old: Vec<i32> = other
        .ids
        .iter()
        .map(|id| order[*id as usize] as i32)
        .collect();
    assert_eq!(usual.ids, old);
}
