//! Errors in checkpoints are named, and no output file remains.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::{
    Fixture, SMALL, Sizes, TOWER, assert_refused,
    bin::{Protocol, View, state_dict, write_bin},
    converted, reference, stderr, xc2_convert,
};
use safetensors::tensor::Dtype;
use serde_json::json;
use xc2_convert::checkpoint::Checkpoint;

/// Asserts that a checkpoint is refused after `change`, with a message that has all of `expected`.
#[track_caller]
fn refused_after(change: impl FnOnce(&mut Fixture), expected: &[&str]) {
    let mut fixture = Fixture::new(SMALL);
    change(&mut fixture);
    assert_refused(fixture.save(), expected);
}

#[track_caller]
fn refused_config(key: &str, value: serde_json::Value, expected: &[&str]) {
    refused_after(|f| f.config[key] = value, expected);
}

/// The small checkpoint as a `.bin` file, then damaged.
#[track_caller]
fn refused_bin(damage: impl FnOnce(&Path), expected: &[&str]) {
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    let path = fixture.path().join("pytorch_model.bin");
    let mut storages = BTreeMap::new();
    let views: Vec<View> = fixture
        .tensors
        .iter()
        .map(|(name, t)| {
            storages.insert(name.clone(), t.bytes());
            View {
                name: name.clone(),
                storage: name.clone(),
                offset: 0,
                shape: t.shape.clone(),
                strides: (0..t.shape.len())
                    .map(|i| t.shape[i + 1..].iter().product())
                    .collect(),
            }
        })
        .collect();
    write_bin(&path, &state_dict(&views, Protocol::Two), &storages);
    damage(&path);
    assert_refused(fixture.path(), expected);
}

#[test]
fn a_missing_directory_is_refused() {
    assert_refused(
        Path::new("/nowhere/at/all"),
        &["/nowhere/at/all", "directory", "nothing", "hint"],
    );
    assert_refused(
        &reference("tiny-vl/config.json"),
        &["config.json", "directory", "a file"],
    );
}

#[test]
fn a_missing_or_invalid_config_is_refused() {
    let fixture = Fixture::new(SMALL);
    fs::remove_file(fixture.save().join("config.json")).unwrap();
    assert_refused(fixture.path(), &["config.json", "no such file"]);
    fs::write(fixture.path().join("config.json"), "{ \"bias\": fals").unwrap();
    assert_refused(fixture.path(), &["config.json", "line 1"]);
    fs::write(
        fixture.path().join("config.json"),
        "{ \"hidden_size\": \"many\" }",
    )
    .unwrap();
    assert_refused(fixture.path(), &["config.json: `hidden_size`: ", "many"]);
}

#[test]
fn a_config_saved_by_an_editor_is_read() {
    let fixture = Fixture::new(SMALL);
    let config = fixture.save().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&config, utf16).unwrap();
    assert_refused(fixture.path(), &["config.json", "found UTF-16LE", "iconv"]);
    fs::write(&config, b"{ \"name\": \"caf\xe9\" }").unwrap();
    assert_refused(fixture.path(), &["config.json", "line 1, byte offset 14"]);
    let with_mark = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    fs::write(&config, with_mark).unwrap();
    Checkpoint::open(fixture.path()).unwrap();
}

#[test]
fn a_folder_without_weights_is_refused() {
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    assert_refused(
        fixture.path(),
        &["model.safetensors", "pytorch_model.bin", "none"],
    );
}

#[test]
fn a_missing_shard_is_named() {
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    fixture.save_shard("a.safetensors", |name| !name.contains("vit"));
    fixture.save_index(
        "model.safetensors.index.json",
        &["a.safetensors", "b.safetensors"],
    );
    assert_refused(
        fixture.path(),
        &["model.safetensors.index.json", "`b.safetensors`", "missing"],
    );
}

#[test]
fn shards_without_an_index_are_refused() {
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    for shard in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] {
        fixture.save_shard(shard, |name| name.contains("vit"));
    }
    assert_refused(
        fixture.path(),
        &[
            "`model-00001-of-00002.safetensors`",
            "no `model.safetensors.index.json`",
        ],
    );
}

#[test]
fn an_index_to_another_directory_is_refused() {
    let fixture = Fixture::new(SMALL);
    fixture.save_config();
    fixture.save_index("model.safetensors.index.json", &["../model.safetensors"]);
    assert_refused(
        fixture.path(),
        &["`../model.safetensors`", "same directory"],
    );
}

