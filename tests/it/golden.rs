//! From checkpoint to greedy text: every recorded stage of the original compared with ours after conversion.

use std::{fs, path::Path};

use xc2_convert::mix::Preset;
use xc2_edge::{
    engine::Engine,
    evaluation::verify::{self, GoldenDir, Outcome},
    model::gguf::GgufFile,
};

fn outcomes(model: &Path, golden: &str) -> Vec<Outcome> {
    outcomes_in(model, &crate::common::reference(golden))
}

fn outcomes_in(model: &Path, golden: &Path) -> Vec<Outcome> {
    let engine = Engine::load(model, verify::engine_options()).unwrap();
    let golden = GoldenDir::new(golden, Some(&crate::common::reference("images")));
    let mut outcomes = Vec::new();
    verify::verify(&engine, &golden, |outcome| outcomes.push(outcome)).unwrap();
    outcomes
}

/// The names of all stages that are out of tolerance, in order.
fn departures(outcomes: &[Outcome]) -> Vec<String> {
    let each = outcomes
        .iter()
        .flat_map(|o| o.stages.iter().map(move |s| (o, s)));
    each.filter(|(_, s)| !s.ok)
        .map(|(o, s)| format!("{}: {} {}", o.subject, s.name, s.note))
        .collect()
}

#[track_caller]
fn assert_verifies(checkpoint: &str, preset: Preset, golden: &str) {
    let outcomes = outcomes(&crate::common::model(checkpoint, preset), golden);
    let n_stages: usize = outcomes.iter().map(|o| o.stages.len()).sum();
    assert!(n_stages >= 188, "only {n_stages} stages were compared");
    assert_eq!(
        departures(&outcomes),
        Vec::<String>::new(),
        "{checkpoint} as {preset:?}"
    );
}

#[test]
fn the_490_pixel_model_equals_the_original() {
    assert_verifies("tiny-vl", Preset::F32, "golden/tiny-vl");
}

#[test]
fn safetensors_give_the_same_model_as_pickles() {
    let a = GgufFile::open(&crate::common::model("tiny-vl", Preset::F16)).unwrap();
    let b = GgufFile::open(&crate::common::model("tiny-vl-safetensors", Preset::F16)).unwrap();
    let names = |file: &GgufFile| -> Vec<String> {
        let tensors = file.tensors().iter();
        tensors.map(|t| t.name.clone()).collect()
    };
    assert_eq!(names(&a), names(&b));
    // The headers of the views hold the name of the checkpoint.
    for name in names(&a).iter().filter(|n| !n.starts_with("xc2.view.")) {
        let (a, b) = (a.require(name).unwrap(), b.require(name).unwrap());
        assert_eq!((a.ty, &a.shape), (b.ty, &b.shape), "{name}");
        assert!(a.data == b.data, "{name} differs");
    }
}

#[test]
fn the_composition_model_equals_the_original_in_every_precision() {
    use Preset::{Bf16, F16, F32, Q4_0, Q4K, Q5K, Q6K, Q8_0};
    for preset in [F32, F16, Bf16, Q8_0, Q6K, Q5K, Q4K, Q4_0] {
        assert_verifies("tiny-composer", preset, "golden/tiny-composer");
    }
}

/// The tests of the smaller model compare every record in every precision.
#[test]
fn the_490_pixel_model_survives_16_bits_and_quantization() {
    let golden = some_of(
        "golden/tiny-vl",
        &[
            "images/alpha_png",
            "images/photo_jpg",
            "image_middle",
            "two_adjacent",
            "text_history",
        ],
    );
    for preset in [Preset::F16, Preset::Q8_0, Preset::Q4K] {
        let outcomes = outcomes_in(&crate::common::model("tiny-vl", preset), golden.path());
        let n_stages: usize = outcomes.iter().map(|o| o.stages.len()).sum();
        assert!(n_stages >= 44, "only {n_stages} stages were compared");
        assert_eq!(departures(&outcomes), [""; 0], "{preset:?}");
    }
}

