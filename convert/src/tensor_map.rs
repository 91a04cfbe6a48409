//! The table that maps tensors of a checkpoint to tensors of the file.
//!
//! Rows are kept, reordered or resized ([`Rows`]). Types are chosen in [`crate::mix`].

use std::fmt;

use xc2_edge::model::container::keys;

use crate::model::{Model, ROW_SEPARATOR, TOWER, VIEW_SEPARATOR};

/// A part of the model file, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The vision tower.
    Vision,
    /// The projector.
    Projector,
    /// Partial-LoRA.
    Plora,
    /// The language model.
    Decoder,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vision => "vision",
            Self::Projector => "projector",
            Self::Plora => "plora",
            Self::Decoder => "decoder",
        })
    }
}

/// Role of a tensor in the choice of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Small and sensitive: norms, biases, the tower's embeddings. Always F32.
    Exact,
    /// A matrix of a product.
    Matrix,
    /// The token embeddings.
    TokenEmbd,
    /// The output matrix.
    Output,
    /// The fused query, key and value matrix.
    AttnQkv,
    /// The output matrix of the MLP.
    FfnDown,
}

/// How a tensor's rows are rearranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Unchanged.
    Keep,
    /// The rows of `wqkv`, stored by KV group (its query heads, then k, then v), become all queries, all keys,
    /// all values. Within each query and key head, the two halves are interleaved, because llama.cpp rotates
    /// adjacent rows and the checkpoint rotates halves.
    Qkv,
    /// A vector that is stored with leading dimensions of one.
    Vector,
    /// The position table is resized from the stored grid of patches to the model's.
    Positions,
}

/// The mapping of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Name in the checkpoint.
    pub source: String,
    /// Name in the file.
    pub target: String,
    /// Part of the file.
    pub part: Part,
    /// Role in the choice of the type.
    pub role: Role,
    /// Rearrangement.
    pub rows: Rows,
    /// Shape in the checkpoint, the slowest dimension first.
    pub shape: Vec<usize>,
    /// Decoder layer, if it belongs to one.
    pub layer: Option<usize>,
}

/// A line of the table: name in the checkpoint, name in the file, role, rearrangement, shape.
/// `{N}` in the names is the number of a layer.
struct Rule(
    &'static str,
    &'static str,
    Role,
    Rows,
    fn(&Model) -> Vec<usize>,
);

use Role::{AttnQkv, Exact, FfnDown, Matrix, Output, TokenEmbd};
use Rows::{Keep, Positions, Qkv, Vector};

/// The tower's tensors outside its layers; names without the prefix [`TOWER`].
#[rustfmt::skip]
const VISION: [Rule; 5] = [
    Rule("embeddings.class_embedding", "v.class_embd", Exact, Keep, v_embd),
    Rule("embeddings.patch_embedding.weight", "v.patch_embd.weight", Exact, Keep, v_kernel),
    Rule("embeddings.position_embedding.weight", "v.position_embd.weight", Exact, Positions, v_table),
    Rule("pre_layrnorm.weight", "v.pre_ln.weight", Exact, Keep, v_embd),
    Rule("pre_layrnorm.bias", "v.pre_ln.bias", Exact, Keep, v_embd),
];

/// A layer of the tower; names without the prefix and `encoder.layers.N.`.
#[rustfmt::skip]
const VISION_LAYER: [Rule; 16] = [
    Rule("layer_norm1.weight", "v.blk.{N}.ln1.weight", Exact, Keep, v_embd),
    Rule("layer_norm1.bias", "v.blk.{N}.ln1.bias", Exact, Keep, v_embd),
    Rule("self_attn.q_proj.weight", "v.blk.{N}.attn_q.weight", Matrix, Keep, v_square),
    Rule("self_attn.q_proj.bias", "v.blk.{N}.attn_q.bias", Exact, Keep, v_embd),
    Rule("self_attn.k_proj.weight", "v.blk.{N}.attn_k.weight", Matrix, Keep, v_square),
    Rule("self_attn.k_proj.bias", "v.blk.{N}.attn_k.bias", Exact, Keep, v_embd),
    Rule("self_attn.v_proj.weight", "v.blk.{N}.attn_v.weight", Matrix, Keep, v_square),
    Rule("self_attn.v_proj.bias", "v.blk.{N}.attn_v.bias", Exact, Keep, v_embd),
    Rule("self_attn.out_proj.weight", "v.blk.{N}.attn_out.weight", Matrix, Keep, v_square),
    Rule("self_attn.out_proj.bias", "v.blk.{N}.attn_out.bias", Exact, Keep, v_embd),
    Rule("layer_norm2.weight", "v.blk.{N}.ln2.weight", Exact, Keep, v_embd),
    Rule("layer_norm2.bias", "v.blk.{N}.ln2.bias", Exact, Keep, v_embd),
    Rule("mlp.fc1.weight", "v.blk.{N}.ffn_up.weight", Matrix, Keep, v_up),
    Rule("mlp.fc1.bias", "v.blk.{N}.ffn_up.bias", Exact, Keep, v_ff),
    Rule("mlp.fc2.weight", "v.blk.{N}.ffn_down.weight", Matrix, Keep, v_down),
    Rule("mlp.fc2.bias", "v.blk.{N}.ffn_down.bias", Exact, Keep, v_embd),
];