#[test]
fn a_safetensors_file_truncated_in_any_part_is_refused() {
    let fixture = Fixture::new(SMALL);
    let path = fixture.save().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let length = length.to_string();
        assert_refused(fixture.path(), &["model.safetensors", "truncated", &length]);
    }
}

#[test]
fn a_false_safetensors_header_is_refused() {
    let fixture = Fixture::new(SMALL);
    let path = fixture.save().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, huge).unwrap();
    assert_refused(fixture.path(), &["header", "expected at most"]);
    let mut garbled = whole;
    garbled[9] = b'!';
    fs::write(&path, garbled).unwrap();
    assert_refused(fixture.path(), &["model.safetensors", "header"]);
}

#[test]
fn a_truncated_bin_file_is_refused() {
    refused_bin(
        |path| {
            let whole = fs::read(path).unwrap();
            fs::write(path, &whole[..whole.len() * 2 / 3]).unwrap();
        },
        &["pytorch_model.bin", "truncated"],
    );
}

#[test]
fn a_bin_file_with_a_short_storage_is_refused() {
    let view = View {
        name: "model.norm.weight".to_owned(),
        storage: "0".to_owned(),
        offset: 10,
        shape: vec![64],
        strides: vec![1],
    };
    let storages = BTreeMap::from([("0".to_owned(), vec![0; 128])]);
    let expected = &["`model.norm.weight`", "expected 148 bytes", "found 128"];
    refused_bin(
        |path| write_bin(path, &state_dict(&[view], Protocol::Two), &storages),
        expected,
    );
}

#[test]
fn a_bin_file_with_impossible_views_is_refused() {
    for (shape, strides) in [
        (vec![usize::MAX / 2, 3], vec![0, 0]), // overflows
        (vec![1 << 40, 64], vec![0, 1]),       // repeats 64 elements
        (vec![5, 2], vec![usize::MAX / 2, 1]),
    ] {
        let view = View {
            name: "model.norm.weight".to_owned(),
            storage: "0".to_owned(),
            offset: 0,
            shape,
            strides,
        };
        let storages = BTreeMap::from([("0".to_owned(), vec![0; 128])]);
        refused_bin(
            |path| write_bin(path, &state_dict(&[view], Protocol::Two), &storages),
            &["`model.norm.weight`", "invalid shape and strides"],
        );
    }
}

#[test]
fn a_pickle_that_calls_code_is_refused() {
    let attack = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.";
    refused_bin(
        |path| write_bin(path, attack, &BTreeMap::new()),
        &["pytorch_model.bin", "`posix.system`", "without running"],
    );
}

#[test]
fn invalid_pickles_are_refused() {
    let cases: [(&[u8], &str); 9] = [
        (b"\x80\x02", "truncated at byte"),
        (b"\x80\x02.", "a value on the stack"),
        (b"\x80\x02K\x01.", "a dictionary of tensors, found a number"),
        (
            b"\x80\x02}X\x01\x00\x00\x00aK\x01s.",
            "a dictionary of tensors, found a number",
        ),
        (b"\x80\x02X\xff\xff\xff\xff", "truncated at byte"),
        (b"\x80\x02h\x07.", "a memoized value"),
        (b"\x80\x02u.", "a mark on the stack"),
        (b"\x80\x02K\x01Q.", "a reference to a storage"),
        (b"\x80\x02o.", "instruction 0x6f"),
    ];
    for (pickle, expected) in cases {
        refused_bin(
            |path| write_bin(path, pickle, &BTreeMap::new()),
            &["pickle", expected],
        );
    }
}

#[test]
fn a_deeply_nested_pickle_does_not_overflow_the_stack() {
    let mut pickle = b"\x80\x02)".to_vec();
    pickle.resize(4_000_000, 0x85); // a tuple in a tuple in a tuple
    pickle.push(b'.');
    refused_bin(
        |path| write_bin(path, &pickle, &BTreeMap::new()),
        &["found a tuple"],
    );
}

#[test]
fn legacy_bin_files_and_other_files_are_refused() {
    refused_bin(
        |path| fs::write(path, b"\x80\x02\x8a\nl\xfc").unwrap(),
        &["before 1.6"],
    );
    refused_bin(
        |path| fs::write(path, b"<html>").unwrap(),
        &["expected a zip archive"],
    );
}

#[test]
fn a_missing_tensor_is_named() {
    let names = [
        "model.norm.weight",
        "output.weight",
        "model.layers.1.attention.wo.Plora_B.weight",
        "model.layers.0.attention.wqkv.Plora_A.weight",
        "vision_proj.2.bias",
        "vit.vision_tower.vision_model.embeddings.class_embedding",
    ];
    for name in names {
        refused_after(
            |f| drop(f.tensors.remove(name)),
            &[&format!("tensor `{name}` is missing")],
        );
    }
}

