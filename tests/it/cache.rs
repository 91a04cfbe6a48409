//! The cache on disk: entries of an earlier run are used only for identical input.

use std::{fs, ops::ControlFlow, path::Path};

use crate::common::{
    program::{path, stderr, xc2_edge},
    scenes::{ask, engine, options, picture},
};
use serde_json::Value;
use xc2_convert::mix::Preset;
use xc2_edge::{
    engine::cache::CacheOptions,
    engine::{Answer, Engine, EngineOptions, Request},
    language::llama::KvType,
    vision::Precision,
    vision::image::{Orientation, Transparency},
};

const BRIEF: &str = "Describe this image briefly.";
const LIST: &str = "List the objects in the image.";
const SCENE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/models/scenes/three-shapes.png"
);

fn cached(dir: &Path, options: EngineOptions) -> EngineOptions {
    let cache = CacheOptions {
        dir: dir.to_owned(),
        max_bytes: u64::MAX,
    };
    EngineOptions {
        cache: Some(cache),
        ..options
    }
}

/// Answers with a new engine, as a new process would.
fn in_a_new_run(preset: Preset, options: EngineOptions, request: &Request) -> (Answer, Engine) {
    let engine = Engine::load(&crate::common::trained(preset), options).unwrap();
    let answer = engine.answer(request, &mut ()).unwrap();
    (answer, engine)
}

/// All KV cache types, with and without flash attention.
fn arithmetics() -> Vec<EngineOptions> {
    let all = [
        (KvType::F16, true),
        (KvType::F16, false),
        (KvType::F32, true),
        (KvType::F32, false),
        (KvType::Q8_0, true), // llama.cpp requires flash attention for quantized values
    ];
    let with = |(kv_type, flash_attn)| EngineOptions {
        kv_type,
        flash_attn,
        ..options()
    };
    all.into_iter().map(with).collect()
}

#[test]
fn a_second_run_restores_the_picture_and_gives_the_same_answer() {
    for plain in arithmetics() {
        let dir = tempfile::tempdir().unwrap();
        let options = cached(dir.path(), plain.clone());
        let (written, _) = in_a_new_run(Preset::F16, options.clone(), &ask(&[300], BRIEF));
        assert_eq!(written.timings.n_restored, 0);
        assert_eq!(written.cache.n_written, 2, "embeddings and state");
        let fresh = Engine::load(&crate::common::trained(Preset::F16), plain.clone()).unwrap();
        for query in [BRIEF, LIST] {
            let request = ask(&[300], query);
            let (restored, engine) = in_a_new_run(Preset::F16, options.clone(), &request);
            let timings = restored.timings;
            assert!(timings.n_restored > restored.n_image, "{timings:?}");
            assert_eq!(timings.n_restored, timings.n_reused);
            assert_eq!((timings.n_images, restored.cache.n_faults), (0, 0));
            assert!(!engine.is_adapter_loaded(), "no picture was computed");
            let fresh = fresh.answer(&request, &mut ()).unwrap();
            assert_eq!(restored.ids, fresh.ids, "{plain:?}");
        }
    }
}

#[test]
fn a_second_process_gives_the_same_answer_and_reports_the_first_token() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cache) = (path(&crate::common::trained(Preset::F16)), path(dir.path()));
    let ask = |query: &str, options: &[&str]| {
        let run = [
            "run", "-m", &model, "--image", SCENE, "-p", query, "-t", "1", "--json",
        ];
        let report = report(&[&run[..], options].concat());
        let seconds = |stage: &str| report["timings"][stage].as_f64().expect(stage);
        let within = seconds("restore_s") + seconds("encode_s") + seconds("prefill_s");
        assert!(seconds("first_token_s") >= within, "{report}");
        report
    };
    let cached = ["--cache", &cache];
    ask(BRIEF, &cached);
    let (second, fresh) = (ask(LIST, &cached), ask(LIST, &[]));
    assert_eq!(second["timings"]["n_images_reused"], 1, "{second}");
    assert_eq!(second["cache"]["n_hits"], 1, "{second}");
    for same in ["text", "stop", "n_generated"] {
        assert_eq!(second[same], fresh[same]);
    }
    let none = report(&["run", "-m", &model, "-p", "Hi", "-n", "0", "--json"]);
    assert_eq!(none["timings"]["first_token_s"], Value::Null, "{none}");
}

/// The JSON report of the program about an answer.
#[track_caller]
fn report(args: &[&str]) -> Value {
    let output = xc2_edge(args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn different_input_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let request = ask(&[310], BRIEF);
    in_a_new_run(Preset::F16, cached(dir.path(), options()), &request);
    let n_restored = |preset, options, request: &Request| {
        let (answer, _) = in_a_new_run(preset, cached(dir.path(), options), request);
        assert_eq!(answer.cache.n_faults, 0);
        answer.timings.n_restored
    };
    assert!(n_restored(Preset::F16, options(), &request) > 0);
    assert_eq!(
        n_restored(Preset::Q8_0, options(), &request),
        0,
        "another model"
    );
    let other_kv = EngineOptions {
        kv_type: KvType::Q8_0,
        ..options()
    };
    assert_eq!(n_restored(Preset::F16, other_kv, &request), 0);
    let plain_attention = EngineOptions {
        flash_attn: false,
        ..options()
    };
    assert_eq!(n_restored(Preset::F16, plain_attention, &request), 0);
    let other_tower = EngineOptions {
        tower: Precision::F32,
        ..options()
    };
    assert_eq!(n_restored(Preset::F16, other_tower, &request), 0);
    let as_stored = EngineOptions {
        orientation: Orientation::Ignore,
        ..options()
    };
    assert_eq!(n_restored(Preset::F16, as_stored, &request), 0);
    let on_white = EngineOptions {
        transparency: Transparency::White,
        ..options()
    };
    assert_eq!(n_restored(Preset::F16, on_white, &request), 0);
    let mut other_system = request.clone();
    other_system.chat.system.push('!');
    assert_eq!(n_restored(Preset::F16, options(), &other_system), 0);
    let mut other_picture = request;
    other_picture.images = vec![picture(311)];
    assert_eq!(n_restored(Preset::F16, options(), &other_picture), 0);
}

#[test]
fn embeddings_are_reused_for_another_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let options = cached(dir.path(), options());
    in_a_new_run(Preset::F16, options.clone(), &ask(&[320], BRIEF));
    let mut request = ask(&[320], BRIEF);
    request.chat.system = String::new();
    let (answer, _) = in_a_new_run(Preset::F16, options, &request);
    let timings = answer.timings;
    assert_eq!((timings.n_restored, timings.n_images), (0, 0));
    assert_eq!(answer.ids, engine().answer(&request, &mut ()).unwrap().ids);
}

