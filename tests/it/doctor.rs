//! `xc2-edge doctor`: its report about a machine, with and without a model.

use std::process::Command;

use crate::common::program::{assert_fails, path, stderr, stdout, xc2_edge};
use serde_json::Value;
use xc2_convert::mix::Preset;

fn report(args: &[&str]) -> Value {
    let output = xc2_edge(&[&["doctor", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_str(stdout(&output)).unwrap()
}

fn finding<'a>(report: &'a Value, topic: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap().iter();
    let mut of_topic = findings.filter(|f| f["topic"] == topic);
    of_topic
        .next()
        .unwrap_or_else(|| panic!("nothing of `{topic}`: {report}"))
}

#[test]
fn a_machine_is_described_without_a_model() {
    let report = report(&[]);
    for topic in [
        "cpu", "load", "kernels", "build", "memory", "heat", "expect",
    ] {
        assert!(!finding(&report, topic)["text"].as_str().unwrap().is_empty());
    }
    // This build is for this machine.
    assert_eq!(finding(&report, "build")["level"], "ok", "{report}");
    assert_eq!(finding(&report, "expect")["level"], "unknown");
    assert!(report["estimate"].is_null());
}

#[test]
fn a_model_is_compared_with_the_machine() {
    let model = path(&crate::common::trained(Preset::Q8_0));
    let report = report(&["-m", &model, "-t", "1"]);
    let estimate = &report["estimate"];
    for number in [
        "product_ops_per_s",
        "memory_bytes_per_s",
        "encode_s",
        "prefill_s",
        "decode_tokens_per_s",
    ] {
        assert!(
            estimate[number].as_f64().is_some_and(|n| n > 0.0),
            "{number}: {report}"
        );
    }
    let text = |topic| finding(&report, topic)["text"].as_str().unwrap().to_owned();
    assert!(text("storage").contains("the whole model in"), "{report}");
    assert!(text("memory").contains("the model needs"), "{report}");
    assert!(text("expect").contains("estimated from"), "{report}");
}

#[test]
fn slow_settings_are_warnings_with_advice() {
    let program = env!("CARGO_BIN_EXE_xc2-edge");
    let output = Command::new(program)
        .arg("doctor")
        .env("XC2_SIMD", "scalar")
        .output()
        .unwrap();
    let text = stdout(&output);
    assert!(
        text.contains("WARN  kernels   scalar, though this CPU has"),
        "{text}"
    );
    assert!(text.contains("-> unset XC2_SIMD"), "{text}");
    let text = xc2_edge(&["doctor", "-t", "512"]);
    assert!(stdout(&text).contains("WARN  cpu"), "{}", stdout(&text));
}

#[test]
fn a_missing_model_is_an_error() {
    assert_fails(&["doctor", "-m", "missing.gguf"], &["missing.gguf"]);
    assert_fails(
        &["doctor", "--storage", "missing"],
        &["missing: cannot be measured"],
    );
}
