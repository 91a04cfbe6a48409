//! The program `xc2-edge`: answers, options and errors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::program::{assert_fails, path, stderr, stdout, xc2_edge};
use serde_json::Value;
use xc2_convert::mix::Preset;
use xc2_edge::model::gguf::GgufFile;

fn model() -> String {
    path(&crate::common::model("tiny-composer", Preset::F32))
}

fn picture(name: &str) -> String {
    path(&crate::common::reference("images").join(name))
}

fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(name);
    fs::write(&file, bytes).unwrap();
    file
}

fn recorded(case: &str) -> Value {
    let file = crate::common::reference("golden/tiny-composer")
        .join(case)
        .with_extension("json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn the_answer_equals_that_of_the_original_chat() {
    let case = recorded("two_images");
    let (a, b) = (picture("alpha.png"), picture("gray.png"));
    let query = case["query"].as_str().unwrap();
    let output = xc2_edge(&[
        "run",
        "-m",
        &model(),
        "--image",
        &a,
        "--image",
        &b,
        "-p",
        query,
        "--system",
        "",
        "-n",
        "32",
    ]);
    assert_eq!(
        stdout(&output).trim_end_matches('\n'),
        case["chat_text"].as_str().unwrap()
    );
    assert!(
        stderr(&output).contains("encode 2 pictures"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_repetition_penalty_equals_that_of_the_original_chat() {
    for case in ["two_images", "text_history", "text_plain"] {
        let case = recorded(case);
        if !case["history"].as_array().unwrap().is_empty() {
            continue; // the command line takes no earlier turns
        }
        let pictures: Vec<String> = case["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| picture(name.as_str().unwrap()))
            .collect();
        let model = model();
        let mut args = vec!["run", "-m", &model, "--system", "", "-n", "32"];
        pictures
            .iter()
            .for_each(|p| args.extend(["--image", p.as_str()]));
        args.extend([
            "-p",
            case["query"].as_str().unwrap(),
            "--repeat-penalty",
            "1.005",
        ]);
        let expected = case["chat_text_repetition_penalty_1.005"].as_str().unwrap();
        assert_eq!(
            stdout(&xc2_edge(&args)).trim_end_matches('\n'),
            expected,
            "{}",
            case["name"]
        );
    }
}

#[test]
fn json_has_text_counts_and_timings() {
    let output = xc2_edge(&[
        "run",
        "-m",
        &model(),
        "--image",
        &picture("one.png"),
        "-p",
        "Hi",
        "-n",
        "5",
        "--json",
    ]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["n_image"], 64);
    assert_eq!(report["n_generated"], 5);
    assert_eq!(report["stop"], "length");
    assert!(report["timings"]["prefill_s"].as_f64().unwrap() > 0.0);
    assert!(!report["text"].as_str().unwrap().is_empty());
}

#[test]
fn quiet_prints_only_the_answer() {
    let output = xc2_edge(&["run", "-m", &model(), "-p", "Hi", "-n", "3", "--quiet"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(!stdout(&output).is_empty());
}

#[test]
fn a_seed_repeats_a_draw() {
    let draw = |seed: &str| {
        let model = model();
        let args = [
            "run", "-m", &model, "-p", "Hi", "-n", "16", "--temp", "2", "--top-p", "1", "--seed",
            seed,
        ];
        stdout(&xc2_edge(&args)).to_owned()
    };
    assert_eq!(draw("7"), draw("7"));
    assert_ne!(draw("7"), draw("8"));
}

#[test]
fn the_adapter_changes_answers_about_pictures_and_threads_do_not() {
    let answer = |extra: &[&str]| {
        let (model, picture) = (model(), picture("shapes.png"));
        let args = [
            "run",
            "-m",
            &model,
            "--image",
            &picture,
            "-p",
            "What is this?",
            "-n",
            "12",
        ];
        stdout(&xc2_edge(&[&args, extra].concat())).to_owned()
    };
    let right = answer(&[]);
    assert_eq!(right, answer(&["--threads", "1"]));
    assert_eq!(right, answer(&["--plora", "images"]));
    assert_ne!(right, answer(&["--plora", "none"]));
    assert_ne!(right, answer(&["--plora", "all"]));
}

#[test]
fn files_that_are_not_pictures_are_named() {
    let text = scratch("notes.jpg", b"no picture at all");
    assert_fails(
        &["run", "-m", &model(), "--image", &path(&text), "-p", "Hi"],
        &["notes.jpg", "JPEG, PNG"],
    );
    assert_fails(
        &["run", "-m", &model(), "--image", "missing.png", "-p", "Hi"],
        &["missing.png", "No such file"],
    );
    let whole = fs::read(picture("photo.jpg")).unwrap();
    let half = scratch("half.jpg", &whole[..whole.len() / 2]);
    assert_fails(
        &["run", "-m", &model(), "--image", &path(&half), "-p", "Hi"],
        &["half.jpg"],
    );
}

#[test]
fn a_huge_picture_is_refused_before_it_takes_memory() {
    let bomb = scratch("bomb.png", &png_of(30_000, 30_000));
    assert_fails(
        &["run", "-m", &model(), "--image", &path(&bomb), "-p", "Hi"],
        &["bomb.png", "30000x30000"],
    );
}

/// A PNG that declares a size and has almost no data.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |mut crc, byte| {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)));
            crc
        })
    };
    let chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        [
            &(data.len() as u32).to_be_bytes()[..],
            &body,
            &crc(&body).to_be_bytes(),
        ]
        .concat()
    };
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&size[..], &[8, 2, 0, 0, 0]].concat(); // 8 bits, RGB
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"IDAT", &[0x78, 0x9c, 3, 0]),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn markers_match_pictures() {
    let picture = picture("one.png");
    assert_fails(
        &[
            "run",
            "-m",
            &model(),
            "--image",
            &picture,
            "-p",
            "<ImageHere> and <ImageHere>?",
        ],
        &["2 `<ImageHere>` for 1 pictures", "hint"],
    );
    assert_fails(&["run", "-m", &model()], &["the prompt is empty", "-p"]);
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let picture = picture("one.png");
    let fits_not = [
        "run",
        "-m",
        &model(),
        "--image",
        &picture,
        "-p",
        "Hi",
        "-c",
        "70",
    ];
    assert_fails(
        &fits_not,
        &["64 of them pictures", "holds 70", "--ctx-size"],
    );
    assert_fails(
        &["run", "-m", &model(), "-p", "Hi", "-c", "99999"],
        &["1 to 4096", "99999"],
    );
    let long = "word ".repeat(9000);
    assert_fails(
        &["run", "-m", &model(), "-p", &long],
        &["the context holds 4096"],
    );
}

#[test]
fn the_context_may_end_an_answer() {
    let output = xc2_edge(&[
        "run",
        "-m",
        &model(),
        "-p",
        "Hi",
        "--system",
        "",
        "-c",
        "40",
        "--json",
    ]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["stop"], "context");
    assert_eq!(
        report["n_prompt"].as_u64().unwrap() + report["n_generated"].as_u64().unwrap(),
        41
    );
}

#[test]
fn files_that_are_not_models_are_distinguished() {
    assert_fails(
        &["info", "-m", "missing.gguf"],
        &["missing.gguf", "No such file"],
    );
    assert_fails(
        &["info", "-m", &picture("one.png")],
        &["not a GGUF file", "\\x89PNG"],
    );
    assert_fails(
        &[
            "info",
            "-m",
            &path(&crate::common::checkpoints::checkpoint("tiny-vl")),
        ],
        &["directory", "xc2-convert"],
    );
    let whole = fs::read(model()).unwrap();
    let cut = scratch("cut.gguf", &whole[..whole.len() - 1000]);
    assert_fails(
        &["run", "-m", &path(&cut), "-p", "Hi"],
        &["cut.gguf", "truncated", "hint"],
    );
    let container = GgufFile::open(Path::new(&model())).unwrap();
    let inner = container.data_offset("xc2.view.decoder").unwrap();
    let decoder = scratch("decoder.gguf", &whole[inner..]);
    assert_fails(
        &["run", "-m", &path(&decoder), "-p", "Hi"],
        &["internlm2", "xcomposer2"],
    );
}

#[test]
fn the_checksum_detects_damage() {
    let mut bytes = fs::read(model()).unwrap();
    let last = bytes.len() - 500;
    bytes[last] ^= 1;
    let damaged = path(&scratch("damaged.gguf", &bytes));
    assert!(xc2_edge(&["info", "-m", &damaged]).status.success());
    assert_fails(
        &["info", "-m", &damaged, "--checksum"],
        &["checksum", "damaged.gguf"],
    );
    assert!(
        xc2_edge(&["info", "-m", &model(), "--checksum"])
            .status
            .success()
    );
}

#[test]
fn info_describes_the_parts() {
    let text = xc2_edge(&["info", "-m", &model()]);
    for part in [
        "vision",
        "projector",
        "plora",
        "decoder",
        "112x112",
        "memory",
    ] {
        assert!(stdout(&text).contains(part), "{part}");
    }
    let report: Value =
        serde_json::from_slice(&xc2_edge(&["info", "-m", &model(), "--json"]).stdout).unwrap();
    let parts = report["parts"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|p| p["n_bytes"].as_u64().unwrap()).sum();
    assert_eq!(parts.len(), 4);
    assert!(sum < report["file_bytes"].as_u64().unwrap());
    assert_eq!(report["image"]["n_tokens"], 64);
}

#[test]
fn verify_passes_or_names_the_first_stage_that_differs() {
    let golden = path(&crate::common::reference("golden/tiny-composer"));
    let yes = xc2_edge(&["verify", "-m", &model(), &golden, "--failures"]);
    assert!(yes.status.success(), "{}", stderr(&yes));
    assert!(stderr(&yes).contains("all within tolerance"));

    let file = GgufFile::open(Path::new(&model())).unwrap();
    let begin = file.data_offset("v.blk.0.ln1.weight").unwrap();
    let mut bytes = fs::read(model()).unwrap();
    bytes[begin + 3] ^= 0x80;
    let spoiled = path(&scratch("spoiled.gguf", &bytes));
    let no = xc2_edge(&["verify", "-m", &spoiled, &golden, "--json"]);
    assert_eq!(no.status.code(), Some(1));
    assert!(
        stderr(&no).contains("`hidden.1` of alpha.png"),
        "{}",
        stderr(&no)
    );
    let first: Value = serde_json::from_str(stdout(&no).lines().next().unwrap()).unwrap();
    assert_eq!(first["subject"], "alpha.png");
}

#[test]
fn verify_needs_golden_data_of_this_model() {
    let other = path(&crate::common::reference("golden/tiny-vl"));
    assert_fails_after_output(&["verify", "-m", &model(), &other], "golden directory?");
    assert_fails(&["verify", "-m", &model(), "src"], &["no golden cases"]);
    assert_fails(&["verify", "-m", &model(), "nowhere"], &["nowhere"]);
}

/// Like [`assert_fails`], for a command that may print results first.
#[track_caller]
fn assert_fails_after_output(args: &[&str], naming: &str) {
    let output = xc2_edge(args);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(naming), "{}", stderr(&output));
}

