//! Converts a graph's matrix products to our kernels' operands.

use std::collections::HashMap;

use llama_cpp_sys_2 as sys;
use xc2_kernels::{
    float::{Float16Slice, FloatMatrix},
    matmul::{MatmulKernels, WeightMatrix},
    quantized::{QuantFormat, QuantizedMatrix},
};

/// The nodes with which llama.cpp applies an adapter: `add = base + scale(product)`, where `base = W x` and
/// `product = B (A x)`.
#[derive(Clone, Copy)]
pub struct AdapterSum {
    pub base: *mut sys::ggml_tensor,
    pub scale: *mut sys::ggml_tensor,
    pub add: *mut sys::ggml_tensor,
    pub factor: f32,
}

/// The adapter sums in a graph, by their product: five consecutive nodes whose results no other node reads, so base and
/// product can be computed together, in place of the last one.
///
/// # Safety
/// The nodes are valid.
pub unsafe fn adapter_sums(
    nodes: &[*mut sys::ggml_tensor],
) -> HashMap<*mut sys::ggml_tensor, AdapterSum> {
    // SAFETY: as above; sources are null or valid.
    unsafe {
        let sums = nodes.windows(5).filter_map(|nodes| {
            let &[base, low_rank, product, scale, add] = nodes else {
                return None;
            };
            let (b, l, p, s, a) = (&*base, &*low_rank, &*product, &*scale, &*add);
            // `op_params[1]` is a bias, which must be zero.
            let factor = f32::from_bits(s.op_params[0].cast_unsigned());
            let is_supported = [b, l, p].iter().all(|t| t.op == sys::GGML_OP_MUL_MAT)
                && (l.src[1], p.src[1]) == (b.src[1], low_rank)
                && (s.op, s.src[0]) == (sys::GGML_OP_SCALE, product)
                && s.op_params[1] == 0
                && (a.op, a.src[0], a.src[1]) == (sys::GGML_OP_ADD, base, scale)
                && [b, s, a].iter().all(|t| t.ne == p.ne)
                && [b, p, s, a].iter().all(|t| t.type_ == sys::GGML_TYPE_F32)
                && sys::ggml_is_contiguous(a);
            let sum = AdapterSum {
                base,
                scale,
                add,
                factor,
            };
            is_supported.then_some((product, sum))
        });
        let mut sums: HashMap<_, _> = sums.collect();
        if sums.is_empty() {
            return sums;
        }
        // Another reader of base, product or scale needs their results.
        let mut uses = HashMap::new();
        for node in nodes {
            let sources = (**node).src.into_iter().chain([(**node).view_src]);
            for source in sources.filter(|s| !s.is_null()) {
                *uses.entry(source).or_insert(0) += 1;
            }
        }
        // One use is the sum's own; a node computed in place counts as a view of its source as well.
        let is_unshared = |t: *mut sys::ggml_tensor| {
            uses.get(&t).is_none_or(|n| *n <= 1)
                && (*t).flags & sys::GGML_TENSOR_FLAG_OUTPUT as i32 == 0
        };
        sums.retain(|product, sum| {
            is_unshared(*product) && is_unshared(sum.scale) && is_unshared(sum.base)
        });
        sums
    }
}

/// The weights of a node, if it is a product for which our kernels are faster: a contiguous matrix in host memory,
/// times contiguous rows in f32.
///
/// # Safety
/// The node is valid, and its memory and that of its sources is allocated.
pub unsafe fn matrix(
    node: &sys::ggml_tensor,
    kernels: MatmulKernels,
) -> Option<WeightMatrix<'static>> {
    if node.op != sys::GGML_OP_MUL_MAT || node.type_ != sys::GGML_TYPE_F32 {
        return None;
    }
    // SAFETY: a product has two sources.
    let (w, x) = unsafe { (&*node.src[0], &*node.src[1]) };
    let is_2d = |t: &sys::ggml_tensor| t.ne[2] == 1 && t.ne[3] == 1 && !t.data.is_null();
    // SAFETY: the tensors are valid; their buffers are null or valid.
    let is_plain = unsafe {
        let buffer = if w.view_src.is_null() {
            w.buffer
        } else {
            (*w.view_src).buffer
        };
        !buffer.is_null()
            && sys::ggml_backend_buffer_is_host(buffer)
            && sys::ggml_is_contiguous(w)
            && sys::ggml_is_contiguous(x)
    };
    let is_supported = is_plain
        && is_2d(w)
        && is_2d(x)
        && is_2d(node)
        && x.type_ == sys::GGML_TYPE_F32
        && x.ne[0] == w.ne[0]
        && node.ne[0] == w.ne[1]
        && node.ne[1] == x.ne[1]
        && node.nb[0] == size_of::<f32>()
        && node.nb[1].is_multiple_of(size_of::<f32>());
    let n = usize::try_from(x.ne[1]).ok()?;
    if !is_supported {
        return None;
    }
    // SAFETY: the weights are contiguous and outlive the graph.
    let matrix = unsafe { weights(w) }?;
    kernels.are_faster_than_ggml(&matrix, n).then_some(matrix)
}

/// The values of a matrix, if there are kernels for its type.
///
/// # Safety
/// The matrix is contiguous, allocated, and outlives the result.
unsafe fn weights(w: &sys::ggml_tensor) -> Option<WeightMatrix<'static>> {
    let n_in = usize::try_from(w.ne[0]).ok()?;
    let n_out = usize::try_from(w.ne[1]).ok()?;
    let format = match w.type_ {
        sys::GGML_TYPE_F16 | sys::GGML_TYPE_BF16 => {
            // SAFETY: as above.
            let weights = unsafe { float16(w, n_in.checked_mul(n_out)?) }?;
            return FloatMatrix::new(weights, n_out, n_in).map(WeightMatrix::Float);
        }
        sys::GGML_TYPE_Q4_0 => QuantFormat::Q4_0,
        sys::GGML_TYPE_Q5_0 => QuantFormat::Q5_0,
        sys::GGML_TYPE_Q8_0 => QuantFormat::Q8_0,
        sys::GGML_TYPE_Q4_K => QuantFormat::Q4K,
        sys::GGML_TYPE_Q5_K => QuantFormat::Q5K,
        sys::GGML_TYPE_Q6_K => QuantFormat::Q6K,
        _ => return None,
    };
    let bytes = format.row_bytes(n_in)?.checked_mul(n_out)?;
    // SAFETY: contiguous rows of blocks take this many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(w.data.cast::<u8>(), bytes) };
    QuantizedMatrix::new(format, bytes, n_out, n_in).map(WeightMatrix::Quantized)
}

/// The `n` values of a 16-bit tensor, if they are aligned.
///
/// # Safety
/// The tensor has `n` values, and they outlive the result.
unsafe fn float16(w: &sys::ggml_tensor, n: usize) -> Option<Float16Slice<'static>> {
    if !w.data.cast::<u16>().is_aligned() {
        return None;
    }
    // SAFETY: the values are aligned, and any bits are valid; the caller guarantees the rest.
    unsafe {
        Some(if w.type_ == sys::GGML_TYPE_F16 {
            Float16Slice::F16(std::slice::from_raw_parts(w.data.cast(), n))
        } else {
            Float16Slice::Bf16(std::slice::from_raw_parts(w.data.cast(), n))
        })
    }
}
