//! The reports of `xc2-edge bench`. No test checks a time.

use crate::common::program::{assert_fails, path, stderr, stdout, xc2_edge};
use serde_json::Value;
use xc2_convert::mix::Preset;

fn model() -> String {
    path(&crate::common::model("tiny-composer", Preset::Q8_0))
}

#[test]
fn every_stage_reports_times_rate_and_memory() {
    let model = model();
    let args = [
        "bench", "-m", &model, "-r", "2", "-n", "4", "--images", "2", "-t", "1", "--json",
    ];
    let output = xc2_edge(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["machine"]["n_threads"], 1);
    assert!(!report["machine"]["simd"].as_str().unwrap().is_empty());

    let rows = report["stages"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|r| r["stage"].as_str().unwrap()).collect();
    let expected = [
        "load",
        "encode",
        "embed",
        "layers",
        "projector",
        "prefill",
        "plora",
        "decode",
    ];
    assert_eq!(names, expected);
    for row in rows {
        let seconds = |name: &str| row[name].as_f64().unwrap();
        assert!(
            seconds("least_s") <= seconds("median_s") && seconds("median_s") <= seconds("most_s")
        );
        assert!(seconds("first_s") > 0.0);
        assert_eq!(row["n"], 2, "the warm-up does not count");
        if row["part_of"].is_null() {
            assert!(
                row["peak_memory_bytes"].as_u64().unwrap() > 1 << 20,
                "{row}"
            );
        } else {
            assert_eq!(row["part_of"], "encode");
        }
    }
    let parts: f64 = rows[2..5]
        .iter()
        .map(|r| r["median_s"].as_f64().unwrap())
        .sum();
    let whole = rows[1]["most_s"].as_f64().unwrap();
    assert!(parts > 0.0 && parts < 2.0 * whole, "{parts} of {whole}");
    assert_eq!(rows[1]["rate"]["unit"], "pictures/s");
    assert_eq!(rows[1]["arithmetic"], "int8");
    assert_eq!(
        rows[5]["work"], "128 positions of text",
        "as many as two pictures take"
    );
    assert_eq!(rows[7]["work"], "4 tokens after 128");
}

#[test]
fn a_mix_is_named_after_the_type_with_most_bytes() {
    // The largest matrix is one of the few in Q6_K.
    let model = path(&crate::common::trained(Preset::Q4K));
    let args = [
        "bench", "-m", &model, "-r", "1", "-t", "1", "--stages", "load",
    ];
    let table = xc2_edge(&args);
    assert!(stdout(&table).contains("decoder mostly q4_k"), "{table:?}");
    let report = xc2_edge(&[&args[..], &["--json"]].concat());
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["model"]["decoder_type"], "q4_k");
}

#[test]
fn stages_and_sizes_can_be_chosen() {
    let model = model();
    let output = xc2_edge(&[
        "bench", "-m", &model, "-r", "1", "-p", "17", "--stages", "prefill",
    ]);
    let table = stdout(&output);
    assert!(table.contains("17 positions of text"), "{table}");
    assert!(
        !table.contains("encode") && !table.contains("decode "),
        "{table}"
    );
}

#[test]
fn sizes_that_do_not_fit_are_refused_before_the_run() {
    let model = model();
    assert_fails(
        &["bench", "-m", &model, "-p", "9000"],
        &["1 to 4096", "9032"],
    );
    assert_fails(
        &["bench", "-m", &model, "-p", "50", "-n", "20", "-c", "60"],
        &["70 positions", "`--ctx-size` is 60"],
    );
    assert_fails(&["bench", "-m", "missing.gguf"], &["missing.gguf"]);
}

#[test]
fn the_decoder_is_compared_with_llama_cpps_kernels() {
    let model = model();
    let args = [
        "bench",
        "-m",
        &model,
        "-r",
        "1",
        "-p",
        "20",
        "-n",
        "2",
        "--compare",
    ];
    let stages = ["--stages", "plora,decode", "--json"];
    let output = xc2_edge(&[&args[..], &stages].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["stages"].as_array().unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let found: Vec<_> = rows
        .iter()
        .map(|r| (text(r, "stage"), text(r, "backend")))
        .collect();
    let expected = [
        ("plora", "xc2"),
        ("plora", "ggml"),
        ("decode", "xc2"),
        ("decode", "ggml"),
    ];
    assert_eq!(
        found,
        expected.map(|(stage, by)| (stage.to_owned(), by.to_owned()))
    );
}
