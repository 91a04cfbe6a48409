//! CLIP's vision transformer: patches to features, told in the order in which it happens.
//!
//! Two departures from what a CLIP implementation usually does, both as the model was trained: all
//! layers run (others stop one early), and the last layer's output is not normalised again.

use ndarray::{Array2, ArrayView1, Axis, s};
use rayon::prelude::*;

use crate::image::PixelValues;

use super::VisionConfig;
use super::config::CHANNELS;
use super::observer::Stages;
use super::weights::{LayerWeights, VisionWeights};
use xc2_kernels::{Epilogue, attention::attention};

/// The activations of one picture.
struct Activations {
    /// The residual stream, `[n_tokens, n_embd]`.
    x: Array2<f32>,
    /// A normalised copy of it, then what attention makes: `[n_tokens, n_embd]`.
    normed: Array2<f32>,
    /// q, k, v side by side: `[n_tokens, 3 * n_embd]`.
    qkv: Array2<f32>,
    /// `[n_tokens, n_ff]`
    ff: Array2<f32>,
}

/// Bytes of the activations, plus the patches that they are made from.
pub fn activation_bytes(config: &VisionConfig) -> usize {
    let per_token = 5 * config.n_embd + config.n_ff;
    let numbers = config.n_tokens() * per_token + config.n_patches() * config.patch_len();
    numbers * size_of::<f32>()
}

/// `pixels: [3, S, S]` to `[n_tokens, n_embd]`; row 0 is the class token's.
pub fn forward(
    config: &VisionConfig,
    weights: &VisionWeights,
    pixels: &PixelValues,
    stages: &mut Stages<'_>,
) -> Array2<f32> {
    let (n, c) = (config.n_tokens(), config.n_embd);
    let mut a = Activations {
        x: embed(config, weights, pixels, stages),
        normed: Array2::zeros((n, c)),
        qkv: Array2::zeros((n, 3 * c)),
        ff: Array2::zeros((n, config.n_ff)),
    };
    weights.pre_ln.forward_in_place(&mut a.x);
    stages.report(|| "hidden.0".to_owned(), &a.x.view());

    for (i, layer) in weights.layers.iter().enumerate() {
        layer_forward(config, layer, &mut a);
        stages.report(|| format!("hidden.{}", i + 1), &a.x.view());
    }
    a.x
}

/// Patch embeddings below the class embedding, and the positions added: `[n_tokens, n_embd]`.
fn embed(
    config: &VisionConfig,
    weights: &VisionWeights,
    pixels: &PixelValues,
    stages: &mut Stages<'_>,
) -> Array2<f32> {
    let shape = (config.n_tokens(), config.n_embd);
    let mut x = Array2::zeros(shape);
    x.row_mut(0).assign(&ArrayView1::from(&weights.class_embd));
    let patches = patches(config, pixels);
    let embedded = x.slice_mut(s![1.., ..]);
    weights
        .patch_embd
        .forward(&patches.view(), Epilogue::Store, embedded);
    stages.report(|| "patch_embed".to_owned(), &x.slice(s![1.., ..]));

    let positions = ndarray::ArrayView2::from_shape(shape, &weights.position_embd);
    x += &positions.expect("shape checked when it was loaded");
    stages.report(|| "embeddings".to_owned(), &x.view());
    x
}

/// The picture cut into patches: `[n_patches, 3 * patch_size * patch_size]`.
///
/// Patches in reading order; within one, channel by channel, each row by row: the order of the
/// convolution's weights, which this turns into a product.
fn patches(config: &VisionConfig, pixels: &PixelValues) -> Array2<f32> {
    let (size, p) = (config.image_size, config.patch_size);
    let mut out = Array2::zeros((config.n_patches(), config.patch_len()));
    // Of all patches in one row of the grid at a time.
    out.axis_chunks_iter_mut(Axis(0), config.grid())
        .into_par_iter()
        .enumerate()
        .for_each(|(grid_y, mut row)| {
            for (grid_x, mut patch) in row.rows_mut().into_iter().enumerate() {
                let patch = patch.as_slice_mut().expect("rows are contiguous");
                for (i, line) in patch.chunks_exact_mut(p).enumerate() {
                    let (channel, y) = (i / p, grid_y * p + i % p);
                    debug_assert!(channel < CHANNELS);
                    line.copy_from_slice(&pixels.plane(channel)[y * size + grid_x * p..][..p]);
                }
            }
        });
    out
}

/// `x += attn_out(attention(ln1(x)))`, then `x += ffn_down(quick_gelu(ffn_up(ln2(x))))`.
fn layer_forward(config: &VisionConfig, layer: &LayerWeights, a: &mut Activations) {
    let c = config.n_embd;
    layer.ln1.forward(&a.x.view(), &mut a.normed);
    for (i, linear) in [&layer.attn_q, &layer.attn_k, &layer.attn_v]
        .into_iter()
        .enumerate()
    {
        let part = a.qkv.slice_mut(s![.., i * c..(i + 1) * c]);
        linear.forward(&a.normed.view(), Epilogue::Store, part);
    }
    attention(&a.qkv.view(), config.n_head, a.normed.view_mut());
    layer
        .attn_out
        .forward(&a.normed.view(), Epilogue::Add, a.x.view_mut());

    layer.ln2.forward(&a.x.view(), &mut a.normed);
    layer
        .ffn_up
        .forward(&a.normed.view(), Epilogue::QuickGelu, a.ff.view_mut());
    layer
        .ffn_down
        .forward(&a.ff.view(), Epilogue::Add, a.x.view_mut());
}
