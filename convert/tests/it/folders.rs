//! Checkpoint folders: the Hugging Face cache, output of training programs, incomplete downloads.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    Fixture, SMALL, assert_refused, assert_same_tensors,
    bin::{Protocol, state_dict, wrapped_state_dict},
    converted, stderr, xc2_convert,
};
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;
use xc2_edge::model::container::Container;

const MAIN: &str = "8f3c2d1b0a9e8f7d6c5b4a39281706f5e4d3c2b1";
const OTHER: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository in the Hugging Face cache, with `checkpoint` in each snapshot.
struct Hub {
    dir: TempDir,
}

impl Hub {
    fn new(checkpoint: &Path, snapshots: &[&str], main: Option<&str>) -> Self {
        let hub = Self {
            dir: TempDir::new().unwrap(),
        };
        let repository = hub.repository();
        let blobs = repository.join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        for snapshot in snapshots {
            let snapshot = repository.join("snapshots").join(snapshot);
            fs::create_dir_all(&snapshot).unwrap();
            for entry in fs::read_dir(checkpoint).unwrap() {
                let name = entry.unwrap().file_name();
                let blob = Path::new("../../blobs").join(&name);
                fs::copy(checkpoint.join(&name), blobs.join(&name)).unwrap();
                symlink(blob, snapshot.join(&name)).unwrap();
            }
        }
        if let Some(main) = main {
            fs::write(repository.join("refs/main"), main).unwrap();
        }
        hub
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("models--internlm--xc2-small")
    }
}

/// The name of the model converted from `dir`.
fn name_of(dir: &Path) -> String {
    let (_out, path) = converted(dir, &["--f16"]);
    let container = Container::open(&path).unwrap();
    let info = container.info();
    assert_eq!(info.name, info.source);
    info.name.clone()
}

/// The messages during a conversion.
fn notes(dir: &Path, flags: &[&str]) -> String {
    let out = TempDir::new().unwrap();
    let path = out.path().join("model.gguf");
    let args = [dir.as_os_str(), path.as_os_str()];
    let output = xc2_convert(args.into_iter().chain(flags.iter().map(AsRef::as_ref)));
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_repository_in_the_hub_cache_is_resolved_and_gives_the_name() {
    let fixture = Fixture::new(SMALL);
    let hub = Hub::new(fixture.save(), &[MAIN, OTHER], Some(&format!("{MAIN}\n")));
    let repository = hub.repository();
    for path in ["", "snapshots", "snapshots/", &format!("snapshots/{OTHER}")] {
        assert_eq!(name_of(&repository.join(path)), "xc2-small", "{path}");
    }
    let link = hub.dir.path().join("link");
    symlink(repository.join("snapshots").join(MAIN), &link).unwrap();
    assert_eq!(name_of(&link), "xc2-small");
    // The snapshot of `refs/main` is read.
    fs::write(repository.join("snapshots").join(OTHER).join("x"), "").unwrap();
    fs::remove_file(repository.join("snapshots").join(OTHER).join("config.json")).unwrap();
    assert_eq!(name_of(&repository), "xc2-small");
}

#[test]
fn a_single_snapshot_needs_no_main() {
    let fixture = Fixture::new(SMALL);
    let hub = Hub::new(fixture.save(), &[OTHER], None);
    assert_eq!(name_of(&hub.repository()), "xc2-small");
}

#[test]
fn ambiguous_snapshots_are_listed() {
    let fixture = Fixture::new(SMALL);
    let several = Hub::new(fixture.save(), &[MAIN, OTHER], None);
    assert_refused(&several.repository(), &["`refs/main`", MAIN, OTHER, "hint"]);
    let gone = Hub::new(fixture.path(), &[OTHER], Some(MAIN));
    assert_refused(&gone.repository(), &["`refs/main` names", MAIN, OTHER]);
    let none = Hub::new(fixture.path(), &[], None);
    fs::create_dir(none.repository().join("snapshots")).unwrap();
    assert_refused(&none.repository(), &["no snapshots"]);
    assert_refused(
        several.dir.path(),
        &["a directory of them", "`models--internlm--xc2-small`"],
    );
}

#[test]
fn a_snapshot_without_blobs_is_reported() {
    let fixture = Fixture::new(SMALL);
    for file in ["config.json", "model.safetensors", "tokenizer.model"] {
        let hub = Hub::new(fixture.save(), &[MAIN], Some(MAIN));
        fs::remove_file(hub.repository().join("blobs").join(file)).unwrap();
        assert_refused(&hub.repository(), &[file, "a link to", "does not exist"]);
    }
}

#[test]
fn models_are_named_after_directories_and_never_hashes() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let root = TempDir::new().unwrap();
    let place = |path: &str| {
        let dir = root.path().join(path);
        fs::create_dir_all(&dir).unwrap();
        for entry in fs::read_dir(fixture.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        dir
    };
    let dir = place("my-model");
    assert_eq!(name_of(&dir), "my-model");
    assert_eq!(name_of(&dir.join("")), "my-model");
    assert_eq!(name_of(&place(&format!("vl-7b/{MAIN}"))), "vl-7b");
    let link = root.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(["my-model", "link"].contains(&&name_of(&link)[..]));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-convert"));
    let output = command.current_dir(&dir).args([".", "--dry-run"]).output();
    assert!(stderr(&output.unwrap()).starts_with("my-model: "));
}

#[test]
fn a_lora_folder_is_refused_with_how_to_merge() {
    let config = json!({ "peft_type": "LORA", "base_model_name_or_path": "internlm/vl-7b" });
    let expected = [
        "LoRA",
        "`adapter_config.json`",
        "`internlm/vl-7b`",
        "merge_and_unload",
    ];
    let fixture = Fixture::new(SMALL);
    fixture.write("adapter_config.json", config.to_string());
    assert_refused(fixture.path(), &expected);
    for weights in ["adapter_model.safetensors", "adapter_model.bin"] {
        fixture.save_shard(weights, |name| name.contains("norm"));
        assert_refused(fixture.path(), &expected);
        fixture.save_config(); // training programs also save the configuration of the base model
        assert_refused(fixture.path(), &expected);
    }
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("checkpoint-500")).unwrap();
    fs::write(
        folder.path().join("checkpoint-500/adapter_config.json"),
        "{}",
    )
    .unwrap();
    assert_refused(folder.path(), &["`checkpoint-500`"]);
}

