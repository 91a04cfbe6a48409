//! Generates small checkpoints of any shape and converts them.
#![allow(dead_code)] // each test file uses its part

pub mod bin;
#[path = "../../../../tests/it/common/checkpoints.rs"]
pub mod checkpoints;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;
use xc2_convert::checkpoint::{Checkpoint, SourceTensor};
use xc2_edge::model::{gguf::GgufFile, tensor::TensorSource};

/// Sizes of a checkpoint.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub n_ff: usize,
    pub rank: usize,
    pub n_vision: usize,
    pub n_vision_layer: usize,
    pub grid: usize,
}

pub const SMALL: Sizes = Sizes {
    n_embd: 64,
    n_layer: 2,
    n_head: 4,
    n_head_kv: 2,
    n_ff: 96,
    rank: 16,
    n_vision: 64,
    n_vision_layer: 1,
    grid: 3,
};

/// Pieces of the tokenizer in every generated checkpoint.
pub const N_VOCAB: usize = 1280;

/// A tensor of a checkpoint: shape and `f32` values, stored as `dtype`.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A checkpoint to change and save.
pub struct Fixture {
    pub dir: TempDir,
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
}

pub const TOWER: &str = "vit.vision_tower.vision_model.";

impl Fixture {
    pub fn new(sizes: Sizes) -> Self {
        let mut fixture = Self {
            dir: TempDir::new().unwrap(),
            config: config(sizes),
            tensors: BTreeMap::new(),
        };
        fixture.add_decoder(sizes);
        fixture.add_vision(sizes);
        fixture
    }

    /// A copy of a reference checkpoint in half precision, to be changed.
    pub fn copy_of(checkpoint: &str) -> Self {
        let source = Checkpoint::open(&checkpoints::checkpoint(checkpoint)).unwrap();
        let tensors = source
            .tensors()
            .filter(|t| matches!(t.dtype, xc2_convert::checkpoint::Dtype::Float(_)));
        let copy = |t: &SourceTensor| Tensor {
            dtype: Dtype::F16,
            shape: t.shape.clone(),
            values: t.to_f32().unwrap(),
        };
        Self {
            dir: TempDir::new().unwrap(),
            config: source.config().clone(),
            tensors: tensors.map(|t| (t.name.clone(), copy(t))).collect(),
        }
    }

    /// Appends rows to the embeddings and the output matrix until they have `n_rows`. Each is four times an earlier
    /// row, so that greedy decoding would prefer them.
    pub fn pad_vocabulary(&mut self, n_rows: usize) {
        for name in ["model.tok_embeddings.weight", "output.weight"] {
            let tensor = self.tensor(name);
            let [n, n_cols] = tensor.shape[..] else {
                panic!()
            };
            for row in n..n_rows {
                let from = row * 19 % n * n_cols;
                let copy: Vec<f32> = tensor.values[from..from + n_cols]
                    .iter()
                    .map(|v| v * 4.0)
                    .collect();
                tensor.values.extend(copy);
            }
            tensor.shape[0] = n_rows;
        }
    }

    /// Renames all tensors.
    pub fn rename(&mut self, name: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = tensors.map(|(old, tensor)| (name(&old), tensor)).collect();
    }

