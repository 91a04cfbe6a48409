//! Loads the tower's tensors by name and checks each against the configuration.
//!
//! Tensor names occur only here. They are those of llama.cpp's mtmd, so the tower can be split off for it unchanged.

use crate::model::quant::GgmlType;
use crate::model::tensor::{Tensor, TensorSource};

use super::linear::Linear;
use super::{Precision, VisionError};
use crate::model::{CHANNELS, VisionConfig, container::keys};
use xc2_kernels::{LayerNorm, attention};

/// All weights of the tower and its projector.
pub struct VisionWeights {
    /// Patch convolution as a matmul over flattened patches: `[n_embd, patch_len]`, no bias.
    pub patch_embd: Linear,
    /// `[n_embd]`
    pub class_embd: Vec<f32>,
    /// `[n_tokens, n_embd]`; row 0 is for the class token.
    pub position_embd: Vec<f32>,
    pub pre_ln: LayerNorm,
    pub layers: Vec<LayerWeights>,
    /// Projector: `n_projector_in` to `n_embd_text`.
    pub mm_0: Linear,
    /// Projector: `n_embd_text` to `n_embd_text`.
    pub mm_2: Linear,
    /// With tiles: the separators.
    pub separators: Option<Separators>,
}

/// Learned features that stand behind others, `[n_projector_in]`.
pub struct Separators {
    /// Behind each row.
    pub row: Vec<f32>,
    /// Behind the view of the whole picture.
    pub view: Vec<f32>,
}

/// One layer of the tower.
pub struct LayerWeights {
    pub ln1: LayerNorm,
    /// `n_embd` to q, k and v, side by side.
    pub attn_qkv: Linear,
    /// Precision of the attention.
    pub attention: attention::Precision,
    pub attn_out: Linear,
    pub ln2: LayerNorm,
    /// `n_embd` to `n_ff`.
    pub ffn_up: Linear,
    /// `n_ff` to `n_embd`.
    pub ffn_down: Linear,
}

impl VisionWeights {
    /// Finds and checks every tensor. Memory is allocated only for tensors that passed.
    pub fn load(
        config: &VisionConfig,
        source: &dyn TensorSource,
        precision: Precision,
    ) -> Result<Self, VisionError> {
        let loader = Loader {
            config,
            source,
            precision,
        };
        let (c, text) = (config.n_embd, config.n_embd_text);
        Ok(Self {
            patch_embd: loader.patch_embd()?,
            class_embd: loader.vector("v.class_embd", &[c])?,
            position_embd: loader.vector("v.position_embd.weight", &[c, config.n_tokens()])?,
            pre_ln: loader.layer_norm("v.pre_ln")?,
            layers: (0..config.n_layer)
                .map(|layer| loader.layer(&format!("v.blk.{layer}")))
                .collect::<Result<_, _>>()?,
            mm_0: loader.linear("mm.0", config.n_projector_in(), text)?,
            mm_2: loader.linear("mm.2", text, text)?,
            separators: config.tiling.map(|_| loader.separators()).transpose()?,
        })
    }
}

struct Loader<'a> {
    config: &'a VisionConfig,
    source: &'a dyn TensorSource,
    precision: Precision,
}

