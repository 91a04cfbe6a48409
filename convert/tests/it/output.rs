//! The output file is complete or absent.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::common::{Fixture, SMALL, Sizes, TOWER, converted, stderr, xc2_convert};
use tempfile::TempDir;
use xc2_convert::{
    checkpoint::Checkpoint,
    mix::{Mix, Preset},
    plan::{Options, Plan},
    write::{WriteError, convert},
};
use xc2_edge::model::{
    container::{Container, Family, View, keys},
    gguf::{GgufFile, Value},
    quant::GgmlType,
    tensor::TensorSource,
};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn plan(fixture: &Fixture, preset: Preset) -> Plan {
    let options = Options {
        mix: Mix::new(preset),
        family: None,
        task: xc2_edge::model::container::Task::Base,
        plora_scale: None,
        command_line: String::new(),
    };
    Plan::new(&Checkpoint::open(fixture.path()).unwrap(), &options).unwrap()
}

#[test]
fn the_file_opens_as_a_container_and_its_checksum_is_right() {
    let fixture = Fixture::new(SMALL);
    let (_dir, path) = converted(fixture.save(), &["--q8_0"]);
    let container = Container::open(&path).unwrap();
    container.verify_checksum(|_| ()).unwrap();
    let info = container.info();
    assert_eq!(info.vision.image_size, 42);
    assert_eq!(info.decoder.n_layer, 2);
    assert_eq!((info.prompt.turn_end, info.prompt.turn_start), (1278, 1279));
    assert_eq!(info.max_context(), 4096);
    let adapter = container.view_header(View::Adapter).metadata;
    assert_eq!(adapter.f32(keys::ADAPTER_ALPHA).unwrap(), 16.0);
    let decoder = container.view_header(View::Decoder).metadata;
    assert_eq!(decoder.f32(keys::LLM_ROPE_FREQ_BASE).unwrap(), 1e6);
}

#[test]
fn variable_settings_are_read_from_the_checkpoint() {
    let mut fixture = Fixture::new(Sizes {
        n_head_kv: 4,
        ..SMALL
    });
    fixture.config["rope_theta"] = 5000.into();
    fixture.config["rms_norm_eps"] = 1e-6.into();
    fixture.config["rope_scaling"] = serde_json::Value::Null;
    let config = fixture.config.as_object_mut().unwrap();
    config.remove("num_key_value_heads"); // absent means as many as heads
    config.remove("img_size");
    config.remove("max_length");
    let (_dir, path) = converted(fixture.save(), &["--f16"]);
    let container = Container::open(&path).unwrap();
    let decoder = container.view_header(View::Decoder).metadata;
    assert_eq!(decoder.usize(keys::LLM_HEAD_COUNT_KV).unwrap(), 4);
    assert_eq!(decoder.f32(keys::LLM_ROPE_FREQ_BASE).unwrap(), 5000.0);
    assert_eq!(decoder.f32(keys::LLM_RMS_EPS).unwrap(), 1e-6);
    assert_eq!(container.info().context_length, 32768);
}

#[test]
fn a_clip_position_table_is_resized_to_the_picture_size() {
    let mut fixture = Fixture::new(Sizes { grid: 24, ..SMALL });
    fixture.config["img_size"] = 224.into();
    let (_dir, path) = converted(fixture.save(), &["--f16"]);
    let container = Container::open(&path).unwrap();
    assert_eq!(container.info().family, Family::Composition);
    let table = container.tensor("v.position_embd.weight").unwrap();
    assert_eq!(table.shape, [64, 16 * 16 + 1]);
    let source = &fixture
        .tensor(&format!("{TOWER}embeddings.position_embedding.weight"))
        .values;
    let (class, patches) = source.split_at(64);
    let table = table.to_f32();
    assert_eq!(table[..64], *class);
    // From 24 to 16, the outputs are at 0.25, 1.75, 3.25 and so on.
    // Compared at row 1, column 1 (both at 1.75), whose four neighbours are 0 to 3.
    let weights = [-0.035_156_25, 0.261_718_75, 0.878_906_25, -0.105_468_75];
    let at = |c: usize| -> f32 {
        let pairs = (0..4).flat_map(|y| (0..4).map(move |x| (y, x)));
        pairs
            .map(|(y, x)| weights[y] * weights[x] * patches[(y * 24 + x) * 64 + c])
            .sum()
    };
    for c in 0..64 {
        let found = table[(1 + 16 + 1) * 64 + c];
        assert!(
            (found - at(c)).abs() < 1e-3,
            "channel {c}: {found}, not {}",
            at(c)
        );
    }
}