#[test]
fn an_adapter_beside_a_model_is_ignored_and_reported() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    fixture.write("adapter_config.json", "{}");
    fixture.save_shard("adapter_model.safetensors", |name| name.contains("norm"));
    let notes = notes(fixture.path(), &[]);
    assert!(
        notes.contains("found `adapter_config.json` next to a whole model"),
        "{notes}"
    );
}

#[test]
fn unmerged_adapters_are_reported() {
    let mut fixture = Fixture::new(SMALL);
    let linear = "base_model.model.model.layers.0.attention.wqkv";
    fixture.add(&format!("{linear}.lora_A.default.weight"), &[8, 64]);
    assert_refused(fixture.save(), &["lora_A", "merged", "merge_and_unload"]);
}

#[test]
fn wrappers_around_names_are_removed() {
    let mut fixture = Fixture::new(SMALL);
    let (_plain, expected) = converted(fixture.save(), &["--f16"]);
    let plain = fixture.tensors.clone();
    for wrapper in [
        "module.",
        "base_model.model.",
        "_orig_mod.",
        "model.",
        "module.base_model.model.",
    ] {
        fixture.tensors.clone_from(&plain);
        fixture.rename(|name| format!("{wrapper}{name}"));
        let (_out, found) = converted(fixture.save(), &["--f16"]);
        assert_same_tensors(&expected, &found);
    }
    // An index has the wrapped names, too.
    fs::remove_file(fixture.path().join("model.safetensors")).unwrap();
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    fixture.save_index("model.safetensors.index.json", &shards);
    for (i, shard) in shards.iter().enumerate() {
        let names: Vec<&String> = fixture.tensors.keys().skip(i).step_by(2).collect();
        fixture.save_shard(shard, |name| names.iter().any(|n| *n == name));
    }
    let (_out, found) = converted(fixture.path(), &["--f16"]);
    assert_same_tensors(&expected, &found);
}

#[test]
fn a_tensor_with_and_without_a_wrapper_is_reported_by_both_names() {
    let plain = "model.layers.1.attention.wo.weight";
    for wrapped in [
        "module.model.layers.1.attention.wo.weight",
        "_orig_mod.model.layers.1.attention.wo.weight",
        "base_model.model.model.layers.1.attention.wo.weight",
        "model.layers.1.attention.wo.base_layer.weight",
    ] {
        let mut fixture = Fixture::new(SMALL);
        fixture.add(wrapped, &[64, 64]);
        let names = [format!("`{plain}`"), format!("`{wrapped}`")];
        let expected = |file| {
            [
                file,
                "one name",
                &names[0],
                &names[1],
                "save the weights again",
            ]
        };
        assert_refused(fixture.save(), &expected("model.safetensors: "));
        fs::remove_file(fixture.path().join("model.safetensors")).unwrap();
        fixture.save_bin(|views| state_dict(views, Protocol::Two));
        assert_refused(fixture.path(), &expected("pytorch_model.bin: "));
    }
}

