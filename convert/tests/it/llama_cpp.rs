//! Decoder and adapter compared with llama.cpp: it quantizes to the same bytes and loads the output of `split`.
#![allow(unsafe_code)] // the one test file that calls llama.cpp

use std::{
    ffi::{CString, c_char, c_void},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::common::{Fixture, Sizes, converted, stderr, xc2_convert};
use llama_cpp_sys_2 as sys;
use tempfile::TempDir;
use xc2_edge::model::{gguf::GgufFile, tensor::TensorSource};

/// llama.cpp's state is global.
static LLAMA: Mutex<()> = Mutex::new(());

/// Locks llama.cpp for this test and silences its log.
fn llama() -> std::sync::MutexGuard<'static, ()> {
    unsafe extern "C" fn ignore(_: sys::ggml_log_level, _: *const c_char, _: *mut c_void) {}
    let guard = LLAMA.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the callback is a function of the right type that touches nothing.
    unsafe { sys::llama_log_set(Some(ignore), std::ptr::null_mut()) };
    guard
}

/// Wide enough for K-quants, and with enough layers that the mixes differ between them.
const WIDE: Sizes = Sizes {
    n_embd: 256,
    n_layer: 16,
    n_head: 4,
    n_head_kv: 2,
    n_ff: 256,
    rank: 32,
    n_vision: 64,
    n_vision_layer: 1,
    grid: 3,
};

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// Converts with `flags`, splits, and returns the path of the decoder.
fn decoder(dir: &Path, flags: &[&str]) -> (TempDir, PathBuf) {
    let (out, model) = converted(dir, flags);
    let output = xc2_convert(["split".as_ref(), model.as_os_str(), out.path().as_os_str()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let path = out.path().join("decoder.gguf");
    (out, path)
}

/// A file quantized by llama.cpp.
fn llama_quantize(source: &Path, file_type: sys::llama_ftype) -> (TempDir, PathBuf) {
    let out = TempDir::new().unwrap();
    let path = out.path().join("quantized.gguf");
    let (from, to) = (c_path(source), c_path(&path));
    // SAFETY: the strings outlive the call, and the parameters are the library's defaults but for
    // two plain numbers.
    let code = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.ftype = file_type;
        params.nthread = 2;
        sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params)
    };
    assert_eq!(code, 0);
    (out, path)
}

fn assert_same_as_llama_quantize(sizes: Sizes, cases: &[(&str, sys::llama_ftype)]) {
    let _guard = llama();
    let fixture = Fixture::new(sizes);
    // All generated weights are exact in F16, so both start from the same numbers.
    let (_a, f16) = decoder(fixture.save(), &["--f16"]);
    for (flag, file_type) in cases {
        let (_b, theirs) = llama_quantize(&f16, *file_type);
        let (_c, ours) = decoder(fixture.path(), &[flag]);
        let (theirs, ours) = (
            GgufFile::open(&theirs).unwrap(),
            GgufFile::open(&ours).unwrap(),
        );
        assert_eq!(theirs.tensors().len(), ours.tensors().len());
        for info in theirs.tensors() {
            let (a, b) = (
                theirs.require(&info.name).unwrap(),
                ours.tensor(&info.name).unwrap(),
            );
            assert_eq!((a.ty, &a.shape), (b.ty, &b.shape), "{flag}: {}", info.name);
            assert!(a.data == b.data, "{flag}: {} differs", info.name);
        }
        let key = "general.file_type";
        assert_eq!(
            theirs.metadata().usize(key).unwrap(),
            ours.metadata().usize(key).unwrap()
        );
    }
}

#[test]
fn every_preset_equals_llama_quantize_byte_for_byte() {
    let cases = [
        ("--q4_k", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
        ("--q5_k", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
        ("--q6_k", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
        ("--q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
        ("--q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
        ("--bf16", sys::LLAMA_FTYPE_MOSTLY_BF16),
        ("--f32", sys::LLAMA_FTYPE_ALL_F32),
    ];
    assert_same_as_llama_quantize(WIDE, &cases);
}

#[test]
fn rows_that_k_quants_do_not_divide_fall_back_like_llama_cpp() {
    let cases = [
        ("--q4_k", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
        ("--q5_k", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
        ("--q6_k", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
        ("--q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
    ];
    let narrow = Sizes {
        n_embd: 96,
        n_head: 2,
        n_head_kv: 1,
        n_ff: 40,
        ..WIDE
    };
    assert_same_as_llama_quantize(narrow, &cases);
}

#[test]
fn plain_llama_cpp_loads_decoder_and_adapter() {
    let _guard = llama();
    let fixture = Fixture::new(WIDE);
    let (dir, decoder) = decoder(fixture.save(), &["--q4_k"]);
    let (decoder, adapter) = (c_path(&decoder), c_path(&dir.path().join("adapter.gguf")));
    // SAFETY: paths outlive their calls; what was loaded is checked before use and freed once,
    // the adapter together with its model.
    unsafe {
        let model =
            sys::llama_model_load_from_file(decoder.as_ptr(), sys::llama_model_default_params());
        assert!(!model.is_null(), "the decoder loads");
        assert_eq!(
            sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model)),
            1280
        );
        let adapter = sys::llama_adapter_lora_init(model, adapter.as_ptr());
        assert!(!adapter.is_null(), "the adapter loads");
        sys::llama_model_free(model);
    }
}