#[test]
fn a_number_out_of_range_names_its_option_and_the_range() {
    for (args, option, range) in [
        (&["run", "-n", "-5"][..], "--n-predict", "0 or more"),
        (&["run", "--seed", "-1"], "--seed", "0 to 4294967295"),
        (&["run", "--top-k", "-1"], "--top-k", "0 or more"),
        (&["run", "--beams", "65"], "--beams", "1 to 64"),
        (&["run", "--temp", "-1"], "--temp", "0.001 or more"),
        (&["run", "-c", "-1"], "--ctx-size", "1 or more"),
        (&["info", "-t", "-1"], "--threads", "1 to 512"),
        (&["doctor", "-t", "-1"], "--threads", "1 to 512"),
        (&["verify", "x", "-t", "-1"], "--threads", "1 to 512"),
        (&["bench", "-r", "-1"], "--repetitions", "1 or more"),
        (&["bench", "-n", "-1"], "--n-decode", "1 or more"),
        (&["bench", "--images", "-1"], "--images", "1 to 1000"),
        (&["compose", "-n", "-1"], "--n-predict", "0 or more"),
        (&["compose", "--images", "-1"], "--images", "0 or more"),
        (&["compose", "--shorten", "-1"], "--shorten", "0 or more"),
        (&["search", "x", "y", "-n", "-1"], "--limit", "1 or more"),
        (&["eval", "--scenes", "-1..4"], "--scenes", "FIRST..END"),
        (&["eval", "x", "--limit", "-1"], "--limit", "1 or more"),
        (
            &["demo-scenes", "0..1", "x", "--size", "-1"],
            "--size",
            "16 to",
        ),
        (&["caption", "x", "-n", "-1"], "--n-predict", "1 or more"),
        (
            &["caption", "x", "--min-change", "-1"],
            "--min-change",
            "0 to 100",
        ),
        (
            &["caption", "x", "--shard", "-1/3"],
            "--shard",
            "from 1 to N",
        ),
        (&["index", "x", "--parallel", "-1"], "--parallel", "1 to 64"),
    ] {
        let output = xc2_edge(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let message = stderr(&output);
        for naming in ["invalid value", option, "expected", range] {
            assert!(message.contains(naming), "{args:?}: {message}");
        }
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for args in [
        &["run"][..],
        &["run", "-m", "x", "--temp", "-1"],
        &["run", "-m", "x", "--temp", "nan"],
        &["run", "-m", "x", "--top-p", "2"],
        &["run", "-m", "x", "--threads", "0"],
        &["run", "-m", "x", "--imagee", "y"],
        &["walk"],
    ] {
        assert_eq!(xc2_edge(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_shows_examples() {
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["info", "--help"],
        &["verify", "--help"],
    ] {
        let output = xc2_edge(args);
        assert!(
            output.status.success() && stdout(&output).contains("Examples:"),
            "{args:?}"
        );
    }
}

#[test]
fn any_number_of_tokens_works() {
    let none = xc2_edge(&["run", "-m", &model(), "-p", "Hi", "-n", "0", "-q"]);
    assert_eq!((none.status.code(), stdout(&none)), (Some(0), "\n"));
    let all = [
        "run",
        "-m",
        &model(),
        "-p",
        "Hi",
        "-n",
        "18446744073709551615",
        "-c",
        "150",
        "--json",
    ];
    let report: Value = serde_json::from_slice(&xc2_edge(&all).stdout).unwrap();
    assert_eq!(report["stop"], "context");
}

#[test]
fn a_prompt_may_begin_with_a_dash() {
    assert!(
        xc2_edge(&["run", "-m", &model(), "-p", "- one\n- two", "-n", "1"])
            .status
            .success()
    );
}

#[test]
fn a_closed_or_full_output_does_not_panic() {
    let golden = path(&crate::common::reference("golden/tiny-composer"));
    let run = format!("run -m {} -p Hi -n 2", model());
    for (command, expected) in [
        (format!("{run} --json > /dev/full"), 1),
        (format!("{run} > /dev/full"), 1),
        (format!("{run} 2> /dev/full"), 0),
        (format!("info -m {} > /dev/full", model()), 1),
        (format!("verify -m {} {golden} > /dev/full", model()), 1),
        (format!("{run} --json | true"), 0),
    ] {
        let script = format!(
            "set -o pipefail; {} {command}",
            env!("CARGO_BIN_EXE_xc2-edge")
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{command}: {}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains("panicked"), "{command}");
    }
}

#[test]
fn nan_weights_are_an_error() {
    let file = GgufFile::open(Path::new(&model())).unwrap();
    let begin = file.data_offset("output_norm.weight").unwrap();
    let mut bytes = fs::read(model()).unwrap();
    bytes[begin..begin + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let spoiled = path(&scratch("nan.gguf", &bytes));
    assert_fails(
        &["run", "-m", &spoiled, "-p", "Hi"],
        &["NaN or infinite logits", "--checksum"],
    );
}
