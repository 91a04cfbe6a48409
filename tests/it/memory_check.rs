//! The memory check: which runs are refused, and that the advice is sufficient.

use crate::common::program::{assert_fails, path, stderr, xc2_edge};
use serde_json::Value;
use xc2_convert::mix::Preset;

fn model(preset: Preset) -> String {
    path(&crate::common::model("tiny-composer", preset))
}

/// Bytes that `info` predicts for these options.
fn need(model: &str, options: &[&str]) -> u64 {
    let output = xc2_edge(&[&["info", "-m", model, "--json"], options].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["memory"]["total_bytes"].as_u64().unwrap()
}

/// The options in a hint, those of each way together.
fn advised(message: &str) -> Vec<Vec<String>> {
    let hint = message.split_once("hint: ").expect("there is a hint").1;
    let quoted = hint.split('`').skip(1).step_by(2);
    let ways = quoted.filter(|way| *way != "--no-memory-check" && !way.starts_with("--q"));
    ways.map(|way| way.split(' ').map(String::from).collect())
        .collect()
}

#[test]
fn runs_that_do_not_fit_are_refused_and_all_advice_is_sufficient() {
    let model = model(Preset::F32);
    let picture = path(&crate::common::reference("images").join("one.png"));
    let run = [
        "run", "-m", &model, "--image", &picture, "-p", "Hi", "-n", "1", "-c", "4096",
    ];
    let whole = need(&model, &["-c", "4096"]);
    let smallest = need(&model, &["-c", "256", "--kv-type", "q8_0"]);
    for limit in [
        whole - 1,
        (whole + smallest) / 2,
        smallest + (whole - smallest) / 8,
    ] {
        let limit = format!("{limit}");
        let limited = [&run[..], &["--max-memory", &limit]].concat();
        assert_fails(
            &limited,
            &["not enough memory", "hint: use ", "--no-memory-check"],
        );
        let ways = advised(stderr(&xc2_edge(&limited)));
        assert!(!ways.is_empty(), "of {limit}");
        for way in ways {
            let way: Vec<&str> = way.iter().map(String::as_str).collect();
            // Repeating an option would be a usage error.
            let mut args = limited.clone();
            if way.contains(&"--ctx-size") {
                args.retain(|arg| !["-c", "4096"].contains(arg));
            }
            args.extend(&way);
            let output = xc2_edge(&args);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{way:?}: {}",
                stderr(&output)
            );
        }
    }
}