#[test]
fn tied_embeddings_are_written_twice() {
    let mut fixture = Fixture::new(SMALL);
    fixture.tensors.remove("output.weight");
    fixture.config["tie_word_embeddings"] = true.into();
    let (_dir, path) = converted(fixture.save(), &["--f32"]);
    let file = GgufFile::open(&path).unwrap();
    let [embd, output] = ["token_embd.weight", "output.weight"].map(|n| file.require(n).unwrap());
    assert!(embd.data == output.data);
}

/// The reordering of `wqkv`, head by head, for the weight and for `Plora_B`.
#[test]
fn wqkv_and_its_plora_b_are_reordered_alike() {
    let mut fixture = Fixture::new(SMALL);
    let (_dir, path) = converted(fixture.save(), &["--f32"]);
    let file = GgufFile::open(&path).unwrap();
    // q0 q1 k0 v0 q2 q3 k1 v1, heads of 16 rows; q and k interleaved.
    let order = [0, 1, 4, 5, 2, 6, 3, 7];
    for (source, target) in [
        (
            "model.layers.1.attention.wqkv.weight",
            "blk.1.attn_qkv.weight",
        ),
        (
            "model.layers.1.attention.wqkv.Plora_B.weight",
            "blk.1.attn_qkv.weight.lora_b",
        ),
    ] {
        let tensor = fixture.tensor(source);
        let (values, n_cols) = (&tensor.values, tensor.shape[1]);
        let mut expected = Vec::new();
        for (position, head) in order.into_iter().enumerate() {
            for i in 0..16 {
                let row = if position < 6 { i / 2 + i % 2 * 8 } else { i };
                let row = head * 16 + row;
                expected.extend_from_slice(&values[row * n_cols..(row + 1) * n_cols]);
            }
        }
        assert!(
            file.require(target).unwrap().to_f32() == expected,
            "{target}"
        );
    }
}

#[test]
fn with_several_ranks_scales_are_folded_into_lora_b() {
    let mut fixture = Fixture::new(SMALL);
    for n in 0..2 {
        fixture.add(
            &format!("model.layers.{n}.attention.wqkv.Plora_A.weight"),
            &[8, 64],
        );
        fixture.add(
            &format!("model.layers.{n}.attention.wqkv.Plora_B.weight"),
            &[128, 8],
        );
    }
    let (_dir, path) = converted(fixture.save(), &["--q4_k"]);
    let container = Container::open(&path).unwrap();
    let adapter = container.view_header(View::Adapter).metadata;
    assert_eq!(adapter.f32(keys::ADAPTER_ALPHA).unwrap(), 0.0);
    let b = container.tensor("blk.0.attn_qkv.weight.lora_b").unwrap();
    assert_eq!(b.ty, GgmlType::F16, "rows of 8 fit no block");
    let source = fixture.tensor("model.layers.0.attention.wqkv.Plora_B.weight");
    assert_eq!(
        b.to_f32()[..8],
        source.values[..8]
            .iter()
            .map(|x| 2.0 * x)
            .collect::<Vec<_>>()
    );
}

#[test]
fn an_interrupted_conversion_leaves_the_old_file() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let plan = plan(&fixture, Preset::F32);
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("model.gguf");
    fs::write(&target, "the old file").unwrap();
    let cancel = AtomicBool::new(false);
    let result = convert(&plan, &target, 2, &cancel, |_| {
        cancel.store(true, Ordering::Relaxed);
    });
    assert!(matches!(result, Err(WriteError::Data(_))));
    assert_eq!(names(dir.path()), ["model.gguf"]);
    assert_eq!(fs::read(&target).unwrap(), b"the old file");
}

#[test]
fn an_output_name_may_have_maximal_length() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let plan = plan(&fixture, Preset::F32);
    for name in ["a".repeat(250) + ".gguf", "图".repeat(83) + ".gguf"] {
        let dir = TempDir::new().unwrap();
        let target = dir.path().join(&name);
        convert(&plan, &target, 2, &AtomicBool::new(false), |_| {}).unwrap();
        assert_eq!(names(dir.path()), [name]);
    }
}