#[test]
fn a_tensor_in_two_shards_is_reported_with_both_names() {
    let plain = "model.norm.weight";
    let wrapped = format!("module.{plain}");
    let index = "model.safetensors.index.json";
    let mut fixture = Fixture::new(SMALL);
    fixture.save_config();
    let shards = ["a.safetensors", "b.safetensors"];
    // An index without the tensor.
    let mut known = fixture.tensors.clone();
    known.remove(plain);
    let all = std::mem::replace(&mut fixture.tensors, known);
    fixture.save_index(index, &shards);
    fixture.tensors = all;
    fixture.save_shard("a.safetensors", |name| name == plain);
    fixture.save_shard("b.safetensors", |name| name == plain);
    assert_refused(
        fixture.path(),
        &[
            "`model.norm.weight`",
            "found in `a.safetensors` and in `b.safetensors`",
            "index",
        ],
    );
    fixture.add(&wrapped, &[64]);
    fixture.save_shard("b.safetensors", |name| name == wrapped);
    let expected = "found in `a.safetensors` and in `b.safetensors` as `module.model.norm.weight`";
    assert_refused(fixture.path(), &["`model.norm.weight`", expected]);
    // With both names in the index it would be undefined which file is read.
    fixture.save_index(index, &shards);
    assert_refused(
        fixture.path(),
        &[
            index,
            "one name",
            "`model.norm.weight`",
            "`module.model.norm.weight`",
        ],
    );
}

#[test]
fn nested_state_dicts_are_found() {
    let mut fixture = Fixture::new(SMALL);
    let (_plain, expected) = converted(fixture.save(), &["--f16"]);
    fs::remove_file(fixture.path().join("model.safetensors")).unwrap();
    for keys in [
        &["model"][..],
        &["state_dict"],
        &["module"],
        &["model_state_dict"],
        &["model", "module"],
        &["state_dict", "model"],
    ] {
        fixture.save_bin(|views| wrapped_state_dict(keys, views));
        let (_out, found) = converted(fixture.path(), &["--f16"]);
        assert_same_tensors(&expected, &found);
    }
    fixture.rename(|name| format!("module.{name}"));
    fixture.save_bin(|views| wrapped_state_dict(&["state_dict"], views));
    let (_out, found) = converted(fixture.path(), &["--f16"]);
    assert_same_tensors(&expected, &found);
    fixture.save_bin(|views| wrapped_state_dict(&["optimizer"], views));
    assert_refused(
        fixture.path(),
        &["`argparse.Namespace`", "only its state dict"],
    );
    // An object of a class of the training program is no tensor.
    let foreign = b"\x80\x02}X\x05\x00\x00\x00model}X\x01\x00\x00\x00wcposix\nsystem\nX\x04\x00\x00\x00true\x85Rss.";
    fixture.save_bin(|_| foreign.to_vec());
    assert_refused(fixture.path(), &["`posix.system`", "without running"]);
    // A dictionary that contains itself.
    fixture.save_bin(|_| b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.".to_vec());
    assert_refused(fixture.path(), &["a dictionary of tensors"]);
}

#[test]
fn empty_shards_of_zero_3_are_reported() {
    let mut fixture = Fixture::new(SMALL);
    for (name, tensor) in &mut fixture.tensors {
        if name.contains("layers") {
            tensor.shape = vec![0];
            tensor.values.clear();
        }
    }
    let expected = [
        "found shape [0]",
        "others",
        "ZeRO-3",
        "zero_to_fp32.py",
        "stage3_gather_16bit_weights_on_model_save",
    ];
    assert_refused(fixture.save(), &expected);
    fs::remove_file(fixture.path().join("model.safetensors")).unwrap();
    fixture.save_bin(|views| state_dict(views, Protocol::Two));
    assert_refused(fixture.path(), &expected);
}

#[test]
fn deepspeed_partitions_are_reported() {
    for name in ["zero_to_fp32.py", "global_step500/x"] {
        let fixture = Fixture::new(SMALL);
        fixture.save_config();
        let path = fixture.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        assert_refused(fixture.path(), &["DeepSpeed", "zero_to_fp32.py"]);
    }
}

#[test]
fn placeholders_of_files_are_identified() {
    let page = "\n<!DOCTYPE html>\n<html lang=\"en\">";
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let cases = [
        (page, "a web page", "/resolve/"),
        ("<html>", "a web page", "/resolve/"),
        (lfs, "Git LFS pointer", "git lfs pull"),
        ("", "truncated to 0 bytes", "again"),
    ];
    for (contents, found, hint) in cases {
        for file in ["model.safetensors", "tokenizer.model", "config.json"] {
            let fixture = Fixture::new(SMALL);
            fixture.save();
            fixture.write(file, contents);
            assert_refused(fixture.path(), &[file, found, hint]);
        }
        for file in ["pytorch_model.bin", "model.safetensors.index.json"] {
            let fixture = Fixture::new(SMALL);
            fixture.save_config();
            fixture.write(file, contents);
            assert_refused(fixture.path(), &[file, found, hint]);
        }
    }
    for file in ["model.safetensors", "tokenizer.model"] {
        let fixture = Fixture::new(SMALL);
        fixture.save();
        fixture.write(file, "Entry not found");
        assert_refused(fixture.path(), &[file, "Entry not found"]);
    }
}

#[test]
fn unfinished_downloads_are_reported() {
    for ending in [".incomplete", ".part", ".crdownload"] {
        let fixture = Fixture::new(SMALL);
        fixture.save_config();
        let part = format!("model.safetensors{ending}");
        fixture.write(&part, "x");
        assert_refused(fixture.path(), &["unfinished download", &part]);
    }
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    let cache = fixture.path().join(".cache/huggingface/download");
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("abc.incomplete"), "x").unwrap();
    assert_refused(fixture.path(), &["unfinished download", "abc.incomplete"]);
    let fixture = Fixture::new(SMALL);
    fixture.save();
    fixture.write("model.safetensors.aria2", "x");
    assert_refused(
        fixture.path(),
        &["unfinished download", "`model.safetensors`"],
    );
}