#[test]
fn a_missing_layer_is_named() {
    let middle = "model.layers.0.attention.wo";
    refused_after(
        |f| f.tensors.retain(|name, _| !name.starts_with(middle)),
        &["`model.layers.0.attention.wo"],
    );
}

#[test]
fn a_tensor_of_another_shape_is_refused() {
    let cases: [(&str, &[usize], &str); 5] = [
        (
            "model.norm.weight",
            &[63],
            "expected shape [64], found [63]",
        ),
        (
            "model.layers.1.attention.wo.weight",
            &[64, 65],
            "expected shape [64, 64], found [64, 65]",
        ),
        (
            "model.layers.0.attention.wqkv.Plora_B.weight",
            &[128, 8],
            "expected shape [128, 16], found [128, 8]",
        ),
        (
            "vision_proj.2.weight",
            &[64, 32],
            "expected shape [64, 64], found [64, 32]",
        ),
        (
            "model.tok_embeddings.weight",
            &[1280, 8, 8],
            "found [1280, 8, 8]",
        ),
    ];
    for (name, shape, expected) in cases {
        refused_after(|f| f.add(name, shape), &[&format!("`{name}`"), expected]);
    }
    let table = format!("{TOWER}embeddings.position_embedding.weight");
    refused_after(|f| f.add(&table, &[12, 64]), &[&table, "found [12, 64]"]);
}

#[test]
fn a_tensor_of_another_type_is_refused() {
    refused_after(
        |f| f.tensor("model.layers.0.feed_forward.w1.weight").dtype = Dtype::I64,
        &[
            "`model.layers.0.feed_forward.w1.weight`",
            "expected bf16, f16 or f32, found i64",
        ],
    );
}

#[test]
fn nan_and_infinite_weights_are_refused() {
    for (dtype, value, found) in [
        (Dtype::F16, f32::NAN, "NaN"),
        (Dtype::BF16, f32::INFINITY, "inf"),
        (Dtype::F32, f32::NEG_INFINITY, "-inf"),
    ] {
        refused_after(
            |f| {
                let tensor = f.tensor("model.layers.1.attention.wqkv.weight");
                tensor.dtype = dtype;
                tensor.values[64 * 70 + 5] = value;
            },
            &["`model.layers.1.attention.wqkv.weight`", "[70, 5]", found],
        );
    }
}

