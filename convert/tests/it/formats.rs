//! All storage formats of a checkpoint give the same model.

use std::{collections::BTreeMap, fs};

use crate::common::{
    Fixture, SMALL, assert_same_tensors,
    bin::{Protocol, View, state_dict, write_bin},
    checkpoints::checkpoint,
    converted,
};

#[test]
fn bf16_bin_and_f16_safetensors_of_one_model_are_equal() {
    let (_a, bin) = converted(&checkpoint("tiny-vl"), &["--f32"]);
    let (_b, safetensors) = converted(&checkpoint("tiny-vl-safetensors"), &["--f32"]);
    assert_same_tensors(&bin, &safetensors);
}

#[test]
fn a_single_bin_with_post_layernorm_converts() {
    converted(&checkpoint("tiny-composer"), &["--f16"]);
}

#[test]
fn conversion_is_deterministic_for_any_number_of_threads() {
    let fixture = Fixture::new(SMALL);
    let (_a, one) = converted(fixture.save(), &["--q4_k", "--threads", "1"]);
    let (_b, many) = converted(fixture.path(), &["--q4_k", "--threads", "7"]);
    assert!(fs::read(one).unwrap() == fs::read(many).unwrap());
}

/// Views as a checkpoint may have them: transposed, interleaved, consecutive in a shared storage, one storage used
/// twice.
#[test]
fn strides_offsets_and_shared_storages_are_supported() {
    for protocol in [Protocol::Two, Protocol::Four] {
        let mut fixture = Fixture::new(SMALL);
        // Two tensors share a storage, so they need the same values.
        let values = fixture.tensor("model.norm.weight").values.clone();
        fixture.tensor("model.layers.0.ffn_norm.weight").values = values;
        let (_a, plain) = converted(fixture.save(), &["--f32"]);
        fs::remove_file(fixture.path().join("model.safetensors")).unwrap();
        let (views, storages) = awkward_views(&fixture);
        let path = fixture.path().join("pytorch_model.bin");
        write_bin(&path, &state_dict(&views, protocol), &storages);
        let (_b, strided) = converted(fixture.path(), &["--f32"]);
        assert_same_tensors(&plain, &strided);
    }
}

fn awkward_views(fixture: &Fixture) -> (Vec<View>, BTreeMap<String, Vec<u8>>) {
    let (mut views, mut storages) = (Vec::new(), BTreeMap::new());
    let mut shared = Vec::new();
    for (i, (name, tensor)) in fixture.tensors.iter().enumerate() {
        let items: Vec<[u8; 2]> = tensor.bytes().as_chunks::<2>().0.to_vec();
        let key = i.to_string();
        let mut view = View {
            name: name.clone(),
            storage: key.clone(),
            offset: 0,
            shape: tensor.shape.clone(),
            strides: row_major(&tensor.shape),
        };
        match (&tensor.shape[..], i % 3) {
            (&[rows, cols], 0) => {
                view.strides = vec![1, rows];
                let transposed = (0..rows * cols).map(|at| items[at % rows * cols + at / rows]);
                storages.insert(key, transposed.flatten().collect());
            }
            (_, 1) if name != "model.norm.weight" && name != "model.layers.0.ffn_norm.weight" => {
                view.strides.iter_mut().for_each(|s| *s *= 2);
                view.offset = 1;
                let spread = items.iter().flat_map(|item| [[0xff, 0x7f], *item]);
                storages.insert(key, spread.flatten().collect());
            }
            _ if name == "model.norm.weight" => {
                let same = views
                    .iter()
                    .find(|v: &&View| v.name.ends_with("0.ffn_norm.weight"));
                let same = same.expect("sorted before");
                view.storage.clone_from(&same.storage);
                view.offset = same.offset;
            }
            _ => {
                view.storage = "shared".to_owned();
                view.offset = shared.len() / 2;
                shared.extend(items.iter().flatten());
            }
        }
        views.push(view);
    }
    storages.insert("shared".to_owned(), shared);
    (views, storages)
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len())
        .map(|i| shape[i + 1..].iter().product())
        .collect()
}

#[test]
fn shards_are_found_through_their_index() {
    let fixture = Fixture::new(SMALL);
    let (_a, single) = converted(fixture.save(), &["--f32"]);
    fs::remove_file(fixture.path().join("model.safetensors")).unwrap();
    let shards = ["a.safetensors", "b.safetensors", "c.safetensors"];
    fixture.save_index("model.safetensors.index.json", &shards);
    for (i, shard) in shards.iter().enumerate() {
        let names: Vec<&String> = fixture.tensors.keys().skip(i).step_by(3).collect();
        fixture.save_shard(shard, |name| names.iter().any(|n| *n == name));
    }
    let (_b, sharded) = converted(fixture.path(), &["--f32"]);
    assert_same_tensors(&single, &sharded);
}

#[test]
fn a_stale_index_beside_a_single_file_is_ignored() {
    let fixture = Fixture::new(SMALL);
    let (_a, expected) = converted(fixture.save(), &["--f32"]);
    let missing = [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ];
    fixture.save_index("pytorch_model.bin.index.json", &missing);
    fixture.save_index(
        "model.safetensors.index.json",
        &["model-00001-of-00002.safetensors"],
    );
    let (_b, found) = converted(fixture.path(), &["--f32"]);
    assert_same_tensors(&expected, &found);
}