    /// Writes a file beside the weights.
    pub fn write(&self, file: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), contents).unwrap();
    }

    /// Saves everything as one `.bin` file; `pickle` builds its pickle.
    pub fn save_bin(&self, pickle: impl Fn(&[bin::View]) -> Vec<u8>) -> &Path {
        self.save_config();
        let storages = self
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.bytes()))
            .collect();
        let view = |(name, t): (&String, &Tensor)| bin::View {
            name: name.clone(),
            storage: name.clone(),
            offset: 0,
            shape: t.shape.clone(),
            strides: (0..t.shape.len())
                .map(|i| t.shape[i + 1..].iter().product())
                .collect(),
        };
        let views: Vec<bin::View> = self.tensors.iter().map(view).collect();
        bin::write_bin(
            &self.path().join("pytorch_model.bin"),
            &pickle(&views),
            &storages,
        );
        self.path()
    }

    fn add_decoder(&mut self, s: Sizes) {
        let n_qkv = (s.n_head + 2 * s.n_head_kv) * (s.n_embd / s.n_head);
        self.add("model.tok_embeddings.weight", &[N_VOCAB, s.n_embd]);
        self.add("output.weight", &[N_VOCAB, s.n_embd]);
        self.add("model.norm.weight", &[s.n_embd]);
        for n in 0..s.n_layer {
            for norm in ["attention_norm", "ffn_norm"] {
                self.add(&format!("model.layers.{n}.{norm}.weight"), &[s.n_embd]);
            }
            for (linear, out, inp) in [
                ("attention.wqkv", n_qkv, s.n_embd),
                ("attention.wo", s.n_embd, s.n_embd),
                ("feed_forward.w1", s.n_ff, s.n_embd),
                ("feed_forward.w3", s.n_ff, s.n_embd),
                ("feed_forward.w2", s.n_embd, s.n_ff),
            ] {
                let name = format!("model.layers.{n}.{linear}");
                self.add(&format!("{name}.weight"), &[out, inp]);
                self.add(&format!("{name}.Plora_A.weight"), &[s.rank, inp]);
                self.add(&format!("{name}.Plora_B.weight"), &[out, s.rank]);
            }
        }
    }

    fn add_vision(&mut self, s: Sizes) {
        let (v, ff) = (s.n_vision, 2 * s.n_vision);
        self.add(&format!("{TOWER}embeddings.class_embedding"), &[v]);
        self.add(
            &format!("{TOWER}embeddings.patch_embedding.weight"),
            &[v, 3, 14, 14],
        );
        let n_positions = s.grid * s.grid + 1;
        self.add(
            &format!("{TOWER}embeddings.position_embedding.weight"),
            &[n_positions, v],
        );
        self.add(&format!("{TOWER}pre_layrnorm.weight"), &[v]);
        self.add(&format!("{TOWER}pre_layrnorm.bias"), &[v]);
        for n in 0..s.n_vision_layer {
            for (name, out, inp) in [
                ("self_attn.q_proj", v, v),
                ("self_attn.k_proj", v, v),
                ("self_attn.v_proj", v, v),
                ("self_attn.out_proj", v, v),
                ("mlp.fc1", ff, v),
                ("mlp.fc2", v, ff),
            ] {
                self.add(
                    &format!("{TOWER}encoder.layers.{n}.{name}.weight"),
                    &[out, inp],
                );
                self.add(&format!("{TOWER}encoder.layers.{n}.{name}.bias"), &[out]);
            }
            for norm in ["layer_norm1", "layer_norm2"] {
                self.add(&format!("{TOWER}encoder.layers.{n}.{norm}.weight"), &[v]);
                self.add(&format!("{TOWER}encoder.layers.{n}.{norm}.bias"), &[v]);
            }
        }
        self.add("vision_proj.0.weight", &[s.n_embd, v]);
        self.add("vision_proj.0.bias", &[s.n_embd]);
        self.add("vision_proj.2.weight", &[s.n_embd, s.n_embd]);
        self.add("vision_proj.2.bias", &[s.n_embd]);
    }

    /// Adds a tensor of numbers that depend on its name, each exact in all float types.
    pub fn add(&mut self, name: &str, shape: &[usize]) {
        let mut state = name
            .bytes()
            .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let values = (0..shape.iter().product()).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 24) as f32 - 127.5).trunc() / 128.0
        });
        let values = values.collect();
        let shape = shape.to_vec();
        self.tensors.insert(
            name.to_owned(),
            Tensor {
                dtype: Dtype::F16,
                shape,
                values,
            },
        );
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .get_mut(name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Saves configuration and tokenizer.
    pub fn save_config(&self) {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        let tokenizer = reference("tiny-vl/tokenizer.model");
        fs::copy(tokenizer, self.path().join("tokenizer.model")).unwrap();
    }

    /// Saves everything as a single safetensors file.
    pub fn save(&self) -> &Path {
        self.save_config();
        self.save_shard("model.safetensors", |_| true);
        self.path()
    }

    /// Saves the tensors that `include` selects.
    pub fn save_shard(&self, file: &str, include: impl Fn(&str) -> bool) {
        let bytes: BTreeMap<&String, Vec<u8>> = self
            .tensors
            .iter()
            .filter(|t| include(t.0))
            .map(|(n, t)| (n, t.bytes()))
            .collect();
        let views = bytes.iter().map(|(name, bytes)| {
            let t = &self.tensors[*name];
            (
                *name,
                TensorView::new(t.dtype, t.shape.clone(), bytes).unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &self.path().join(file)).unwrap();
    }

    /// Saves an index that assigns the tensors to `shards` in turn.
    pub fn save_index(&self, file: &str, shards: &[&str]) {
        let map: BTreeMap<&String, &&str> =
            self.tensors.keys().zip(shards.iter().cycle()).collect();
        let index = json!({ "metadata": {}, "weight_map": map });
        fs::write(self.path().join(file), index.to_string()).unwrap();
    }
}

impl Tensor {
    pub fn bytes(&self) -> Vec<u8> {
        let values = self.values.iter();
        match self.dtype {
            Dtype::F32 => values.flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect(),
            Dtype::BF16 => values
                .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
                .collect(),
            Dtype::I64 => values.flat_map(|v| (*v as i64).to_le_bytes()).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn config(s: Sizes) -> Value {
    json!({
        "auto_map": {
            "AutoModel": "repo--modeling_internlm_xcomposer2.InternLMXComposer2ForCausalLM"
        },
        "bias": false,
        "hidden_act": "silu",
        "hidden_size": s.n_embd,
        "img_size": 14 * s.grid,
        "intermediate_size": s.n_ff,
        "max_length": 4096,
        "max_position_embeddings": 32768,
        "model_type": "anything",
        "num_attention_heads": s.n_head,
        "num_hidden_layers": s.n_layer,
        "num_key_value_heads": s.n_head_kv,
        "rms_norm_eps": 1e-5,
        "rope_scaling": { "factor": 2.0, "type": "dynamic" },
        "rope_theta": 1_000_000,
        "tie_word_embeddings": false,
    })
}

/// A file of the reference data.
pub fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/reference")
        .join(path)
}

/// Runs the program.
pub fn xc2_convert<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-convert"));
    command.args(args).output().expect("the program starts")
}

/// Converts `dir` with `flags`, which must succeed.
pub fn converted(dir: &Path, flags: &[&str]) -> (TempDir, PathBuf) {
    let out = TempDir::new().unwrap();
    let path = out.path().join("model.gguf");
    let args = [dir.as_os_str(), path.as_os_str()]
        .into_iter()
        .chain(flags.iter().map(AsRef::as_ref));
    let output = xc2_convert(args);
    assert!(output.status.success(), "{}", stderr(&output));
    (out, path)
}

/// Asserts that converting `dir` fails with status 1, leaves no file, and that the error has all of `expected`.
#[track_caller]
pub fn assert_refused(dir: &Path, expected: &[&str]) {
    let out = TempDir::new().unwrap();
    let path = out.path().join("model.gguf");
    let output = xc2_convert([dir, &path]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        0,
        "a file was left behind"
    );
    let error = message
        .split("error: ")
        .nth(1)
        .unwrap_or_else(|| panic!("no error: {message}"));
    for part in expected {
        assert!(error.contains(part), "expected `{part}` in: {message}");
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that two files hold the same tensors, view headers aside.
#[track_caller]
pub fn assert_same_tensors(a: &Path, b: &Path) {
    let (a, b) = (GgufFile::open(a).unwrap(), GgufFile::open(b).unwrap());
    assert_eq!(a.tensors().len(), b.tensors().len());
    for info in a
        .tensors()
        .iter()
        .filter(|t| !t.name.starts_with("xc2.view."))
    {
        let (x, y) = (
            a.require(&info.name).unwrap(),
            b.tensor(&info.name).expect(&info.name),
        );
        assert_eq!((x.ty, &x.shape), (y.ty, &y.shape), "{}", info.name);
        assert!(x.data == y.data, "{} differs", info.name);
    }
}
