//! `xc2-edge eval` with the trained model, converted to F16.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use serde_json::{Value, json};
use xc2_convert::mix::Preset;
use xc2_edge::model::container::Task;

/// Margin of a recorded answer, in logits, that float noise does not overturn.
const CLEAR: f64 = 0.5;

fn trained(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/xc2-scenes")
        .join(file)
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

fn model() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = scratch("xc2-scenes.gguf");
        crate::common::convert(&trained(""), Preset::F16, Task::Base, &path);
        path
    });
    &MODEL
}

fn clear_prompts() -> impl Iterator<Item = Value> {
    let text = fs::read_to_string(trained("heldout.jsonl")).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap();
    let papers: Vec<Value> = text.lines().map(parse).collect();
    let is_clear = |p: &Value| p["margin"].as_f64().unwrap() > CLEAR;
    papers.into_iter().filter(is_clear)
}

/// One prompt of each form: system text, positions of `<s>` and pictures, turns, forced starts.
fn a_prompt_of_each_form() -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let is_new = |p: &Value| {
        let n = |field: &str| p[field].as_array().unwrap().len();
        let fixed = ["system", "bos", "pictures"].map(|field| p[field].to_string());
        let forced = p["forced"] != "";
        seen.insert((fixed, n("scenes").min(2), n("history") > 0, forced))
    };
    clear_prompts().filter(is_new).collect()
}