impl Loader<'_> {
    fn layer(&self, prefix: &str) -> Result<LayerWeights, VisionError> {
        let (c, ff) = (self.config.n_embd, self.config.n_ff);
        let norm = |name: &str| self.layer_norm(&format!("{prefix}.{name}"));
        let linear =
            |name: &str, n_in, n_out| self.linear(&format!("{prefix}.{name}"), n_in, n_out);
        let attn_qkv = self.stacked(prefix, ["attn_q", "attn_k", "attn_v"])?;
        Ok(LayerWeights {
            attention: self.attention(&attn_qkv),
            ln1: norm("ln1")?,
            attn_qkv,
            attn_out: linear("attn_out", c, c)?,
            ln2: norm("ln2")?,
            ffn_up: linear("ffn_up", c, ff)?,
            ffn_down: linear("ffn_down", ff, c)?,
        })
    }

    /// Rounding to 16 bits is negligible beside matmuls in int8 or bf16; rounding to f16 is negligible beside weights
    /// of lower precision.
    fn attention(&self, attn_qkv: &Linear) -> attention::Precision {
        let coarse = |ty: GgmlType| ty == GgmlType::BF16 || ty.is_quantized();
        let coarse = self.precision == Precision::Stored && attn_qkv.types().all(coarse);
        match attention::Precision::fastest() {
            fastest if attn_qkv.is_low_precision() => fastest,
            attention::Precision::F16 if coarse => attention::Precision::F16,
            _ => attention::Precision::F32,
        }
    }

    fn linear(&self, name: &str, n_in: usize, n_out: usize) -> Result<Linear, VisionError> {
        let weight = self.tensor(&format!("{name}.weight"), &[n_in, n_out])?;
        let bias = self.vector(&format!("{name}.bias"), &[n_out])?;
        Ok(Linear::new(vec![weight], Some(bias), self.precision))
    }

    /// Three matrices with the same input, stacked into one.
    fn stacked(&self, prefix: &str, names: [&str; 3]) -> Result<Linear, VisionError> {
        let c = self.config.n_embd;
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            weights.push(self.tensor(&format!("{prefix}.{name}.weight"), &[c, c])?);
            biases.extend(self.vector(&format!("{prefix}.{name}.bias"), &[c])?);
        }
        Ok(Linear::new(weights, Some(biases), self.precision))
    }

    fn separators(&self) -> Result<Separators, VisionError> {
        let shape = [self.config.n_projector_in()];
        Ok(Separators {
            row: self.vector(keys::ROW_SEPARATOR, &shape)?,
            view: self.vector(keys::VIEW_SEPARATOR, &shape)?,
        })
    }

    fn layer_norm(&self, name: &str) -> Result<LayerNorm, VisionError> {
        let shape = [self.config.n_embd];
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), &shape)?,
            bias: self.vector(&format!("{name}.bias"), &shape)?,
            eps: self.config.layer_norm_eps,
        })
    }

    /// The patch convolution's kernel, one row of `patch_len` values per output.
    fn patch_embd(&self) -> Result<Linear, VisionError> {
        let p = self.config.patch_size;
        let n_embd = self.config.n_embd;
        let mut weight = self.tensor("v.patch_embd.weight", &[p, p, CHANNELS, n_embd])?;
        // Merging the first three dimensions keeps the order of the bytes, except for blocked types, whose blocks
        // restart at every row of `patch_size`.
        if weight.ty.is_quantized() {
            return Err(VisionError::Type {
                name: weight.name,
                expected: "f32, f16 or bf16",
                found: weight.ty,
            });
        }
        weight.shape = vec![self.config.patch_len(), n_embd];
        Ok(Linear::new(vec![weight], None, self.precision))
    }

    /// A small tensor, dequantized.
    fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, VisionError> {
        Ok(self.tensor(name, shape)?.to_f32())
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
        let Some(tensor) = self.source.tensor(name) else {
            return Err(VisionError::MissingTensor {
                name: name.to_owned(),
                expected: shape.to_vec(),
            });
        };
        check(&tensor, name, shape)?;
        Ok(tensor)
    }
}

fn check(tensor: &Tensor, name: &str, shape: &[usize]) -> Result<(), VisionError> {
    let name = || name.to_owned();
    if tensor.shape != shape {
        return Err(VisionError::Shape {
            name: name(),
            expected: shape.to_vec(),
            found: tensor.shape.clone(),
        });
    }
    let row_bytes = tensor.ty.row_bytes(tensor.n_cols());
    let Some(row_bytes) = row_bytes.filter(|_| tensor.ty != GgmlType::I8) else {
        return Err(VisionError::Type {
            name: name(),
            expected: "a numeric type whose blocks divide the rows",
            found: tensor.ty,
        });
    };
    let expected = row_bytes * tensor.n_rows(); // cannot overflow: the configuration bounds both
    if tensor.data.len() != expected {
        return Err(VisionError::Data {
            name: name(),
            expected,
            found: tensor.data.len(),
        });
    }
    Ok(())
}
