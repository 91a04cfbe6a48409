//! Answers constrained by a grammar.

use std::ops::ControlFlow;

use crate::common::scenes::{ask, engine};
use xc2_edge::{
    engine::{Answer, Request},
    language::grammar::Grammar,
};

const BRIEF: &str = "Describe this image briefly.";

fn held(mut request: Request, grammar: Grammar) -> Request {
    request.grammar = Some(grammar);
    request
}

fn answer(request: &Request) -> Answer {
    engine().answer(request, &mut ()).unwrap()
}

fn gbnf(text: &str) -> Grammar {
    Grammar::gbnf(text).unwrap()
}

#[test]
fn greedy_and_sampled_answers_match_the_grammar() {
    let grammar = gbnf("root ::= (\"red\" | \"green\") \", \" [0-9]{3}");
    for (seed, temperature) in [(500, 0.0), (501, 0.0), (502, 1.0), (503, 2.0)] {
        let mut request = held(ask(&[seed], BRIEF), grammar.clone());
        request.sampling.temperature = temperature;
        request.sampling.top_p = 1.0;
        let text = answer(&request).text;
        let (color, number) = text.split_once(", ").expect("two parts");
        assert!(["red", "green"].contains(&color), "{text}");
        assert!(number.len() == 3 && number.parse::<u32>().is_ok(), "{text}");
    }
}

#[test]
fn a_grammar_that_allows_everything_changes_nothing() {
    let anything = gbnf("root ::= [^\\x00]*");
    for seed in 510..514 {
        let free = ask(&[seed], BRIEF);
        let request = held(free.clone(), anything.clone());
        assert_eq!(answer(&request).ids, answer(&free).ids);
    }
    let mut drawn = ask(&[514], BRIEF);
    drawn.sampling.temperature = 1.0;
    drawn.sampling.repeat_penalty = 1.1;
    let request = held(drawn.clone(), anything);
    assert_eq!(answer(&request).ids, answer(&drawn).ids);
}

#[test]
fn allowed_answers_are_unchanged_and_others_are_not() {
    let free = answer(&ask(&[520], BRIEF)).text;
    let exact = format!("root ::= {free:?}");
    assert_eq!(answer(&held(ask(&[520], BRIEF), gbnf(&exact))).text, free);
    let chinese = gbnf("root ::= \"图中\" [一-龥]{1,5} \"。\"");
    let text = answer(&held(ask(&[520], BRIEF), chinese)).text;
    assert!(text.starts_with("图中") && text.ends_with('。'), "{text}");
}

#[test]
fn control_tokens_do_not_match_as_text() {
    let brackets = gbnf("root ::= \"[UNUSED_TOKEN_145]\" \"!\"");
    let answer = answer(&held(ask(&[530], BRIEF), brackets));
    assert_eq!(answer.text, "[UNUSED_TOKEN_145]!");
    assert!(answer.ids.len() > 5, "spelled out: {:?}", answer.ids);
}

#[test]
fn json_answers_fit_their_schema() {
    let schema = r#"{
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 0, "maximum": 9},
            "color": {"enum": ["red", "green", "blue"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2}
        },
        "required": ["count", "color", "tags"],
        "additionalProperties": false
    }"#;
    let grammar = Grammar::json_schema(schema).unwrap();
    for (seed, temperature) in [(540, 0.0), (541, 1.5)] {
        let mut request = held(ask(&[seed], "List the objects as JSON."), grammar.clone());
        request.sampling.temperature = temperature;
        request.n_predict = 300;
        let text = answer(&request).text;
        let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
        assert!(!text.trim_end().contains('\n'), "on one line: {text}");
        assert!(
            value["count"]
                .as_i64()
                .is_some_and(|n| (0..=9).contains(&n)),
            "{text}"
        );
        assert!(["red", "green", "blue"].contains(&value["color"].as_str().unwrap()));
        assert!(value["tags"].as_array().unwrap().len() <= 2);
    }
}

#[test]
fn parallel_requests_have_their_own_grammars() {
    let requests = [("one", 550), ("two", 551), ("three", 552)].map(|(word, seed)| {
        let grammar = gbnf(&format!("root ::= \"{word}\""));
        held(ask(&[seed], BRIEF), grammar)
    });
    let mut texts = [const { String::new() }; 3];
    let on_answer = |i: usize, result: Result<Answer, _>| {
        texts[i] = result.unwrap().text;
        ControlFlow::Continue(())
    };
    engine()
        .answer_many(2, requests.into_iter(), on_answer)
        .unwrap();
    assert_eq!(texts, ["one", "two", "three"]);
}

#[test]
fn errors_in_grammars_and_schemas_have_reason_and_position() {
    let message = |result: Result<Grammar, _>| -> String {
        let error: xc2_edge::language::grammar::GrammarError = result.unwrap_err();
        error.to_string()
    };
    let error = message(Grammar::gbnf("root ::= \"a\"\nb ::= (\"c\""));
    assert!(error.contains("line 2, column 11: expected `)`"), "{error}");
    let error = message(Grammar::json_schema("{\n  \"type\": objct\n}"));
    assert!(
        error.starts_with("JSON schema, line 2, column 11: "),
        "{error}"
    );
    let error = message(Grammar::json_schema("[1]"));
    assert!(error.contains("expected an object, found `[1]`"), "{error}");
    let error = message(Grammar::json_schema(r##"{"$ref": "#/nowhere"}"##));
    assert!(error.contains("`$ref`"), "{error}");
    // Well-formed, but llama.cpp rejects it.
    let error = message(Grammar::gbnf("root ::= root \"a\" | \"b\""));
    assert!(error.contains("llama.cpp refuses it"), "{error}");
}