#[test]
fn all_missing_shards_are_listed() {
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    let shards = ["a.safetensors", "b.safetensors", "c.safetensors"];
    fixture.save_index("model.safetensors.index.json", &shards);
    fixture.save_shard("b.safetensors", |name| name.contains("vit"));
    fixture.write("c.safetensors.part", "x");
    let expected = [
        "2 of 3 shards are missing: `a.safetensors`, `c.safetensors`",
        "`c.safetensors.part`",
    ];
    assert_refused(fixture.path(), &expected);
}

#[test]
fn of_two_sets_of_weights_only_safetensors_are_read() {
    let mut fixture = Fixture::new(SMALL);
    let (_plain, expected) = converted(fixture.save(), &["--f16"]);
    fixture.tensor("model.norm.weight").values.fill(9.0);
    fixture.save_bin(|views| state_dict(views, Protocol::Two));
    for stray in [
        "training_args.bin",
        "optimizer.pt",
        "optimizer.bin",
        "rng_state.pth",
        "scheduler.pt",
        "non_lora_trainables.bin",
    ] {
        fixture.write(stray, "no weights");
    }
    let (_out, found) = converted(fixture.path(), &["--f16"]);
    assert_same_tensors(&expected, &found);
    let notes = notes(fixture.path(), &[]);
    let note = "weights are read from `model.safetensors`; not read: `pytorch_model.bin`";
    assert!(
        notes.contains(note) && !notes.contains("training_args"),
        "{notes}"
    );
}

#[test]
fn each_reason_for_a_fallback_type_is_one_line() {
    let fixture = Fixture::new(SMALL);
    let said = notes(fixture.save(), &["--q4_k"]);
    let lines: Vec<&str> = said.lines().filter(|l| l.contains("do not fit")).collect();
    assert!((1..=6).contains(&lines.len()), "{said}");
    let line = lines
        .iter()
        .find(|l| l.contains("rows of 64 do not fit q4_k"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(" tensors, such as `"), "{line}");
    assert!(line.ends_with("stored as q5_0"), "{line}");
}

#[test]
fn unknown_tensors_are_reported_in_one_line() {
    let mut fixture = Fixture::new(SMALL);
    for n in 0..40 {
        fixture.add(&format!("extra.{n:02}.weight"), &[2, 2]);
    }
    let said = notes(fixture.save(), &[]);
    let lines: Vec<&str> = said
        .lines()
        .filter(|l| l.contains("were skipped"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(
        lines[0].contains("40 tensors, such as `extra.00.weight`"),
        "{said}"
    );
}

#[test]
fn output_and_embeddings_of_different_heights_are_an_error() {
    for (name, rows) in [
        ("output.weight", 1344),
        ("model.tok_embeddings.weight", 1344),
    ] {
        let mut fixture = Fixture::new(SMALL);
        fixture.add(name, &[rows, 64]);
        fixture.tensor(name).dtype = Dtype::F16;
        assert_refused(
            fixture.save(),
            &["`output.weight`", "1344", "1280", "resize"],
        );
    }
}
