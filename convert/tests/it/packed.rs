//! Checkpoints in 4 bits: every number of the authors survives.

use std::{collections::BTreeMap, fs};

use safetensors::{SafeTensors, tensor::Dtype};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use xc2_convert::checkpoint::Checkpoint;
use xc2_edge::model::{
    container::{Container, keys},
    quant::{GgmlType, dequantize},
};

use crate::common::{
    Fixture, SMALL, assert_refused, checkpoints::checkpoint, converted, reference, stderr,
    xc2_convert,
};

/// A packed layer by the reference's own reading.
#[derive(Deserialize)]
struct Layer {
    shape: [usize; 2],
    row0: Vec<f32>,
    f32_sha256: String,
    ggml: Option<Block>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    ty: String,
    sha256: String,
}

fn layers(name: &str) -> BTreeMap<String, Layer> {
    let path = reference(&format!("golden/{name}/dequant.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn numbers_and_blocks_equal_the_references() {
    let mut n_exact = 0;
    for name in ["tiny-vl-gptq", "tiny-vl-gptq-act", "tiny-2d5-awq"] {
        let checkpoint = Checkpoint::open(&checkpoint(name)).unwrap();
        for (layer, expected) in layers(name) {
            let dense = format!("{}.weight", layer.trim_end_matches(".linear"));
            let tensor = checkpoint.require(&dense).unwrap();
            assert_eq!(tensor.shape, expected.shape, "{dense}");
            let values = tensor.to_f32().unwrap();
            assert_eq!(values[..expected.row0.len()], expected.row0, "{dense}");
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(sha256(&bytes), expected.f32_sha256, "{dense}");
            let packed = tensor.packed().unwrap();
            let ty = packed.exact_type();
            assert_eq!(ty.is_some(), expected.ggml.is_some(), "{dense}");
            if let (Some(ty), Some(block)) = (ty, expected.ggml) {
                assert_eq!(ty.name().to_uppercase(), block.ty, "{dense}");
                let bytes = packed.blocks(0..expected.shape[0]).unwrap();
                assert_eq!(sha256(&bytes), block.sha256, "{dense}");
                n_exact += 1;
            }
        }
    }
    assert!(n_exact >= 10, "{n_exact} layers have exact types");
}

/// The specification's formula on the raw words, without anything of the converter.
#[test]
fn the_written_tensors_are_the_formulas_values() {
    let (_dir, path) = converted(&checkpoint("tiny-vl-gptq"), &[]);
    let container = Container::open(&path).unwrap();
    let source = checkpoint("tiny-vl-gptq").join("gptq_model-4bit-128g.safetensors");
    let bytes = fs::read(source).unwrap();
    let raw = SafeTensors::deserialize(&bytes).unwrap();
    let layer = "model.layers.1.feed_forward.w2.linear";
    let words = |part: &str| -> Vec<u32> {
        let tensor = raw.tensor(&format!("{layer}.{part}")).unwrap();
        let (words, _) = tensor.data().as_chunks::<4>();
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    };
    let (qweight, qzeros, g_idx) = (words("qweight"), words("qzeros"), words("g_idx"));
    let scales = raw.tensor(&format!("{layer}.scales")).unwrap();
    assert_eq!(scales.dtype(), Dtype::F16);
    let n_out = scales.shape()[1];
    let scales: Vec<f32> = (scales.data().as_chunks::<2>().0.iter())
        .map(|half| half::f16::from_le_bytes(*half).to_f32())
        .collect();
    let tensor = container.file().require("blk.1.ffn_down.weight").unwrap();
    assert_eq!(tensor.ty, GgmlType::Q4_0);
    let n_in = g_idx.len();
    let mut found = vec![0.0; n_in * n_out];
    dequantize(tensor.ty, &tensor.data, &mut found);
    for (at, found) in found.iter().enumerate() {
        let (c, i) = (at / n_in, at % n_in);
        let group = g_idx[i] as usize;
        let q = qweight[i / 8 * n_out + c] >> (4 * (i % 8)) & 15;
        let z = ((qzeros[group * (n_out / 8) + c / 8] >> (4 * (c % 8)) & 15) + 1) & 15;
        let expected = scales[group * n_out + c] * (q as f32 - z as f32);
        assert_eq!(*found, expected, "{c}, {i}");
    }
}

#[test]
fn the_file_says_what_it_holds() {
    for (name, method) in [("tiny-vl-gptq", Some("gptq")), ("tiny-vl-gptq-act", None)] {
        let (_dir, path) = converted(&checkpoint(name), &[]);
        let container = Container::open(&path).unwrap();
        let info = container.info();
        assert_eq!(info.source_quantization.as_deref(), method, "{name}");
        let plora = container.file().require("blk.0.ffn_down.weight.lora_a");
        assert_eq!(plora.unwrap().ty, GgmlType::F16);
        let options = container.file().metadata().str(keys::XC2_OPTIONS).unwrap();
        assert_eq!(options, "");
    }
}

#[test]
fn quantizing_twice_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    let source = checkpoint("tiny-vl-gptq");
    let twice = xc2_convert([source.as_os_str(), out.as_os_str(), "--q4_k".as_ref()]);
    assert!(twice.status.success());
    assert!(
        stderr(&twice).contains("quantized twice"),
        "{}",
        stderr(&twice)
    );
    let exact = xc2_convert([&source, &out]);
    assert!(stderr(&exact).contains("10 GPTQ matrices are stored bit for bit"));
}

#[test]
fn unsupported_4_bit_layouts_are_refused_by_name() {
    let refused =
        |name: &str, file: &str, key: &str, value: serde_json::Value, expected: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(checkpoint(name)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
            let path = dir.path().join(file);
            let mut config: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            config[key] = value;
            fs::write(&path, config.to_string()).unwrap();
            assert_refused(dir.path(), expected);
        };
    let gptq = "quantize_config.json";
    refused(
        "tiny-vl-gptq",
        gptq,
        "bits",
        json!(8),
        &["`bits`", "found 8", "hint"],
    );
    refused(
        "tiny-vl-gptq",
        gptq,
        "checkpoint_format",
        json!("marlin"),
        &["checkpoint_format", "marlin"],
    );
    refused(
        "tiny-2d5-awq",
        "config.json",
        "quantization_config",
        json!({ "bits": 4, "quant_method": "awq", "version": "gemv" }),
        &["version", "gemv"],
    );
    for (method, named) in [
        ("bitsandbytes", "bitsandbytes"),
        ("eetq", "EETQ"),
        ("hqq", "HQQ"),
        ("compressed-tensors", "compressed-tensors"),
        ("fp8", "FP8"),
    ] {
        let mut fixture = Fixture::new(SMALL);
        fixture.config["quantization_config"] = json!({ "quant_method": method });
        assert_refused(fixture.save(), &[named, "unquantized"]);
    }
    let mut fixture = Fixture::new(SMALL);
    fixture.add("model.layers.0.attention.wo.weight.absmax", &[4]);
    assert_refused(fixture.save(), &["bitsandbytes", "absmax"]);
}

#[test]
fn a_bias_that_is_not_zero_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(checkpoint("tiny-vl-gptq")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("gptq_model-4bit-128g.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let bias = metadata
        .info("model.layers.0.attention.wo.linear.bias")
        .unwrap();
    bytes[header + bias.data_offsets.0 + 1] = 0x3c; // 1.0 in f16
    fs::write(&path, bytes).unwrap();
    assert_refused(dir.path(), &["wo.linear.bias", "zeros", "found 1"]);
}
