//! The members of the family that cut pictures into tiles, and checkpoints in 4 bits, against their recordings.

use std::{path::Path, process::Output};

use xc2_convert::mix::Preset;
use xc2_edge::{
    engine::Engine,
    evaluation::verify::{self, GoldenDir},
    model::container::Task,
};

use crate::common::{
    model_for,
    program::{path, stderr, stdout, xc2_edge},
    reference,
};

/// Verifies a checkpoint with its recordings; returns the names of those that were left out.
#[track_caller]
fn assert_verifies(checkpoint: &str, preset: Preset, task: Task, n_stages: usize) -> Vec<String> {
    let model = model_for(checkpoint, preset, task);
    let engine = Engine::load(&model, verify::engine_options()).unwrap();
    let golden = reference("golden").join(checkpoint);
    let (mut n, mut departures) = (0, Vec::new());
    let left_out = verify::verify(&engine, &GoldenDir::new(&golden, None), |outcome| {
        n += outcome.stages.len();
        let failed = outcome.stages.iter().filter(|stage| !stage.ok);
        departures.extend(failed.map(|s| format!("{}: {} {}", outcome.subject, s.name, s.note)));
    });
    assert_eq!(
        departures,
        Vec::<String>::new(),
        "{checkpoint} as {preset:?}, {task:?}"
    );
    assert!(n >= n_stages, "{checkpoint}: only {n} stages were compared");
    left_out
        .unwrap()
        .into_iter()
        .map(|case| case.name)
        .collect()
}

#[test]
fn the_4khd_model_equals_the_original() {
    for preset in [Preset::F32, Preset::F16, Preset::Q8_0] {
        assert_verifies("tiny-4khd", preset, Task::Base, 60);
    }
}

#[test]
fn each_mode_of_the_2_5_model_equals_its_recordings() {
    for (task, n_stages, left_out) in [
        (Task::Base, 80, "image_write"),
        (Task::Write, 30, "image_base"),
        (Task::Web, 38, "image_base"),
    ] {
        let names = assert_verifies("tiny-2d5-modes", Preset::F32, task, n_stages);
        assert!(names.iter().any(|name| name == left_out), "{names:?}");
        // A recording that is wrong on purpose fits no mode.
        assert!(names.iter().any(|name| name == "control_write_sft_only"));
    }
}

#[test]
fn checkpoints_in_4_bits_equal_their_recordings() {
    for preset in [Preset::Default, Preset::F32] {
        assert_verifies("tiny-vl-gptq", preset, Task::Base, 16);
        assert_verifies("tiny-vl-gptq-act", preset, Task::Base, 8);
        assert_verifies("tiny-2d5-awq", preset, Task::Base, 16);
        assert_verifies("tiny-2d5-awq", preset, Task::Write, 8);
    }
}

/// Another mode's weights are far outside the tolerances: the test above can fail.
#[test]
fn a_model_of_another_mode_is_told_from_the_recorded_one() {
    let golden = tempfile::tempdir().unwrap();
    let source = reference("golden/tiny-2d5-modes");
    for file in ["text_web.json", "text_web.safetensors"] {
        std::fs::copy(source.join(file), golden.path().join(file)).unwrap();
    }
    let record = golden.path().join("text_web.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(
        &record,
        text.replace("\"infer_mode\": \"web\"", "\"infer_mode\": \"base\""),
    )
    .unwrap();
    let model = model_for("tiny-2d5-modes", Preset::F32, Task::Base);
    let engine = Engine::load(&model, verify::engine_options()).unwrap();
    let mut n_departed = 0;
    let golden = GoldenDir::new(Path::new(golden.path()), None);
    verify::verify(&engine, &golden, |outcome| {
        n_departed += outcome.stages.iter().filter(|stage| !stage.ok).count();
    })
    .unwrap();
    assert!(n_departed > 0);
}

#[track_caller]
fn assert_refused(output: &Output, naming: &[&str]) {
    assert!(!output.status.success());
    let message = stderr(output);
    for name in naming {
        assert!(message.contains(name), "`{message}` does not say `{name}`");
    }
}

fn picture(name: &str) -> String {
    path(&reference("images").join(name))
}