#[rustfmt::skip]
const PROJECTOR: [Rule; 4] = [
    Rule("vision_proj.0.weight", "mm.0.weight", Matrix, Keep, p_up),
    Rule("vision_proj.0.bias", "mm.0.bias", Exact, Keep, p_hidden),
    Rule("vision_proj.2.weight", "mm.2.weight", Matrix, Keep, p_out),
    Rule("vision_proj.2.bias", "mm.2.bias", Exact, Keep, d_embd),
];

/// The separators of models with tiles.
#[rustfmt::skip]
const SEPARATORS: [Rule; 2] = [
    Rule(ROW_SEPARATOR, keys::ROW_SEPARATOR, Exact, Vector, p_in),
    Rule(VIEW_SEPARATOR, keys::VIEW_SEPARATOR, Exact, Vector, p_in),
];

/// The decoder's tensors outside its layers.
#[rustfmt::skip]
const DECODER: [Rule; 3] = [
    Rule("model.tok_embeddings.weight", "token_embd.weight", TokenEmbd, Keep, d_vocab),
    Rule("model.norm.weight", "output_norm.weight", Exact, Keep, d_embd),
    Rule("output.weight", "output.weight", Output, Keep, d_vocab),
];

/// A layer of the decoder; names without `model.layers.N.`. Each matrix has a Partial-LoRA pair.
#[rustfmt::skip]
const DECODER_LAYER: [Rule; 7] = [
    Rule("attention_norm.weight", "blk.{N}.attn_norm.weight", Exact, Keep, d_embd),
    Rule("attention.wqkv.weight", "blk.{N}.attn_qkv.weight", AttnQkv, Qkv, d_qkv),
    Rule("attention.wo.weight", "blk.{N}.attn_output.weight", Matrix, Keep, d_square),
    Rule("ffn_norm.weight", "blk.{N}.ffn_norm.weight", Exact, Keep, d_embd),
    Rule("feed_forward.w1.weight", "blk.{N}.ffn_gate.weight", Matrix, Keep, d_up),
    Rule("feed_forward.w3.weight", "blk.{N}.ffn_up.weight", Matrix, Keep, d_up),
    Rule("feed_forward.w2.weight", "blk.{N}.ffn_down.weight", FfnDown, Keep, d_down),
];

/// Shapes by name: `v_` of the vision tower, `p_` of the projector, `d_` of the decoder.
macro_rules! shapes {
    ($($name:ident: |$model:ident| $shape:expr;)*) => {$(
        fn $name($model: &Model) -> Vec<usize> {
            $shape.to_vec()
        }
    )*};
}
shapes! {
    v_embd: |m| [m.vision.n_embd];
    v_ff: |m| [m.vision.n_ff];
    v_square: |m| [m.vision.n_embd, m.vision.n_embd];
    v_up: |m| [m.vision.n_ff, m.vision.n_embd];
    v_down: |m| [m.vision.n_embd, m.vision.n_ff];
    v_kernel: |m| [m.vision.n_embd, 3, m.vision.patch_size, m.vision.patch_size];
    v_table: |m| [m.vision.stored_grid.pow(2) + 1, m.vision.n_embd];
    p_in: |m| [m.vision.n_projector_in()];
    p_hidden: |m| [m.n_projector];
    p_up: |m| [m.n_projector, m.vision.n_projector_in()];
    p_out: |m| [m.decoder.n_embd, m.n_projector];
    d_embd: |m| [m.decoder.n_embd];
    d_vocab: |m| [m.decoder.n_vocab, m.decoder.n_embd];
    d_square: |m| [m.decoder.n_embd, m.decoder.n_embd];
    d_qkv: |m| [m.decoder.n_qkv(), m.decoder.n_embd];
    d_up: |m| [m.decoder.n_ff, m.decoder.n_embd];
    d_down: |m| [m.decoder.n_embd, m.decoder.n_ff];
}