/// A golden directory of some of the records of another.
fn some_of(golden: &str, records: &[&str]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("images")).unwrap();
    for record in records {
        for ending in ["json", "safetensors", "resized.png"] {
            let file = format!("{record}.{ending}");
            let from = crate::common::reference(golden).join(&file);
            if from.exists() {
                fs::copy(from, copy.path().join(&file)).unwrap();
            }
        }
    }
    copy
}

/// Negates the numbers of an f32 tensor in a copy of a model.
fn negate(model: &Path, tensor: &str) -> tempfile::NamedTempFile {
    let file = GgufFile::open(model).unwrap();
    let begin = file.data_offset(tensor).unwrap();
    let n_bytes = file
        .tensors()
        .iter()
        .find(|t| t.name == tensor)
        .unwrap()
        .n_bytes()
        .unwrap();
    let mut bytes = fs::read(model).unwrap();
    bytes[begin..begin + n_bytes]
        .chunks_exact_mut(4)
        .for_each(|value| value[3] ^= 0x80);
    let damaged = tempfile::NamedTempFile::new().unwrap();
    fs::write(damaged.path(), bytes).unwrap();
    damaged
}

#[test]
fn the_first_stage_out_of_tolerance_is_found() {
    let model = crate::common::model("tiny-composer", Preset::F32);
    let records = ["images/alpha_png", "control_all_plora"];
    let golden = some_of("golden/tiny-composer", &records);
    for (tensor, subject, stage) in [
        ("v.position_embd.weight", "alpha.png", "embeddings"),
        ("v.blk.1.ffn_down.weight", "alpha.png", "hidden.2"),
        ("mm.2.bias", "alpha.png", "projected"),
        ("token_embd.weight", "control_all_plora", "inputs"),
        (
            "output_norm.weight",
            "control_all_plora",
            "logits, top 5 of each position",
        ),
    ] {
        let damaged = negate(&model, tensor);
        let outcomes = outcomes_in(damaged.path(), golden.path());
        let first = outcomes
            .iter()
            .find_map(|o| Some((&o.subject, o.first_departure()?)));
        let first = first.map(|(subject, s)| (subject.as_str(), s.name.as_str()));
        assert_eq!(first, Some((subject, stage)), "{tensor}");
    }
}

#[test]
fn a_damaged_adapter_changes_only_prompts_with_pictures() {
    let damaged = negate(
        &crate::common::model("tiny-composer", Preset::F32),
        "blk.0.attn_qkv.weight.lora_b",
    );
    for outcome in outcomes(damaged.path(), "golden/tiny-composer") {
        let logits = outcome.stages.iter().find(|s| s.name == "logits, answer");
        let Some(logits) = logits else { continue }; // a record of a picture
        let sees_adapter =
            !outcome.subject.starts_with("text_") && outcome.subject != "control_no_plora";
        assert_eq!(logits.ok, !sees_adapter, "{}", outcome.subject);
    }
}

#[test]
fn a_jpeg_without_recorded_pixels_gets_wider_bounds_and_a_note() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["image_middle.json", "image_middle.safetensors"] {
        let from = crate::common::reference("golden/tiny-composer").join(file);
        fs::copy(from, copy.path().join(file)).unwrap();
    }
    let model = crate::common::model("tiny-composer", Preset::F32);
    let images = crate::common::reference("images");
    let verify = |model: &Path| {
        let engine = Engine::load(model, verify::engine_options()).unwrap();
        let golden = GoldenDir::new(copy.path(), Some(&images));
        let mut outcomes = Vec::new();
        verify::verify(&engine, &golden, |outcome| outcomes.push(outcome)).unwrap();
        outcomes
    };
    let outcomes = verify(&model);
    assert_eq!(departures(&outcomes), [""; 0]);
    let inputs = outcomes[0].stages.iter().find(|s| s.name == "inputs");
    assert!(inputs.unwrap().note.contains("no pixels are recorded"));
    // The wider bounds still detect damage.
    let damaged = negate(&model, "v.blk.1.ffn_down.weight");
    assert!(!departures(&verify(damaged.path())).is_empty());
}