#[test]
fn damaged_entries_are_recomputed_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let options = cached(dir.path(), options());
    let request = ask(&[330], BRIEF);
    let (expected, _) = in_a_new_run(Preset::F16, options.clone(), &request);
    for damage in [damage_byte, cut, replace] {
        for file in fs::read_dir(dir.path()).unwrap() {
            damage(&file.unwrap().path());
        }
        let (answer, _) = in_a_new_run(Preset::F16, options.clone(), &request);
        assert_eq!(answer.ids, expected.ids);
        assert_eq!(answer.timings.n_restored, 0);
        assert_eq!((answer.cache.n_faults, answer.cache.n_written), (2, 2));
        let (again, _) = in_a_new_run(Preset::F16, options.clone(), &request);
        assert!(again.timings.n_restored > 0);
    }
}

fn damage_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1000]).unwrap();
}

fn replace(path: &Path) {
    fs::write(path, "something else").unwrap();
}

#[test]
fn a_conversation_continues_in_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let options = cached(dir.path(), options());
    let marker = engine().container().info().prompt.image_marker.clone();
    let query = format!("{marker}{BRIEF}");
    let (first, _) = in_a_new_run(Preset::F16, options.clone(), &ask(&[340], &query));
    let mut request = ask(&[340, 341], &query);
    request.chat.history.push((query, first.text));
    // The state after the first picture is reused for the prompt with two.
    let (second, _) = in_a_new_run(Preset::F16, options.clone(), &request);
    let timings = second.timings;
    let one = second.n_image / 2;
    assert!(timings.n_restored > one && timings.n_restored < second.n_prompt - one);
    assert_eq!((timings.n_images, timings.n_images_reused), (1, 1));
    assert_eq!(second.ids, engine().answer(&request, &mut ()).unwrap().ids);
    let (again, _) = in_a_new_run(Preset::F16, options, &request);
    assert!(again.timings.n_restored > timings.n_restored + one);
    assert_eq!(again.ids, second.ids);
}

#[test]
fn a_session_restores_at_any_position_and_keeps_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let options = cached(dir.path(), options());
    for seed in [350, 351] {
        in_a_new_run(Preset::F16, options.clone(), &ask(&[seed], BRIEF));
    }
    let engine = Engine::load(&crate::common::trained(Preset::F16), options).unwrap();
    let mut session = engine.session();
    session.reserve(&ask(&[350], "?")).unwrap();
    for (seed, query) in [
        (350, LIST),
        (351, LIST),
        (351, BRIEF),
        (352, BRIEF),
        (350, BRIEF),
    ] {
        let request = ask(&[seed], query);
        let answer = session.answer(&request, &mut ()).unwrap();
        let fresh = crate::common::scenes::engine()
            .answer(&request, &mut ())
            .unwrap();
        assert_eq!(answer.ids, fresh.ids, "{seed} {query}");
        assert_eq!(answer.cache.n_faults, 0);
        let timings = answer.timings;
        assert!(timings.first_token >= Some(timings.prefill));
        assert_eq!(timings.n_images, usize::from(seed == 352));
        assert_eq!(
            timings.n_reused > answer.n_image,
            seed != 352,
            "{timings:?}"
        );
    }
}

#[test]
fn parallel_requests_read_and_write_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let options = cached(dir.path(), options());
    let requests = |query| (360..365).map(move |seed| ask(&[seed], query));
    let run = |query: &'static str| {
        let engine = Engine::load(&crate::common::trained(Preset::F16), options.clone()).unwrap();
        let mut answers = Vec::new();
        let on_answer = |index, result: Result<Answer, _>| {
            answers.push((index, result.unwrap()));
            ControlFlow::Continue(())
        };
        engine.answer_many(3, requests(query), on_answer).unwrap();
        answers.sort_by_key(|a: &(usize, Answer)| a.0);
        answers.into_iter().map(|a| a.1).collect::<Vec<_>>()
    };
    run(BRIEF);
    for (answer, request) in run(LIST).iter().zip(requests(LIST)) {
        assert!(answer.timings.n_restored > answer.n_image);
        assert!(answer.timings.first_token >= Some(answer.timings.prefill));
        assert_eq!((answer.timings.n_images, answer.cache.n_faults), (0, 0));
        assert_eq!(answer.ids, engine().answer(&request, &mut ()).unwrap().ids);
    }
}

#[test]
fn an_unwritable_directory_only_disables_the_cache() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = cached(&file.path().join("below a file"), options());
    let request = ask(&[370], BRIEF);
    let (answer, _) = in_a_new_run(Preset::F16, options, &request);
    assert!(answer.cache.n_faults > 0 && answer.cache.n_written == 0);
    assert_eq!(answer.ids, engine().answer(&request, &mut ()).unwrap().ids);
}