#[test]
fn a_run_says_tiles_tokens_and_memory_before_it_begins() {
    let model = path(&model_for("tiny-4khd", Preset::F32, Task::Base));
    let image = picture("shapes.png");
    let run = |more: &[&str]| {
        let args = [
            "run", "-m", &model, "--image", &image, "-p", "What?", "-n", "2",
        ];
        xc2_edge(&[&args, more].concat())
    };
    let output = run(&["--hd-num", "9"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(
        told.contains("3 x 3 tiles of 336 pixels, 1489 tokens"),
        "{told}"
    );
    assert!(told.contains("of memory, about"), "{told}");
    // The published default, which fits here.
    assert!(stderr(&run(&[])).contains("4 x 5 tiles"));
    // Less memory than a picture of that many tiles takes.
    let output = run(&["--max-memory", "32MB"]);
    let told = stderr(&output);
    assert!(
        told.contains("instead of 25, because memory is short"),
        "{told}"
    );
    let output = run(&["--max-memory", "32MB", "--hd-num", "100"]);
    assert_refused(&output, &["not enough memory", "`--hd-num`"]);
    assert_refused(&run(&["--hd-num", "0"]), &["--hd-num", "1"]);
    let fixed = path(&crate::common::model("tiny-composer", Preset::F32));
    let output = xc2_edge(&[
        "run", "-m", &fixed, "--image", &image, "-p", "?", "--hd-num", "4",
    ]);
    assert_refused(&output, &["112x112 pixels", "4khd or 2.5"]);
}

#[test]
fn frames_of_a_video_are_one_picture() {
    let model = path(&model_for("tiny-2d5-modes", Preset::F32, Task::Base));
    let folder = tempfile::tempdir().unwrap();
    for i in 0..3 {
        let from = reference("video").join(format!("wide-{i}.png"));
        std::fs::copy(from, folder.path().join(format!("frame{i}.png"))).unwrap();
    }
    let run = |source: &str, more: &[&str]| {
        xc2_edge(&[&["run", "-m", &model, "--frames", source, "-n", "4"], more].concat())
    };
    let output = run(&path(folder.path()), &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 x 1 tiles of 560 pixels, 1261 tokens"));
    let pattern = format!("{}/frame*.png", folder.path().display());
    let same = run(&pattern, &[]);
    assert_eq!(stdout(&same), stdout(&output));
    let nothing = tempfile::tempdir().unwrap();
    assert_refused(&run(&path(nothing.path()), &[]), &["found no frames"]);
    let other = path(&model_for("tiny-4khd", Preset::F32, Task::Base));
    let output = xc2_edge(&["run", "-m", &other, "--frames", &pattern, "-n", "1"]);
    assert_refused(&output, &["frames", "2.5"]);
}

#[test]
fn a_context_beyond_the_trained_one_must_be_asked_for() {
    let long = |checkpoint: &str, ctx_size: &str| {
        let model = path(&model_for(checkpoint, Preset::F32, Task::Base));
        let args = [
            "run",
            "-m",
            &model,
            "-p",
            "Hello",
            "-n",
            "2",
            "--ctx-size",
            ctx_size,
        ];
        (
            xc2_edge(&args),
            xc2_edge(&[&args[..], &["--long"]].concat()),
        )
    };
    let (plain, scaled) = long("tiny-2d5-modes", "4096");
    assert_refused(&plain, &["1 to 3072 tokens", "found 4096"]);
    assert!(scaled.status.success(), "{}", stderr(&scaled));
}

/// Users' reports about the original: every picture is seen, whatever its form and shape.
#[test]
fn pictures_of_every_form_are_seen_in_tiles() {
    let model = path(&model_for("tiny-4khd", Preset::F32, Task::Base));
    let folder = tempfile::tempdir().unwrap();
    let drawn = |name: &str, width: u32, height: u32| {
        let file = folder.path().join(name);
        let color = image::Rgb([200, 30, 60]);
        image::RgbImage::from_pixel(width, height, color)
            .save(&file)
            .unwrap();
        path(&file)
    };
    let long = [drawn("wide.png", 5000, 100), drawn("one.png", 1, 1)];
    let forms = ["alpha.png", "palette.png", "gray.png", "tall.webp"].map(picture);
    for image in long.iter().chain(&forms) {
        let args = [
            "run", "-m", &model, "--image", image, "-p", "?", "-n", "1", "--hd-num", "4",
        ];
        let output = xc2_edge(&args);
        assert!(output.status.success(), "{image}: {}", stderr(&output));
    }
    let line = drawn("line.png", 30000, 10);
    let output = xc2_edge(&["run", "-m", &model, "--image", &line, "-p", "?", "-n", "1"]);
    assert_refused(&output, &["line.png", "too narrow", "30000x10"]);
}