#[test]
fn an_unwritable_output_is_named() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    for (target, reason) in [
        ("/nowhere/model.gguf", "no directory `/nowhere`"),
        ("/tmp", "found a directory"),
        ("/dev/null", "found a device"),
    ] {
        let output = xc2_convert([fixture.path(), Path::new(target)]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            message.contains(&format!("error: {target}")) && message.contains(reason),
            "{message}"
        );
    }
}

/// A file size limit simulates a full disk: both make the same calls fail.
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("model.gguf");
    // Without the trap the kernel would kill the process instead of failing the call.
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_xc2-convert")]);
    let output = command.arg(fixture.path()).arg(&target).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("no space left") && message.contains("hint: free some space"),
        "{message}"
    );
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_dry_run_prints_every_tensor_and_writes_nothing() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let before = names(fixture.path());
    let output = xc2_convert([fixture.path().as_os_str(), "--dry-run".as_ref()]);
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    for write in plan(&fixture, Preset::Q4K).writes {
        let line = stdout
            .lines()
            .find(|l| l.contains(&format!(" {} ", write.target.name)));
        let line = line.unwrap_or_else(|| panic!("{} is not listed", write.target.name));
        assert!(
            line.contains(write.target.ty.name()) && line.contains(&write.source.name),
            "{line}"
        );
    }
    assert_eq!(names(fixture.path()), before);
}

#[test]
fn rows_that_no_type_divides_are_stored_as_f16_and_reported() {
    let fixture = Fixture::new(Sizes { rank: 12, ..SMALL });
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("model.gguf");
    let output = xc2_convert([fixture.save(), &target]);
    let message = stderr(&output);
    let note = "`blk.0.attn_qkv.weight.lora_b`: rows of 12 do not fit q8_0; stored as f16";
    assert!(message.contains(note), "{message}");
}

#[test]
fn tensors_that_the_model_does_not_know_are_reported() {
    let mut fixture = Fixture::new(SMALL);
    fixture.add("model.layers.0.attention.wo.lora_new_A.weight", &[4, 64]);
    fixture.add("vit.vision_tower.vision_model.post_layernorm.weight", &[64]);
    let dir = TempDir::new().unwrap();
    let output = xc2_convert([fixture.save(), &dir.path().join("model.gguf")]);
    let message = stderr(&output);
    assert!(
        output.status.success()
            && message.contains("`model.layers.0.attention.wo.lora_new_A.weight`")
    );
    assert!(!message.contains("post_layernorm"), "{message}");
}

