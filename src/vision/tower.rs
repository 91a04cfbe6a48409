//! CLIP's vision transformer, from patches to features, in the order of execution.
//!
//! It differs from the usual CLIP implementations in two points, as the model was trained: all layers run (others stop
//! one early), and the last layer's output is not normalised.

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::vision::image::PixelValues;

use super::arena::Arena;
use super::linear::{self, Linear};
use super::observer::Stages;
use super::weights::{LayerWeights, VisionWeights};
use crate::model::{CHANNELS, VisionConfig};
use xc2_kernels::attention::{attention, attention_quantized};
use xc2_kernels::matmul::LayerInput;
use xc2_kernels::quantized::{BLOCK, OwnedQuantizedActivations};
use xc2_kernels::{Epilogue, LayerNorm};

/// From `pixels: [3, S, S]` to the residual stream, `arena.x: [n_tokens, n_embd]`; row 0 is the class token.
pub fn forward(
    config: &VisionConfig,
    weights: &VisionWeights,
    pixels: &PixelValues,
    arena: &mut Arena,
    stages: &mut Stages<'_>,
) {
    embed(config, weights, pixels, arena, stages);
    weights.pre_ln.forward_in_place(&mut arena.x);
    stages.report(|| "hidden.0".to_owned(), &arena.x.view());
    for (i, layer) in weights.layers.iter().enumerate() {
        layer_forward(config, layer, arena);
        stages.report(|| format!("hidden.{}", i + 1), &arena.x.view());
    }
}

/// Writes the class embedding and the patch embeddings, with position embeddings added, to `arena.x`.
fn embed(
    config: &VisionConfig,
    weights: &VisionWeights,
    pixels: &PixelValues,
    arena: &mut Arena,
    stages: &mut Stages<'_>,
) {
    let Arena {
        x, wide, quantized, ..
    } = arena;
    x.row_mut(0).assign(&ArrayView1::from(&weights.class_embd));
    let mut patches = wide.view_mut(config.n_patches(), config.patch_len());
    cut_patches(config, pixels, &mut patches);
    let embedded = x.slice_mut(s![1.., ..]);
    let patches = linear::input(patches.view(), &weights.patch_embd, quantized);
    weights
        .patch_embd
        .forward(&patches, Epilogue::Store, embedded);
    stages.report(|| "patch_embed".to_owned(), &x.slice(s![1.., ..]));

    let positions = ArrayView2::from_shape(x.dim(), &weights.position_embd);
    *x += &positions.expect("shape checked when it was loaded");
    stages.report(|| "embeddings".to_owned(), &x.view());
}

/// Cuts the picture into patches: `[n_patches, 3 * patch_size * patch_size]`.
///
/// Patches are in reading order; within a patch, channels are outermost, then rows: the order of the convolution's
/// weights, so that the convolution becomes a matmul.
fn cut_patches(config: &VisionConfig, pixels: &PixelValues, out: &mut ArrayViewMut2<f32>) {
    let (size, p) = (config.image_size, config.patch_size);
    // One task per row of the patch grid.
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
}

/// `x += attn_out(attention(ln1(x)))`, then `x += ffn_down(quick_gelu(ffn_up(ln2(x))))`.
fn layer_forward(config: &VisionConfig, layer: &LayerWeights, arena: &mut Arena) {
    let (n, c) = (config.n_tokens(), config.n_embd);
    let Arena {
        x,
        normed,
        wide,
        quantized,
        inner,
        ..
    } = arena;

    let input = normalize(&layer.ln1, x, &layer.attn_qkv, normed, quantized);
    let mut qkv = wide.view_mut(n, 3 * c);
    layer
        .attn_qkv
        .forward(&input, Epilogue::Store, qkv.view_mut());
    let input = attend(config, layer, &qkv.view(), normed, quantized);
    layer.attn_out.forward(&input, Epilogue::Add, x.view_mut());

    let input = normalize(&layer.ln2, x, &layer.ffn_up, normed, quantized);
    let down = &layer.ffn_down;
    let input = layer
        .ffn_up
        .forward_for(&input, Epilogue::QuickGelu, down, wide, inner);
    down.forward(&input, Epilogue::Add, x.view_mut());
}

/// Layer norm of `x` in the form that `next` takes, in one of the two buffers.
fn normalize<'a>(
    norm: &LayerNorm,
    x: &Array2<f32>,
    next: &Linear,
    normed: &'a mut Array2<f32>,
    quantized: &'a mut OwnedQuantizedActivations,
) -> LayerInput<'a> {
    match next.scheme() {
        Some(scheme) => {
            norm.quantize(&x.view(), scheme, quantized);
            LayerInput::Quantized(quantized)
        }
        None => {
            norm.forward(&x.view(), normed);
            LayerInput::F32(normed.view())
        }
    }
}

/// The layer's attention in the form that `attn_out` takes, in one of the two buffers.
fn attend<'a>(
    config: &VisionConfig,
    layer: &LayerWeights,
    qkv: &ArrayView2<f32>,
    normed: &'a mut Array2<f32>,
    quantized: &'a mut OwnedQuantizedActivations,
) -> LayerInput<'a> {
    let (n_head, precision) = (config.n_head, layer.attention);
    let whole_blocks = config.head_dim().is_multiple_of(BLOCK);
    if let Some(scheme) = layer.attn_out.scheme().filter(|_| whole_blocks) {
        attention_quantized(qkv, n_head, precision, scheme, quantized);
        return LayerInput::Quantized(quantized);
    }
    attention(qkv, n_head, precision, normed.view_mut());
    linear::input(normed.view(), &layer.attn_out, quantized)
}
