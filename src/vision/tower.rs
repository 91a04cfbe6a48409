//! CLIP's vision transformer: patches to features, told in the order in which it happens.
//!
//! Two departures from what a CLIP implementation usually does, both as the model was trained: all
//! layers run (others stop one early), and the last layer's output is not normalised again.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::image::PixelValues;

use super::VisionConfig;
use super::arena::Arena;
use super::config::CHANNELS;
use super::observer::Stages;
use super::weights::{LayerWeights, VisionWeights};
use xc2_kernels::{Epilogue, attention::attention};

/// `pixels: [3, S, S]` to the residual stream, `arena.x: [n_tokens, n_embd]`; row 0 is the class
/// token's.
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

/// Patch embeddings below the class embedding, and the positions added, into `arena.x`.
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
    let mut patches = wide.of(config.n_patches(), config.patch_len());
    cut(config, pixels, &mut patches);
    let embedded = x.slice_mut(s![1.., ..]);
    weights
        .patch_embd
        .forward(&patches.view(), quantized, Epilogue::Store, embedded);
    stages.report(|| "patch_embed".to_owned(), &x.slice(s![1.., ..]));

    let positions = ArrayView2::from_shape(x.dim(), &weights.position_embd);
    *x += &positions.expect("shape checked when it was loaded");
    stages.report(|| "embeddings".to_owned(), &x.view());
}

/// The picture cut into patches: `[n_patches, 3 * patch_size * patch_size]`.
///
/// Patches in reading order; within one, channel by channel, each row by row: the order of the
/// convolution's weights, which this turns into a product.
fn cut(config: &VisionConfig, pixels: &PixelValues, out: &mut ArrayViewMut2<f32>) {
    let (size, p) = (config.image_size, config.patch_size);
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
}

/// `x += attn_out(attention(ln1(x)))`, then `x += ffn_down(quick_gelu(ffn_up(ln2(x))))`.
fn layer_forward(config: &VisionConfig, layer: &LayerWeights, arena: &mut Arena) {
    let (n, c) = (config.n_tokens(), config.n_embd);
    let Arena {
        x,
        normed,
        wide,
        quantized,
    } = arena;

    layer.ln1.forward(&x.view(), normed);
    let mut qkv = wide.of(n, 3 * c);
    let input = normed.view();
    layer
        .attn_qkv
        .forward(&input, quantized, Epilogue::Store, qkv.view_mut());
    attention(
        &qkv.view(),
        config.n_head,
        layer.attention,
        normed.view_mut(),
    );
    let input = normed.view();
    layer
        .attn_out
        .forward(&input, quantized, Epilogue::Add, x.view_mut());

    layer.ln2.forward(&x.view(), normed);
    let mut inner = wide.of(n, config.n_ff);
    let input = normed.view();
    layer
        .ffn_up
        .forward(&input, quantized, Epilogue::QuickGelu, inner.view_mut());
    layer
        .ffn_down
        .forward(&inner.view(), quantized, Epilogue::Add, x.view_mut());
}
