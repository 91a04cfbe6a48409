//! Converts a graph's fused attention to our kernel's operands.

use half::f16;
use llama_cpp_sys_2 as sys;
use xc2_kernels::{
    Cpu,
    attention::{CachedAttention, HeadRows},
};

/// The attention of a node, if our kernel supports it and is faster on `cpu`: queries in f32, keys and values in f16,
/// one mask for all heads, no further options.
///
/// # Safety
/// The node is valid, and its memory and that of its sources is allocated.
pub unsafe fn attention(node: &sys::ggml_tensor, cpu: Cpu) -> Option<CachedAttention> {
    if node.op != sys::GGML_OP_FLASH_ATTN_EXT || node.src[..4].iter().any(|s| s.is_null()) {
        return None;
    }
    // SAFETY: sources that are not null are valid.
    let (q, k, v, mask) = unsafe { (&*node.src[0], &*node.src[1], &*node.src[2], &*node.src[3]) };
    let types = [q, k, v, mask, node].map(|t| t.type_);
    let [f32, f16] = [sys::GGML_TYPE_F32, sys::GGML_TYPE_F16];
    let [head_dim, n_query, n_head, _] = q.ne;
    let [_, n_key, n_head_kv, _] = k.ne;
    // Scale, maximum ALiBi bias, logit softcap.
    let [scale, max_bias, softcap] =
        [0, 1, 2].map(|i| f32::from_bits(node.op_params[i].cast_unsigned()));
    let is_supported = types == [f32, f16, f16, f16, f32]
        && k.ne == [head_dim, n_key, n_head_kv, 1]
        && v.ne == k.ne
        && q.ne[3] == 1
        && mask.ne[0] >= n_key
        && mask.ne[1] >= n_query
        && mask.ne[2..] == [1, 1]
        && node.ne == [head_dim, n_head, n_query, 1]
        && node.src[4].is_null()
        && (max_bias, softcap) == (0.0, 0.0)
        // SAFETY: the node is valid.
        && unsafe { sys::ggml_is_contiguous(node) };
    if !is_supported {
        return None;
    }
    let attention = CachedAttention {
        query: rows(q)?,
        key: rows(k)?,
        value: rows(v)?,
        mask: HeadRows::<f16> {
            head: 0,
            ..rows(mask)?
        },
        out: node.data.cast(),
        n_head: n_head as usize,
        n_head_kv: n_head_kv as usize,
        head_dim: head_dim as usize,
        n_query: n_query as usize,
        n_key: n_key as usize,
        scale,
    };
    attention.is_supported(cpu).then_some(attention)
}

/// The rows of a tensor, if each is contiguous and strides are multiples of the element size.
fn rows<T>(tensor: &sys::ggml_tensor) -> Option<HeadRows<T>> {
    let [element, row, head, _] = tensor.nb;
    let is_whole = |bytes: usize| bytes.is_multiple_of(size_of::<T>());
    let data = tensor.data.cast::<T>().cast_const();
    let is_supported =
        element == size_of::<T>() && is_whole(row) && is_whole(head) && data.is_aligned();
    (is_supported && !data.is_null()).then(|| HeadRows {
        data,
        row: row / size_of::<T>(),
        head: head / size_of::<T>(),
    })
}