#[test]
fn weights_beyond_the_range_of_the_type_are_refused() {
    let mut fixture = Fixture::new(SMALL);
    let tensor = fixture.tensor("output.weight");
    tensor.dtype = Dtype::BF16;
    tensor.values[0] = 1e6;
    let out = fixture.save().join("out.gguf");
    for too_large in [("1e6", "f16"), ("1e6", "q4_0"), ("1e7", "q8_0")] {
        let (value, ty) = too_large;
        fixture.tensor("output.weight").values[0] = value.parse().unwrap();
        let args = [fixture.save().as_os_str(), out.as_os_str()];
        let flags = ["--output-type", ty].map(AsRef::as_ref);
        let message = stderr(&xc2_convert(args.into_iter().chain(flags)));
        assert!(
            message.contains("`output.weight`") && message.contains("bf16 or f32"),
            "{message}"
        );
    }
    // An 8-bit block represents values up to 127 times its f16 scale.
    fixture.tensor("output.weight").values[0] = 1e6;
    for ty in ["bf16", "f32", "q8_0"] {
        converted(fixture.save(), &["--output-type", ty]);
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let fixture = Fixture::new(SMALL);
    fs::copy(
        reference("tokenizer/tokenizer.model"),
        fixture.save().join("tokenizer.model"),
    )
    .unwrap();
    assert_refused(
        fixture.path(),
        &["tokenizer.model", "expected 1280 pieces", "found 92544"],
    );
    fs::write(fixture.path().join("tokenizer.model"), "{}").unwrap();
    assert_refused(
        fixture.path(),
        &["tokenizer.model", "expected a sentencepiece model"],
    );
    fs::remove_file(fixture.path().join("tokenizer.model")).unwrap();
    assert_refused(fixture.path(), &["tokenizer.model", "no such file"]);
}

#[test]
fn a_config_that_contradicts_the_tensors_is_refused() {
    refused_config(
        "hidden_size",
        json!(128),
        &["`hidden_size`", "expected 64", "found 128"],
    );
    refused_config(
        "num_hidden_layers",
        json!(3),
        &["`num_hidden_layers`", "expected 2", "found 3"],
    );
    refused_config(
        "num_attention_heads",
        json!(5),
        &["`num_attention_heads`", "found 5"],
    );
    refused_config(
        "num_key_value_heads",
        json!(1),
        &["attention.wqkv", "expected shape [96, 64]"],
    );
    refused_config(
        "head_dim",
        json!(32),
        &[
            "`head_dim: 32`",
            "expected 16",
            "64 in 4 heads",
            "not supported by the decoder",
        ],
    );
    refused_config(
        "img_size",
        json!(490),
        &["`img_size`", "expected 42", "found 490"],
    );
    refused_config("rope_theta", json!(null), &["`rope_theta`", "found none"]);
    refused_config("rms_norm_eps", json!(0), &["`rms_norm_eps`", "found 0"]);
    let endless = json!(1u64 << 40);
    refused_config(
        "max_position_embeddings",
        endless,
        &["1 to 16777216", "found 1099511627776"],
    );
}

#[test]
fn settings_that_the_decoder_lacks_are_refused() {
    refused_config(
        "bias",
        json!(true),
        &["`bias: true`", "not supported by the decoder"],
    );
    refused_config("hidden_act", json!("gelu"), &["`hidden_act: gelu`"]);
    let linear = json!({ "type": "linear", "factor": 2.0 });
    refused_config("rope_scaling", linear, &["rope_scaling", "linear"]);
    let bias = "model.layers.0.attention.wqkv.bias";
    refused_after(
        |f| f.add(bias, &[128]),
        &[bias, "not supported by the decoder"],
    );
    let wide = Sizes {
        n_vision: 80,
        ..SMALL
    };
    assert_refused(Fixture::new(wide).save(), &["tower of width 80"]);
}

#[test]
fn related_models_are_refused_by_name() {
    let positions = format!("{TOWER}embeddings.position_embedding.weight");
    refused_after(
        |f| {
            f.add("plora_glb_GN", &[1, 1, 256]);
            f.add("plora_sub_GN", &[1, 1, 1, 256]);
            f.add(&positions, &[101, 64]);
        },
        &["position table of 101 rows", "577", "1601"],
    );
    refused_after(|f| f.add("plora_glb_GN", &[1, 1, 256]), &["plora_sub_GN"]);
    refused_after(
        |f| f.add("model.layers.0.attention.wo.MPlora_A.weight", &[2, 2]),
        &["OmniLive"],
    );
    refused_after(
        |f| f.add("v_head.weight", &[1, 64]),
        &["reward model", "v_head"],
    );
}

#[test]
fn other_families_are_refused() {
    let llama = json!(["LlamaForCausalLM"]);
    refused_after(
        |f| {
            f.config["auto_map"] = json!({});
            f.config["architectures"] = llama;
        },
        &["not an InternLM-XComposer2", "LlamaForCausalLM"],
    );
    refused_after(
        |f| f.tensors.retain(|name, _| !name.contains("Plora")),
        &["Partial-LoRA", "found none"],
    );
}

#[test]
fn null_means_absent() {
    for key in [
        "architectures",
        "bias",
        "tie_word_embeddings",
        "quantization_config",
    ] {
        let mut fixture = Fixture::new(SMALL);
        fixture.config[key] = json!(null);
        converted(fixture.save(), &[]);
    }
    let mut fixture = Fixture::new(SMALL);
    fixture.config["auto_map"] = json!(null);
    fixture.config["architectures"] = json!(["InternLMXComposer2ForCausalLM"]);
    converted(fixture.save(), &[]);
}

#[test]
fn git_lfs_pointers_are_distinguished_from_damaged_files() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let expected = &["Git LFS pointer", "git lfs pull"];
    refused_bin(|path| fs::write(path, pointer).unwrap(), expected);
    for file in ["model.safetensors", "tokenizer.model", "config.json"] {
        let fixture = Fixture::new(SMALL);
        fs::write(fixture.save().join(file), pointer).unwrap();
        assert_refused(fixture.path(), &[file, expected[0], expected[1]]);
    }
}

#[test]
fn a_thread_count_out_of_range_names_the_option_and_the_range() {
    for n in ["-3", "0", "513", "many"] {
        let output = xc2_convert(["hf", "out.gguf", "-t", n]);
        assert_eq!(output.status.code(), Some(2), "{n}");
        let message = stderr(&output);
        for expected in [n, "--threads", "expected a whole number, 1 to 512"] {
            assert!(message.contains(expected), "{n}: {message}");
        }
    }
}
