//! The members of the family that cut pictures into tiles, and checkpoints in 4 bits, against their recordings.

use std::path::Path;

use xc2_convert::mix::Preset;
use xc2_edge::{
    engine::Engine,
    evaluation::verify::{self, GoldenDir},
    model::container::Task,
};

use crate::common::{model_for, reference};

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