/// A copy of some golden records with one of them changed.
fn golden_copy(change: impl Fn(&Path)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["text_plain.json", "text_plain.safetensors"] {
        fs::copy(
            crate::common::reference("golden/tiny-composer").join(file),
            copy.path().join(file),
        )
        .unwrap();
    }
    change(copy.path());
    copy
}

#[test]
fn damaged_or_missing_recordings_do_not_pass() {
    let engine = Engine::load(
        &crate::common::model("tiny-composer", Preset::F32),
        verify::engine_options(),
    )
    .unwrap();
    let all_ok = |golden: &tempfile::TempDir| {
        let mut ok = true;
        let golden = GoldenDir::new(golden.path(), None);
        verify::verify(&engine, &golden, |o| ok &= o.first_departure().is_none()).is_ok() && ok
    };
    assert!(all_ok(&golden_copy(|_| {})));
    for tensor in [
        "embeds_sample",
        "top5_logits",
        "logits_last8.columns",
        "step_logits.columns",
    ] {
        let to_nan = golden_copy(|dir| change_tensor(dir, tensor, &f32::NAN.to_le_bytes()));
        assert!(!all_ok(&to_nan), "{tensor} of NaN");
    }
    for tensor in ["logits_last8.at", "step_logits.at"] {
        let beyond = golden_copy(|dir| change_tensor(dir, tensor, &1280i32.to_le_bytes()));
        assert!(!all_ok(&beyond), "{tensor} beyond the vocabulary");
    }
    let empty = golden_copy(|dir| {
        let nothing = [&2u64.to_le_bytes()[..], b"{}"].concat();
        fs::write(dir.join("text_plain.safetensors"), nothing).unwrap();
    });
    assert!(!all_ok(&empty), "nothing recorded");
    let removed = golden_copy(|dir| fs::remove_file(dir.join("text_plain.safetensors")).unwrap());
    assert!(!all_ok(&removed), "no tensors beside the record");
}

/// Sets every value of a tensor of the copied record.
fn change_tensor(dir: &Path, tensor: &str, value: &[u8; 4]) {
    let file = dir.join("text_plain.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let data = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let data = tensors.tensor(tensor).unwrap().data().as_ptr_range();
        let begin = data.start as usize - bytes.as_ptr() as usize;
        begin..begin + (data.end as usize - data.start as usize)
    };
    for word in bytes[data].chunks_exact_mut(4) {
        word.copy_from_slice(value);
    }
    fs::write(file, bytes).unwrap();
}

/// Edits the JSON of the copied record.
fn edit_case(dir: &Path, edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    let file = dir.join("text_plain.json");
    let mut case: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    edit(case.as_object_mut().unwrap());
    fs::write(file, case.to_string()).unwrap();
}

/// Keeps `n` rows of the recorded logits of the answer; with `None` removes the tensor.
fn keep_steps(dir: &Path, n: Option<usize>) {
    let file = dir.join("text_plain.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.tensors().into_iter().filter_map(|(name, view)| {
        if name != "step_logits.columns" {
            return Some((name, view));
        }
        let (n, n_cols) = (n?, view.shape()[1]);
        let data = &view.data()[..4 * n * n_cols];
        let view = safetensors::tensor::TensorView::new(view.dtype(), vec![n, n_cols], data);
        Some((name, view.unwrap()))
    });
    let kept = safetensors::serialize(kept, None).unwrap();
    fs::write(file, kept).unwrap();
}

/// The outcome of the only record in `golden`.
fn outcome_of(engine: &Engine, golden: &Path) -> Outcome {
    let mut outcomes = Vec::new();
    let golden = GoldenDir::new(golden, None);
    verify::verify(engine, &golden, |o| outcomes.push(o)).unwrap();
    outcomes.remove(0)
}

fn stage<'a>(outcome: &'a Outcome, name: &str) -> Option<&'a verify::Stage> {
    outcome.stages.iter().find(|s| s.name == name)
}

