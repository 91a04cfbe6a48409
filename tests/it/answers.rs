//! `xc2-edge run` with beams and grammars.

use std::{fs, path::Path};

use crate::common::program::{assert_fails, path, stderr, stdout, xc2_edge};
use serde_json::{Value, json};
use xc2_convert::mix::Preset;

const SCENE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/models/scenes/three-shapes.png"
);
const NO_MODEL: &str = "no-such-model.gguf";

/// A new file with `text`.
fn file(name: &str, text: &str) -> String {
    let dir =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("answers-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    path(&file)
}

/// The answer of the trained model about the scene, with further options.
#[track_caller]
fn ask(query: &str, options: &[&str]) -> String {
    ask_of(Preset::F16, query, options)
}

/// Like [`ask`], with the model in the given preset.
#[track_caller]
fn ask_of(preset: Preset, query: &str, options: &[&str]) -> String {
    let model = path(&crate::common::trained(preset));
    let run = [
        "run", "-m", &model, "--image", SCENE, "-p", query, "-t", "1",
    ];
    let output = xc2_edge(&[&run[..], options].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim_end().to_owned()
}

#[test]
fn a_json_answer_about_a_picture_fits_its_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "background": {"enum": ["white", "black", "gray"]},
        },
        "required": ["count", "background"],
        "additionalProperties": false,
    });
    let schema = file("scene.json", &schema.to_string());
    let text = ask("Describe this image briefly.", &["--json-schema", &schema]);
    let value: Value = serde_json::from_str(&text).expect(&text);
    let count = value["count"].as_i64().expect(&text);
    assert!((1..=9).contains(&count), "{text}");
    let background = value["background"].as_str().expect(&text);
    assert!(["white", "black", "gray"].contains(&background), "{text}");
    assert_eq!(value.as_object().unwrap().len(), 2, "{text}");
}

#[test]
fn a_grammar_forces_words_that_the_model_would_not_use() {
    let grammar = file(
        "colors.gbnf",
        "root ::= color \" / \" color\ncolor ::= \"mauve\" | \"teal\"\n",
    );
    let query = "Describe this image briefly.";
    let text = ask(query, &["--grammar", &grammar]);
    let (a, b) = text.split_once(" / ").expect(&text);
    for color in [a, b] {
        assert!(["mauve", "teal"].contains(&color), "{text}");
        assert!(!ask(query, &[]).contains(color));
    }
}

/// With `--repack on` llama.cpp's AMX kernels run on CPUs that have AMX; some compilers miscompile them
/// (`.cargo/config.toml`).
#[test]
fn the_backend_does_not_change_the_answer() {
    let query = "Please describe this image in detail.";
    let ours = ask_of(Preset::Q4K, query, &[]);
    for options in [&["--backend", "ggml"][..], &["--repack", "on"]] {
        assert_eq!(ask_of(Preset::Q4K, query, options), ours, "{options:?}");
    }
}

#[test]
fn one_beam_is_greedy_and_json_reports_beams() {
    let query = "Describe this image briefly.";
    assert_eq!(ask(query, &["--beams", "1"]), ask(query, &[]));
    let report: Value = serde_json::from_str(&ask(query, &["--beams", "3", "--json"])).unwrap();
    assert_eq!(report["stop"], "stop");
    assert_eq!(report["timings"]["n_images"], 1, "{report}");
    let n_generated = report["n_generated"].as_u64().unwrap();
    assert!(
        report["timings"]["n_decode"].as_u64().unwrap() >= n_generated,
        "{report}"
    );
}

#[test]
fn conflicting_options_are_refused_before_the_model_is_loaded() {
    let grammar = file("a.gbnf", "root ::= \"a\"\n");
    let beams = ["run", "-m", NO_MODEL, "-p", "Hi", "--beams"];
    for (options, found) in [
        (&["3", "--temp", "0.5"][..], "temperature 0.5"),
        (&["3", "--repeat-penalty", "1.1"], "repetition penalty 1.1"),
        (&["3", "--grammar", &grammar], "a grammar"),
    ] {
        assert_fails(
            &[&beams[..], options].concat(),
            &["beam search", "1 to 64", found],
        );
    }
    let both = [
        "run",
        "-m",
        NO_MODEL,
        "-p",
        "Hi",
        "--grammar",
        &grammar,
        "--json-schema",
        &grammar,
    ];
    assert_eq!(xc2_edge(&both).status.code(), Some(2));
}

#[test]
fn errors_in_grammars_name_the_file_before_the_model_is_loaded() {
    let with = |option: &str, text: &str, naming: &[&str]| {
        let file = file(&format!("bad{}", naming.len()), text);
        let args = ["run", "-m", NO_MODEL, "-p", "Hi", option, &file];
        assert_fails(&args, &[&[&file[..]], naming].concat());
    };
    with(
        "--grammar",
        "root ::= (\"a\"\n",
        &["line 2, column 1", "expected `)`, found the end"],
    );
    with(
        "--grammar",
        "root ::= root \"a\" | \"b\"\n",
        &["left recursion"],
    );
    with(
        "--json-schema",
        "{\"type\": objct}",
        &["JSON schema, line 1", "column 10", "expected"],
    );
    let missing = [
        "run",
        "-m",
        NO_MODEL,
        "-p",
        "Hi",
        "--grammar",
        "no-such.gbnf",
    ];
    assert_fails(&missing, &["no-such.gbnf: cannot be read"]);
}