#[test]
fn beams_need_memory_for_their_answers_and_all_advice_is_sufficient() {
    let model = model(Preset::F32);
    let one = ["run", "-m", &model, "-p", "Hi", "-n", "600", "--max-memory"];
    let info = xc2_edge(&["info", "-m", &model, "-c", "1024", "--json"]);
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    let limit = info["memory"]["text_only"]["total_bytes"].to_string();
    let one = [&one[..], &[&limit]].concat();
    let output = xc2_edge(&[&one[..], &["-c", "1024"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let beams = [&one[..], &["--beams", "5"]].concat();
    let refused = [&beams[..], &["-c", "1024"]].concat();
    assert_fails(&refused, &["not enough memory", "--ctx-size"]);
    for way in advised(stderr(&xc2_edge(&refused))) {
        let way: Vec<&str> = way.iter().map(String::as_str).collect();
        let base = match way.contains(&"--ctx-size") {
            true => &beams,
            false => &refused,
        };
        let output = xc2_edge(&[&base[..], &way].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{way:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_disk_cache_needs_a_copy_of_keys_and_values() {
    let model = model(Preset::F32);
    let info = |options: &[&str]| -> Value {
        let output = xc2_edge(&[&["info", "-m", &model, "-c", "1024", "--json"], options].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (without, with) = (info(&[]), info(&["--cache", "nowhere-yet"]));
    let part = |info: &Value, name: &str| info["memory"]["need"][name].as_u64().unwrap();
    let copy = part(&without, "kv_cache");
    assert_eq!(part(&with, "kept"), part(&without, "kept") + copy);
    let total = |info: &Value| info["memory"]["total_bytes"].as_u64().unwrap();
    assert_eq!(total(&with), total(&without) + copy);
    // 1024 positions hold 16 pictures of 64; the tower's scratch has the first one's embeddings.
    assert_eq!(part(&without, "kept"), 15 * 64 * 256 * 4);
    assert!(!std::path::Path::new("nowhere-yet").exists());
}

#[test]
fn weights_that_do_not_fit_are_refused_before_loading() {
    let model = model(Preset::F32);
    let run = ["run", "-m", &model, "-p", "Hi", "--max-memory"];
    // A quantized cache would fit.
    let quantized = need(&self::model(Preset::Q8_0), &["-c", "256"]).to_string();
    assert_fails(
        &[&run[..], &[&quantized]].concat(),
        &["converted with `--q"],
    );
    assert_fails(
        &[&run[..], &["1MB"]].concat(),
        &[
            "not enough memory",
            "1.0 MB available",
            "no option makes this model fit",
        ],
    );
}

#[test]
fn the_check_can_be_disabled() {
    let model = model(Preset::F32);
    let output = xc2_edge(&[
        "run",
        "-m",
        &model,
        "-p",
        "Hi",
        "-n",
        "1",
        "--max-memory",
        "1MB",
        "--no-memory-check",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn an_invalid_size_is_a_usage_error() {
    let output = xc2_edge(&["run", "-m", "m.gguf", "--max-memory", "much"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("1.5GB"), "{}", stderr(&output));
}

#[test]
fn peak_memory_is_within_ten_percent_of_the_prediction() {
    let model = path(&crate::common::trained(Preset::F16));
    let scene = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/scenes/three-shapes.png"
    );
    let common = ["--json", "-n", "4", "-c", "512", "-t", "2"];
    let report = |args: &[&str]| -> Value {
        let output = xc2_edge(&[args, &["-m", &model]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
    };
    let predicted = report(&["info", "--json", "-c", "512", "-t", "2"])["memory"].clone();
    let of_picture = [
        "run",
        "-p",
        "Describe this image briefly.",
        "--image",
        scene,
    ];
    for (args, predicted) in [
        (
            &["run", "-p", "Hi"][..],
            &predicted["text_only"]["peak_resident_bytes"],
        ),
        (&of_picture[..], &predicted["peak_resident_bytes"]),
    ] {
        let measured = report(&[args, &common].concat())["peak_memory_bytes"]
            .as_f64()
            .unwrap();
        let ratio = measured / predicted.as_f64().unwrap();
        assert!(
            (0.9..1.1).contains(&ratio),
            "{args:?}: {measured} is {ratio} of {predicted}"
        );
    }
}

/// A grey picture of `width` times `height` pixels, as PNG.
fn grey(name: &str, width: u32, height: u32, shade: u8) -> String {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let picture = image::GrayImage::from_pixel(width, height, image::Luma([shade]));
    picture.save(&file).unwrap();
    path(&file)
}

#[test]
fn a_picture_too_large_to_decode_is_refused_by_name_beforehand() {
    let model = model(Preset::F32);
    // Four bytes a pixel: the grey, and RGB made of it.
    let large = grey("large.png", 8000, 6000, 200);
    let ask = ["run", "-m", &model, "-p", "Hi", "-n", "1"];
    let limited = [&ask[..], &["--image", &large, "--max-memory", "150MB"]].concat();
    assert_fails(
        &limited,
        &[
            "large.png",
            "8000x6000",
            "192.0 MB",
            "make it smaller",
            "hint: use a larger `--max-memory`",
        ],
    );
    // Two pictures of which only one at a time fits.
    let (one, other) = (
        grey("one.png", 4000, 4000, 1),
        grey("other.png", 4000, 4000, 2),
    );
    let both = ["--image", &one, "--image", &other, "--max-memory", "150MB"];
    let output = xc2_edge(&[&ask[..], &both].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for file in [large, one, other] {
        std::fs::remove_file(file).unwrap();
    }
}