#[test]
fn recordings_of_fewer_steps_are_compared_in_part() {
    let model = crate::common::model("tiny-composer", Preset::F32);
    let engine = Engine::load(&model, verify::engine_options()).unwrap();
    let cut = |key: &'static str, n: usize| {
        move |case: &mut serde_json::Map<String, serde_json::Value>| {
            case[key].as_array_mut().unwrap().truncate(n);
        }
    };
    for n_rows in [None, Some(0), Some(1), Some(5), Some(32)] {
        for n_ids in [0, 1, 5, 32] {
            let golden = golden_copy(|dir| {
                keep_steps(dir, n_rows);
                edit_case(dir, cut("greedy_ids", n_ids));
                edit_case(dir, |case| drop(case.remove("greedy_text")));
            });
            let outcome = outcome_of(&engine, golden.path());
            let about = format!("{n_rows:?} rows, {n_ids} ids");
            assert!(outcome.first_departure().is_none(), "{about}: {outcome:?}");
            let logits = stage(&outcome, "logits, answer");
            assert_eq!(logits.is_some(), n_rows.unwrap_or(0) > 0, "{about}");
            let ids = stage(&outcome, "greedy ids").map(|s| &s.note[..]);
            let expected = format!("{n_ids} of {n_ids} equal");
            assert_eq!(ids, (n_ids > 0).then_some(&expected[..]), "{about}");
        }
    }
    // The recorded steps are compared.
    let damaged = negate(&model, "output_norm.weight");
    let engine = Engine::load(damaged.path(), verify::engine_options()).unwrap();
    let golden = golden_copy(|dir| keep_steps(dir, Some(3)));
    let outcome = outcome_of(&engine, golden.path());
    let logits = stage(&outcome, "logits, answer").unwrap();
    assert!(
        !logits.ok && logits.note.contains("3 of 32 steps"),
        "{logits:?}"
    );
}

#[test]
fn token_ids_alone_check_only_the_tokenizer() {
    let model = crate::common::model("tiny-composer", Preset::Q4K);
    let engine = Engine::load(&model, verify::engine_options()).unwrap();
    let ids_alone = |dir: &Path| {
        fs::remove_file(dir.join("text_plain.safetensors")).unwrap();
        edit_case(dir, |case| {
            case.retain(|key, _| ["name", "query", "ids"].contains(&&key[..]));
        });
    };
    let golden = golden_copy(ids_alone);
    assert_eq!(GoldenDir::new(golden.path(), None).n_records().unwrap(), 1);
    let mut outcomes = Vec::new();
    verify::verify(&engine, &GoldenDir::new(golden.path(), None), |o| {
        outcomes.push(o);
    })
    .unwrap();
    assert_eq!(outcomes.len(), 1, "no judgement over all conversations");
    assert!(outcomes[0].first_departure().is_none(), "{outcomes:?}");
    assert!(stage(&outcomes[0], "token ids").is_some());
    let other = golden_copy(|dir| {
        ids_alone(dir);
        edit_case(dir, |case| case["query"] = "What is a cat?".into());
    });
    let outcome = outcome_of(&engine, other.path());
    assert_eq!(outcome.first_departure().unwrap().name, "token ids");
}

#[test]
fn token_ids_of_a_prompt_with_pictures_need_no_pictures() {
    let model = crate::common::model("tiny-composer", Preset::F32);
    let engine = Engine::load(&model, verify::engine_options()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let text = fs::read(crate::common::reference(
        "golden/tiny-composer/two_images.json",
    ))
    .unwrap();
    let mut case: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let keep = ["name", "query", "ids", "images", "history", "meta"];
    case.as_object_mut()
        .unwrap()
        .retain(|key, _| keep.contains(&&key[..]));
    fs::write(copy.path().join("two_images.json"), case.to_string()).unwrap();
    let outcome = outcome_of(&engine, copy.path());
    assert!(outcome.first_departure().is_none(), "{outcome:?}");
}