fn eval(name: &str, papers: &[Value], more: &[&str]) -> Output {
    let file = scratch(name);
    let lines: String = papers.iter().map(|p| format!("{p}\n")).collect();
    fs::write(&file, lines).unwrap();
    Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(["eval", "-t", "1", "-m"])
        .args([model(), &file])
        .args(more)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn answers_equal_those_of_pytorch_for_every_form_of_prompt() {
    let papers = a_prompt_of_each_form();
    assert!(papers.len() > 8, "{} forms only", papers.len());
    let report = report(&eval("forms.jsonl", &papers, &["--json"]));
    let said_otherwise: Vec<_> = report["departures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["answer"] != d["recorded"])
        .collect();
    assert!(said_otherwise.is_empty(), "{said_otherwise:#?}");
    assert_eq!(report["all"]["as_recorded"], papers.len());
    assert_eq!(report["skipped"], json!({}));
}

#[test]
fn a_wrong_answer_is_counted_and_shown() {
    let mut papers = a_prompt_of_each_form();
    papers.truncate(2);
    papers[0]["expected"] = json!("something else");
    let report = report(&eval("wrong.jsonl", &papers, &["--json", "--tasks"]));
    let all = json!({"prompts": 2, "right": 1, "as_recorded": 2});
    assert_eq!(report["all"], all);
    assert_eq!(report["rows"][0][0], papers[0]["task"]);
    let departures = report["departures"].as_array().unwrap();
    assert_eq!(departures.len(), 1);
    assert_eq!(departures[0]["line"], 1);
}

#[test]
fn captions_need_plora_on_pictures_and_nowhere_else() {
    let captions: Vec<Value> = clear_prompts()
        .filter(|p| p["group"] == "captions")
        .take(4)
        .collect();
    let right = |plora: &str| {
        let output = eval(plora, &captions, &["--json", "--plora", plora]);
        report(&output)["all"]["right"].as_u64().unwrap()
    };
    assert!(right("images") > right("none"));
    assert_eq!(right("all"), 0);
}

#[test]
fn prompts_that_no_template_can_express_are_skipped_and_named() {
    let mut papers = a_prompt_of_each_form();
    papers.truncate(1);
    papers[0]["pictures"] = json!("before");
    let output = eval("before.jsonl", &papers, &[]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("1 skipped: no template"), "{table}");
}

#[test]
fn invalid_lines_are_named() {
    let mut papers = a_prompt_of_each_form();
    papers.truncate(2);
    papers[1]["scenes"][0]["things"][0]["turn"] = json!(90);
    let scene = eval("scene.jsonl", &papers, &[]);
    papers[1]["bos"] = json!("thrice");
    let form = eval("form.jsonl", &papers, &[]);
    for (output, naming) in [(scene, "`turn` is 90"), (form, "`thrice`")] {
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(".jsonl:2: "), "{message}");
        assert!(message.contains(naming), "{message}");
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(["eval", "-t", "1", "-m"])
        .arg(model())
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn scenes_are_drawn_from_seeds() {
    let report = report(&run(&["--scenes", "300..302", "--json"]));
    let tasks: Vec<_> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row[0])
        .collect();
    assert_eq!(tasks.len(), xc2_edge::evaluation::scenes::Task::ALL.len());
    assert_eq!(tasks[0], "caption_brief");
    assert_eq!(report["all"], json!({"prompts": 22, "right": 22}));

    let chosen = ["--scenes", "300..310", "--ask", "list,json", "--limit", "3"];
    let table = String::from_utf8(run(&chosen).stdout).unwrap();
    assert!(
        table.contains("list                         2  100.0 %\n"),
        "{table}"
    );
    assert!(!table.contains("PyTorch"), "{table}");
}

#[test]
fn a_wrong_answer_about_a_scene_is_shown_with_its_seed() {
    let wrong = [
        "--scenes",
        "300..301",
        "--ask",
        "caption_brief",
        "-n",
        "2",
        "--json",
    ];
    let report = report(&run(&wrong));
    assert_eq!(report["all"], json!({"prompts": 1, "right": 0}));
    assert_eq!(report["departures"][0]["seed"], 300);
    assert_eq!(report["departures"][0]["recorded"], Value::Null);
}

#[test]
fn prompts_are_read_from_a_file_or_made_from_seeds() {
    let file = trained("heldout.jsonl");
    let file = file.to_str().unwrap();
    for (args, naming) in [
        (&[][..], "<PROMPTS>"),
        (&[file, "--scenes", "0..1"], "cannot be used with"),
        (&[file, "--ask", "list"], "cannot be used with"),
        (&["--scenes", "0..1", "--ask", "poem"], "caption_brief"),
        (&["--scenes", "1..0"], "found 1 and 0"),
    ] {
        let output = run(args);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(naming), "{message}");
    }
    let output = run(&["--scenes", "1000000..1000001", "--ask", "count"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("trained on seeds from 1000000"),
        "{message}"
    );
}

fn run_against(model: &Path, reference: &Path, seeds: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .args(["eval", "-t", "1", "--scenes", seeds, "-m"])
        .arg(model)
        .arg("--against")
        .arg(reference)
        .args(more)
        .output()
        .unwrap()
}

/// The comparison of `eval --against` over all prompts.
fn against(model: &Path, reference: &Path, more: &[&str]) -> Value {
    let more = [&["--json"], more].concat();
    report(&run_against(model, reference, "300..301", &more))["all"]["against"].clone()
}

#[test]
fn a_model_has_zero_divergence_from_itself_and_its_quantization_has_some() {
    let quantized = scratch("q4_k.gguf");
    crate::common::convert(&trained(""), Preset::Q4K, Task::Base, &quantized);
    let number = |report: &Value, field: &str| report[field].as_f64().unwrap();

    let own = against(model(), model(), &["-n", "24"]);
    assert_eq!(number(&own, "mean_kl"), 0.0);
    assert_eq!(number(&own, "kl_standard_error"), 0.0);
    assert_eq!(number(&own, "same_top"), 1.0);
    assert!(number(&own, "least_margin") > 0.0);
    assert!(number(&own, "mean_margin") > number(&own, "least_margin"));

    let fewer_bits = against(&quantized, model(), &["-n", "24"]);
    assert_eq!(fewer_bits["tokens"], own["tokens"]);
    assert!(number(&fewer_bits, "mean_kl") > 0.0);
    assert!(number(&fewer_bits, "kl_standard_error") > 0.0);

    // Without tokens of an answer only its first choice is compared, and there is no margin.
    let nothing = against(model(), model(), &["-n", "0"]);
    assert_eq!(
        (&nothing["tokens"], &nothing["least_margin"]),
        (&json!(11), &Value::Null)
    );

    let blind = against(model(), model(), &["-n", "24", "--plora", "none"]);
    assert!(number(&blind, "mean_kl") > 100.0 * number(&fewer_bits, "mean_kl"));
    assert!(number(&blind, "same_top") < 1.0);
    assert!(number(&blind, "least_margin") < 0.0);
}

#[test]
fn a_comparison_reports_each_prompt_and_the_standard_error() {
    let blind = ["--plora", "none", "--ask", "list,count"];
    let report = report(&run_against(
        model(),
        model(),
        "300..302",
        &[&["--json"], &blind[..]].concat(),
    ));
    let compared = report["compared"].as_array().unwrap();
    let names: Vec<_> = compared.iter().map(|p| (&p["seed"], &p["task"])).collect();
    let (list, count) = (json!("list"), json!("count"));
    let seeds = [json!(300), json!(301)];
    let expected = [
        (&seeds[0], &list),
        (&seeds[0], &count),
        (&seeds[1], &list),
        (&seeds[1], &count),
    ];
    assert_eq!(names, expected);

    let sums: Vec<(f64, f64)> = compared
        .iter()
        .map(|p| {
            // A single prompt has no standard error.
            assert_eq!(p.get("kl_standard_error"), None);
            let n = p["tokens"].as_f64().unwrap();
            (n, n * p["mean_kl"].as_f64().unwrap())
        })
        .collect();
    let n: f64 = sums.iter().map(|(n, _)| n).sum();
    let mean = sums.iter().map(|(_, kl)| kl).sum::<f64>() / n;
    let squares: f64 = sums.iter().map(|(n, kl)| (kl - mean * n).powi(2)).sum();
    let error = (squares * 4.0 / 3.0).sqrt() / n;
    let all = &report["all"]["against"];
    for (field, expected) in [("mean_kl", mean), ("kl_standard_error", error)] {
        let found = all[field].as_f64().unwrap();
        assert!(
            (found / expected - 1.0).abs() < 1e-9,
            "{field}: {found}, {expected}"
        );
    }

    let table =
        String::from_utf8(run_against(model(), model(), "300..302", &blind).stdout).unwrap();
    assert!(table.contains("  KL, nats/token  std. error  "), "{table}");
    assert!(table.contains(&format!(" {mean:.2e} ")), "{table}");
    assert!(table.contains(&format!(" {error:.1e} ")), "{table}");
}

#[test]
fn a_reference_of_another_vocabulary_is_refused() {
    let other = crate::common::model("tiny-vl", Preset::F16);
    let other = other.to_str().unwrap();
    let output = run(&["--scenes", "0..1", "--against", other]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("--against: expected two files of one model"),
        "{message}"
    );
    assert!(message.contains("2048"), "{message}");
}