/// All tensors of a model in file order. `rank` returns the Partial-LoRA rank of a matrix, given the name of its
/// `A` in the checkpoint.
///
/// # Errors
/// The errors of `rank`.
pub fn tensor_map<E>(
    model: &Model,
    rank: impl Fn(&str) -> Result<usize, E>,
) -> Result<Vec<Mapped>, E> {
    let whole = |part, prefix: &str, rules: &[Rule]| expand(model, part, prefix, rules, None);
    let mut all = whole(Part::Vision, TOWER, &VISION);
    for n in 0..model.vision.n_layer {
        let prefix = format!("{TOWER}encoder.layers.{n}.");
        all.extend(expand(model, Part::Vision, &prefix, &VISION_LAYER, Some(n)));
    }
    if model.vision.tiling.is_some() {
        all.extend(whole(Part::Vision, "", &SEPARATORS));
    }
    all.extend(whole(Part::Projector, "", &PROJECTOR));
    let layers = (0..model.decoder.n_layer).flat_map(|n| {
        let prefix = format!("model.layers.{n}.");
        expand(model, Part::Decoder, &prefix, &DECODER_LAYER, Some(n))
    });
    let layers: Vec<Mapped> = layers.collect();
    for matrix in layers.iter().filter(|t| t.role != Exact) {
        let linear = matrix.source.trim_end_matches(".weight");
        let rank = rank(&format!("{linear}.Plora_A.weight"))?;
        all.extend(plora_pair(matrix, linear, rank));
    }
    all.extend(whole(Part::Decoder, "", &DECODER[..1]));
    all.extend(layers);
    all.extend(whole(Part::Decoder, "", &DECODER[1..]));
    Ok(all)
}

/// The Partial-LoRA pair of a matrix. `A` is unchanged; `B` has the same rows as the matrix it is added to, so
/// they are rearranged in the same way.
fn plora_pair(matrix: &Mapped, linear: &str, rank: usize) -> [Mapped; 2] {
    let (n_out, n_in) = (matrix.shape[0], matrix.shape[1]);
    let half = |source: &str, target: &str, rows, shape| Mapped {
        source: format!("{linear}.{source}"),
        target: format!("{}.{target}", matrix.target),
        part: Part::Plora,
        role: Matrix,
        rows,
        shape,
        layer: matrix.layer,
    };
    [
        half("Plora_A.weight", "lora_a", Keep, vec![rank, n_in]),
        half("Plora_B.weight", "lora_b", matrix.rows, vec![n_out, rank]),
    ]
}

fn expand(
    model: &Model,
    part: Part,
    prefix: &str,
    rules: &[Rule],
    layer: Option<usize>,
) -> Vec<Mapped> {
    let expand = |rule: &Rule| rule.expand(model, part, prefix, layer);
    rules.iter().map(expand).collect()
}

impl Rule {
    fn expand(&self, model: &Model, part: Part, prefix: &str, layer: Option<usize>) -> Mapped {
        let number = layer.map(|n| n.to_string()).unwrap_or_default();
        let rows = match self.3 {
            Positions if model.vision.grid() == model.vision.stored_grid => Keep,
            rows => rows,
        };
        Mapped {
            source: format!("{prefix}{}", self.0),
            target: self.1.replace("{N}", &number),
            part,
            role: self.2,
            rows,
            shape: self.4(model),
            layer,
        }
    }
}

/// Whether a tensor that is not in the table can be skipped without a warning.
pub fn is_known_unused(name: &str) -> bool {
    // The last norm only feeds CLIP's pooled output, which is unused; the others are tables that any
    // implementation computes.
    let unused = [
        "post_layernorm.weight",
        "post_layernorm.bias",
        "position_ids",
        "inv_freq",
    ];
    unused.iter().any(|end| name.ends_with(end))
}
