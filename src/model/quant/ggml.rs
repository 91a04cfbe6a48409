//! Safe wrappers of ggml's conversion routines.
//!
//! Lengths are checked here, so that the functions are safe for any input: the C code reads and writes exactly the
//! counted elements.
#![allow(unsafe_code)]

use std::sync::Once;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use llama_cpp_sys_2 as sys;

use super::GgmlType;

/// Quantizes `src`, whole rows of `n_per_row` values, into `dst`.
///
/// Rows are independent: parts of a tensor may be converted in any order and on any thread, with the same result.
///
/// # Panics
/// If `src` is not a whole number of rows, `dst` does not have the size of the result, the type cannot hold rows of
/// that length, or it is [`GgmlType::I8`].
pub fn quantize_rows(ty: GgmlType, src: &[f32], n_per_row: usize, dst: &mut [u8]) {
    let row_bytes = ty
        .row_bytes(n_per_row)
        .expect("row length is a multiple of the block");
    let n_rows = src.len() / n_per_row;
    assert_eq!(src.len(), n_rows * n_per_row, "whole rows");
    assert_eq!(dst.len(), n_rows * row_bytes, "destination size");
    assert_ne!(ty, GgmlType::I8, "bytes are not quantized");
    if ty == GgmlType::F32 {
        for (out, value) in dst.chunks_exact_mut(4).zip(src) {
            out.copy_from_slice(&value.to_le_bytes());
        }
        return;
    }
    // The tables that some types need are built once; concurrent first calls wait.
    static INIT: [Once; 32] = [const { Once::new() }; 32];
    INIT[ty.id() as usize].call_once(|| {
        // SAFETY: no arguments beyond a valid type id; it may be called for every type.
        unsafe { sys::ggml_quantize_init(ty.id()) }
    });
    // SAFETY: `src` holds n_rows * n_per_row floats and `dst` n_rows * row_bytes bytes (asserted
    // above); no importance matrix is passed, which none of our types requires.
    let written = unsafe {
        sys::ggml_quantize_chunk(
            ty.id(),
            src.as_ptr(),
            dst.as_mut_ptr().cast(),
            0,
            n_rows as i64,
            n_per_row as i64,
            std::ptr::null(),
        )
    };
    assert_eq!(
        written,
        dst.len(),
        "ggml wrote a different size than it declares for {ty}"
    );
}

/// Converts `src` to `f32`; `dst` must have exactly as many elements as `src` encodes.
///
/// # Panics
/// If the lengths do not agree, or for [`GgmlType::I8`].
pub fn dequantize(ty: GgmlType, src: &[u8], dst: &mut [f32]) {
    let bytes = ty
        .row_bytes(dst.len())
        .expect("length is a multiple of the block");
    assert_eq!(src.len(), bytes, "source size");
    if ty == GgmlType::F32 {
        for (out, value) in dst.iter_mut().zip(src.chunks_exact(4)) {
            *out = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        }
        return;
    }
    if ty == GgmlType::F16 {
        return f16_to_f32(src, dst);
    }
    // SAFETY: a static table that is never freed; the id is one of ggml's.
    let traits = unsafe { &*sys::ggml_get_type_traits(ty.id()) };
    let to_float = traits
        .to_float
        .expect("every float and quantized type has a conversion");
    // SAFETY: `src` holds the blocks of `dst.len()` elements (asserted above). ggml reads blocks
    // through pointers to structures of 16-bit alignment, which the assertion below guarantees.
    unsafe {
        assert!(
            src.as_ptr().addr().is_multiple_of(2),
            "blocks are aligned to 2 bytes"
        );
        to_float(src.as_ptr().cast(), dst.as_mut_ptr(), dst.len() as i64);
    }
}

/// Converts f16 to f32 with the CPU's instructions where available. ggml is compiled for the baseline of the
/// architecture and looks each value up in a table.
fn f16_to_f32(src: &[u8], dst: &mut [f32]) {
    if cfg!(target_endian = "little")
        && let Ok(bits) = bytemuck::try_cast_slice::<u8, u16>(src)
    {
        return bits.reinterpret_cast::<f16>().convert_to_f32_slice(dst);
    }
    // Unaligned, or a big-endian CPU.
    const CHUNK_LEN: usize = 256;
    let mut values = [f16::ZERO; CHUNK_LEN];
    for (src, dst) in src.chunks(2 * CHUNK_LEN).zip(dst.chunks_mut(CHUNK_LEN)) {
        for (value, bytes) in values.iter_mut().zip(src.as_chunks::<2>().0) {
            *value = f16::from_le_bytes(*bytes);
        }
        values[..dst.len()].convert_to_f32_slice(dst);
    }
}

/// Elements and bytes per block, as the linked ggml defines them.
#[cfg(test)]
pub(super) fn geometry(ty: GgmlType) -> (usize, usize) {
    // SAFETY: as in `dequantize`.
    let traits = unsafe { &*sys::ggml_get_type_traits(ty.id()) };
    (traits.blck_size as usize, traits.type_size)
}
