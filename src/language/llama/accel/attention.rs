//! A graph's fused attention, as our kernel takes it.

use half::f16;
use llama_cpp_sys_2 as sys;
use xc2_kernels::Cpu;
use xc2_kernels::attention::{CachedAttention, HeadRows};

/// The operation of a node, if it is attention of queries of f32 to keys and values in f16, under a mask
/// that is the same for all heads, with nothing else to it, and ours is faster with the instructions of `cpu`.
///
/// # Safety
/// The node is valid, and its memory and that of its sources allocated.
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
    // Scale, bias of heads by their number, cap of scores.
    let [scale, max_bias, cap] =
        [0, 1, 2].map(|i| f32::from_bits(node.op_params[i].cast_unsigned()));
    let fits = types == [f32, f16, f16, f16, f32]
        && k.ne == [head_dim, n_key, n_head_kv, 1]
        && v.ne == k.ne
        && q.ne[3] == 1
        && mask.ne[0] >= n_key
        && mask.ne[1] >= n_query
        && mask.ne[2..] == [1, 1]
        && node.ne == [head_dim, n_head, n_query, 1]
        && node.src[4].is_null()
        && (max_bias, cap) == (0.0, 0.0)
        // SAFETY: the node is valid.
        && unsafe { sys::ggml_is_contiguous(node) };
    if !fits {
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

/// Where the rows of a tensor lie, if each is contiguous and begins at a whole number.
fn rows<T>(tensor: &sys::ggml_tensor) -> Option<HeadRows<T>> {
    let [number, row, head, _] = tensor.nb;
    let whole = |bytes: usize| bytes.is_multiple_of(size_of::<T>());
    let data = tensor.data.cast::<T>().cast_const();
    let fits = number == size_of::<T>() && whole(row) && whole(head) && data.is_aligned();
    (fits && !data.is_null()).then(|| HeadRows {
        data,
        row: row / size_of::<T>(),
        head: head / size_of::<T>(),
    })
}
