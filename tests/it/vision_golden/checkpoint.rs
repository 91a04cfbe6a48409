//! The tiny checkpoint `tiny-vl-safetensors` as a source of tensors under their GGUF names.

use std::collections::HashMap;

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};
use xc2_edge::model::VisionConfig;
use xc2_edge::model::quant::{GgmlType, quantize_rows};
use xc2_edge::model::tensor::{Tensor, TensorSource};

use crate::common::checkpoints::checkpoint;

/// The sizes of the tiny tower; its picture size is that of the published model.
pub fn config() -> VisionConfig {
    VisionConfig {
        image_size: 490,
        patch_size: 14,
        n_embd: 128,
        n_head: 2,
        n_ff: 512,
        n_layer: 3,
        layer_norm_eps: 1e-5,
        n_embd_text: 256,
        tiling: None,
    }
}

/// Tensors in memory.
#[derive(Clone)]
pub struct Checkpoint(pub HashMap<String, Tensor>);

impl TensorSource for Checkpoint {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        self.0.get(name).cloned()
    }
}

impl Checkpoint {
    /// The vision tensors of both shards, in float16 as they are stored.
    pub fn tiny_vl() -> Self {
        let dir = checkpoint("tiny-vl-safetensors");
        let mut tensors = HashMap::new();
        for shard in ["00001", "00002"] {
            let path = dir.join(format!("model-{shard}-of-00002.safetensors"));
            let bytes = Bytes::from(std::fs::read(path).unwrap());
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                let Some(name) = gguf_name(name) else {
                    continue;
                };
                assert_eq!(view.dtype(), Dtype::F16, "{name}");
                let tensor = Tensor {
                    name: name.clone(),
                    ty: GgmlType::F16,
                    shape: view.shape().iter().rev().copied().collect(),
                    data: bytes.slice_ref(view.data()),
                };
                tensors.insert(name, tensor);
            }
        }
        Self(tensors)
    }

    /// The same with every matrix of the layers and the projector in another type.
    pub fn with_matrices(&self, ty: GgmlType) -> Self {
        let mut converted = self.clone();
        let is_matrix = |t: &Tensor| t.shape.len() == 2 && t.name != "v.position_embd.weight";
        for tensor in converted.0.values_mut().filter(|t| is_matrix(t)) {
            let mut data = vec![0; ty.row_bytes(tensor.n_cols()).unwrap() * tensor.n_rows()];
            quantize_rows(ty, &tensor.to_f32(), tensor.n_cols(), &mut data);
            (tensor.ty, tensor.data) = (ty, Bytes::from(data));
        }
        converted
    }
}

/// Hugging Face's name to GGUF's; `None` for what is not of the vision part.
fn gguf_name(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("vision_proj.") {
        return Some(format!("mm.{rest}"));
    }
    let rest = name.strip_prefix("vit.vision_tower.vision_model.")?;
    let renamed = [
        ("embeddings.class_embedding", "class_embd"),
        ("embeddings.patch_embedding", "patch_embd"),
        ("embeddings.position_embedding", "position_embd"),
        ("pre_layrnorm", "pre_ln"),
        ("encoder.layers", "blk"),
        ("layer_norm", "ln"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.out_proj", "attn_out"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc2", "ffn_down"),
    ]
    .iter()
    .fold(rest.to_owned(), |name, (from, to)| name.replace(from, to));
    Some(format!("v.{renamed}"))
}
