//! The tokenizer compared with the reference: 384 strings in the published vocabulary and in that of the tiny
//! checkpoints.

use std::fs;

use serde::Deserialize;
use xc2_edge::language::llama::SpecialText;

/// Strings whose ids differ from the reference even when control tokens are parsed in texts: that version of the
/// library drops white space beside a literal `<s>`, `</s>` or `<unk>`; ours keeps every character.
const WHITE_SPACE_KEPT: [&str; 9] = [
    "a <s> b",
    "  <s>  ",
    " <s> hello </s> world <unk> ",
    "\u{3000}<s>\u{3000}x",
    "\n<s>\n",
    "a\u{a0}<s>\u{a0}b",
    "事 — 路入  把GPT-4. 料；心，看  边. 出意，不；<s>\n提开又命同\n理quickly",
    "运。GPT-4及  业, 理文此\t由三\n关. 分 老\t上基。因品<s>  及，",
    "或建如\n<s>行\npeople",
];

/// Control tokens. In typed text they are plain text for us; the reference turns them into ids.
const CONTROL: [&str; 5] = [
    "<unk>",
    "<s>",
    "</s>",
    "[UNUSED_TOKEN_145]",
    "[UNUSED_TOKEN_146]",
];

#[derive(Deserialize)]
struct Line {
    text: String,
    ids_no_special: Vec<i32>,
    decoded_skip_special: String,
}

fn lines(path: &str) -> Vec<Line> {
    let text = fs::read_to_string(crate::common::reference(path)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn check(tokenizer_model: &str, n_pieces: usize, golden: &str) {
    let tokenizer = crate::common::vocabulary(tokenizer_model, n_pieces);
    let lines = lines(golden);
    assert_eq!(lines.len(), 384);
    let mut failures = Vec::new();
    for Line {
        text,
        ids_no_special,
        decoded_skip_special,
    } in &lines
    {
        let parsed = tokenizer.encode(text, SpecialText::Parse);
        let plain = tokenizer.encode(text, SpecialText::Plain);
        let has_control = CONTROL.iter().any(|c| text.contains(c));
        let mut expect = |what: &str, holds: bool| {
            if !holds {
                failures.push(format!("{what}: {text:?}"));
            }
        };
        let differs_by_name = WHITE_SPACE_KEPT.contains(&text.as_str());
        expect(
            "ids, control tokens read",
            (parsed == *ids_no_special) != differs_by_name,
        );
        expect(
            "ids of typed text",
            (plain == *ids_no_special) != has_control,
        );
        // The vocabulary writes a space as U+2581, so a literal one decodes to a space.
        expect(
            "typed text comes back",
            tokenizer.decode(&plain) == text.replace('\u{2581}', " "),
        );
        expect(
            "decoded text",
            tokenizer.decode(ids_no_special) == *decoded_skip_special,
        );
    }
    let shown = failures[..failures.len().min(5)].join("\n");
    assert!(
        failures.is_empty(),
        "{} of {}:\n{shown}",
        failures.len(),
        4 * lines.len()
    );
}

#[test]
fn the_published_vocabulary_gives_the_reference_ids_and_texts() {
    check(
        "tokenizer/tokenizer.model",
        92544,
        "tokenizer/tokenizer-golden.jsonl",
    );
}

#[test]
fn a_tiny_vocabulary_gives_the_reference_ids_and_texts() {
    check(
        "tiny-vl/tokenizer.model",
        1280,
        "golden/tiny-tokenizer-golden.jsonl",
    );
}

#[test]
fn typed_text_never_becomes_a_control_token() {
    let tokenizer = crate::common::vocabulary("tokenizer/tokenizer.model", 92544);
    for text in CONTROL {
        let ids = tokenizer.encode(&format!("x{text}\n"), SpecialText::Plain);
        assert!(
            ids.iter().all(|id| *id > 2 && *id < 92542),
            "{text}: {ids:?}"
        );
    }
}