#[test]
fn usage_errors_have_status_2() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let dir = fixture.path().as_os_str();
    let cases: [&[&str]; 10] = [
        &[],
        &["out.gguf", "--plora-scale", "0"], // llama.cpp would use 1
        &["out.gguf", "--plora-scale=-0.0"],
        &["out.gguf", "--plora-scale=-1"],
        &["out.gguf", "--plora-scale", "inf"],
        &["out.gguf", "--plora-scale", "3e38"],
        &["out.gguf", "--q4_k", "--q8_0"],
        &["out.gguf", "--vision-type", "q9"],
        &["out.gguf", "--tensor-type", "blk.0"],
        &["out.gguf", "--q4"],
    ];
    for case in cases {
        let args = std::iter::once(dir).chain(case.iter().map(AsRef::as_ref));
        let output = xc2_convert(args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{case:?}: {}",
            stderr(&output)
        );
    }
    let output = xc2_convert([
        dir,
        "out.gguf".as_ref(),
        "--tensor-type".as_ref(),
        "blk.9.*=f16".as_ref(),
    ]);
    assert!(stderr(&output).contains("`blk.9.*`"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn split_writes_the_three_stock_files() {
    let fixture = Fixture::new(SMALL);
    let (dir, path) = converted(fixture.save(), &["--q4_k"]);
    let parts = dir.path().join("parts");
    let output = xc2_convert(["split".as_ref(), path.as_os_str(), parts.as_os_str()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let whole = GgufFile::open(&path).unwrap();
    let mut n_tensors = 0;
    for (name, architecture) in [
        ("decoder", "internlm2"),
        ("adapter", "internlm2"),
        ("mmproj", "clip"),
    ] {
        let part = GgufFile::open(&parts.join(format!("{name}.gguf"))).unwrap();
        assert_eq!(
            part.metadata().str(keys::GENERAL_ARCHITECTURE).unwrap(),
            architecture
        );
        for info in part.tensors() {
            let (a, b) = (
                part.require(&info.name).unwrap(),
                whole.require(&info.name).unwrap(),
            );
            assert!(
                a.ty == b.ty && a.shape == b.shape && a.data == b.data,
                "{}",
                info.name
            );
        }
        n_tensors += part.tensors().len();
    }
    assert_eq!(
        n_tensors + 2,
        whole.tensors().len(),
        "all but the two view headers"
    );
    let mmproj = GgufFile::open(&parts.join("mmproj.gguf")).unwrap();
    let layers = mmproj.metadata().get("clip.vision.feature_layer");
    assert_eq!(
        layers,
        Some(&Value::i32s([1])),
        "the last layer's features, not the last but one's"
    );
}

#[test]
fn split_refuses_other_files() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("other.gguf");
    fs::write(&file, "GGUF, or so it says").unwrap();
    let output = xc2_convert(["split".as_ref(), file.as_os_str(), dir.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("other.gguf"),
        "{}",
        stderr(&output)
    );
    assert_eq!(names(dir.path()), ["other.gguf"]);
}

#[test]
fn a_symlinked_output_is_followed() {
    let fixture = Fixture::new(SMALL);
    let dir = TempDir::new().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "the old file").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let output = xc2_convert([fixture.save(), &link]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(link.is_symlink());
    Container::open(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let output = xc2_convert([fixture.path(), &link]);
    assert!(
        stderr(&output).contains("a broken link"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_output_never_replaces_its_input() {
    let fixture = Fixture::new(SMALL);
    let shard = fixture.save().join("model.safetensors");
    for name in ["model.safetensors", "config.json", "tokenizer.model"] {
        let input = fixture.path().join(name);
        let before = fs::read(&input).unwrap();
        let output = xc2_convert([fixture.path(), &input]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("same file as the input"), "{message}");
        assert!(fs::read(&input).unwrap() == before, "{name} was changed");
    }
    let link = fixture.path().join("link.gguf");
    fs::hard_link(shard, &link).unwrap();
    assert_eq!(xc2_convert([fixture.path(), &link]).status.code(), Some(1));

    let (dir, model) = converted(fixture.path(), &[]);
    let decoder = dir.path().join("decoder.gguf");
    fs::rename(model, &decoder).unwrap();
    let output = xc2_convert([
        "split".as_ref(),
        decoder.as_os_str(),
        dir.path().as_os_str(),
    ]);
    let message = stderr(&output);
    assert!(message.contains("same file as the input"), "{message}");
    Container::open(&decoder).unwrap();
    assert_eq!(names(dir.path()), ["decoder.gguf"]);
}

#[test]
fn a_missing_model_is_named_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let output = xc2_convert([
        "split".as_ref(),
        "missing.gguf".as_ref(),
        dir.path().as_os_str(),
    ]);
    let message = stderr(&output);
    assert!(
        message.contains("missing.gguf: cannot be read: No such file"),
        "{message}"
    );
}

#[test]
fn full_and_closed_outputs_do_not_panic() {
    let fixture = Fixture::new(SMALL);
    let path = fixture.save().to_str().unwrap().to_owned();
    let shell = |redirected: &str| {
        let script = format!(
            "exec {} {path} {redirected}",
            env!("CARGO_BIN_EXE_xc2-convert")
        );
        Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    let output = shell("--dry-run >/dev/full");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("standard output"),
        "{}",
        stderr(&output)
    );
    for closed in ["--dry-run 2>/dev/full", "--dry-run >&- 2>&-"] {
        assert_eq!(shell(closed).status.code(), Some(0), "{closed}");
    }
    assert_eq!(
        shell("/nowhere/model.gguf 2>/dev/full").status.code(),
        Some(1)
    );
}

#[test]
#[should_panic(expected = "a sink that panics")]
fn a_panic_of_the_writer_propagates() {
    let fixture = Fixture::new(SMALL);
    fixture.save();
    let plan = plan(&fixture, Preset::F32);
    let dir = TempDir::new().unwrap();
    let never = AtomicBool::new(false);
    let _ = convert(&plan, &dir.path().join("model.gguf"), 2, &never, |_| {
        panic!("a sink that panics")
    });
}
