//! Compares our device and ggml's CPU device on low_rank graphs, and both with the definition in f64.

use std::{ffi::CStr, ptr::null_mut};

use llama_cpp_sys_2 as sys;

use super::plan::{MIN_SPLIT_ROWS, plan_products};
use super::*;
use crate::model::quant::{GgmlType, dequantize, quantize_rows};

/// A graph with the memory of its tensors.
struct Graph {
    context: *mut sys::ggml_context,
    memory: sys::ggml_gallocr_t,
    graph: *mut sys::ggml_cgraph,
    result: *mut sys::ggml_tensor,
}

impl Graph {
    /// The graph that `build` builds from inputs of these types, shapes (width first) and bytes.
    fn new(
        inputs: &[(GgmlType, [usize; 2], &[u8])],
        build: impl FnOnce(*mut sys::ggml_context, &[*mut sys::ggml_tensor]) -> *mut sys::ggml_tensor,
    ) -> Self {
        // SAFETY: the calls follow ggml's documentation; sizes are those of the tensors.
        unsafe {
            let context = sys::ggml_init(sys::ggml_init_params {
                mem_size: 1 << 20,
                mem_buffer: null_mut(),
                no_alloc: true,
            });
            let tensors: Vec<_> = inputs
                .iter()
                .map(|(ty, [width, n], _)| {
                    let (width, n) = (*width as i64, *n as i64);
                    let tensor = sys::ggml_new_tensor_2d(context, ty.id(), width, n);
                    sys::ggml_set_input(tensor);
                    sys::ggml_set_output(tensor); // its memory is not reused
                    tensor
                })
                .collect();
            let result = build(context, &tensors);
            sys::ggml_set_output(result);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, result);
            let memory = sys::ggml_gallocr_new(sys::ggml_backend_cpu_buffer_type());
            assert!(sys::ggml_gallocr_alloc_graph(memory, graph));
            for (tensor, (_, _, bytes)) in tensors.iter().zip(inputs) {
                assert_eq!(sys::ggml_nbytes(*tensor), bytes.len());
                sys::ggml_backend_tensor_set(*tensor, bytes.as_ptr().cast(), 0, bytes.len());
            }
            Self {
                context,
                memory,
                graph,
                result,
            }
        }
    }

    fn nodes(&self) -> Vec<*mut sys::ggml_tensor> {
        // SAFETY: the graph is valid and has this many nodes.
        unsafe {
            let n = sys::ggml_graph_n_nodes(self.graph);
            (0..n)
                .map(|i| sys::ggml_graph_node(self.graph, i))
                .collect()
        }
    }

    /// The operations of the nodes.
    fn operations(&self) -> Vec<sys::ggml_op> {
        // SAFETY: the nodes are valid.
        let op = |node: *mut sys::ggml_tensor| unsafe { (*node).op };
        self.nodes().into_iter().map(op).collect()
    }

    /// Computes the graph on the device of this name, with two threads.
    fn compute(&self, device: &CStr) -> Vec<f32> {
        // SAFETY: both devices are registered; the result has this many values.
        unsafe {
            let device = sys::ggml_backend_dev_by_name(device.as_ptr());
            assert!(!device.is_null(), "the device exists");
            let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
            let name = c"ggml_backend_set_n_threads".as_ptr();
            let registry = sys::ggml_backend_dev_backend_reg(device);
            let set = sys::ggml_backend_reg_get_proc_address(registry, name);
            let set: unsafe extern "C" fn(sys::ggml_backend_t, i32) = std::mem::transmute(set);
            set(backend, 2);
            let status = sys::ggml_backend_graph_compute(backend, self.graph);
            assert_eq!(status, sys::GGML_STATUS_SUCCESS);
            let mut out = vec![0.0_f32; sys::ggml_nelements(self.result) as usize];
            sys::ggml_backend_tensor_get(self.result, out.as_mut_ptr().cast(), 0, 4 * out.len());
            sys::ggml_backend_free(backend);
            out
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: both were created in `new`.
        unsafe {
            sys::ggml_gallocr_free(self.memory);
            sys::ggml_free(self.context);
        }
    }
}

/// Values like activations: bell-shaped, with one channel in fifty ten times as large.
fn noise(n: usize, width: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let number = |i: usize| {
        let large = if i % width % 50 == 7 { 10.0 } else { 1.0 };
        large * (random() + random() + random())
    };
    (0..n * width).map(number).collect()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn quantized(ty: GgmlType, numbers: &[f32], width: usize) -> Vec<u8> {
    let rows = numbers.len() / width;
    let mut packed = vec![0; ty.row_bytes(width).unwrap() * rows];
    quantize_rows(ty, numbers, width, &mut packed);
    packed
}

/// `x W^T` in f64, from the weights as they are stored.
fn definition(ty: GgmlType, w: &[u8], x: &[f32], width: usize) -> Vec<f64> {
    let mut numbers = vec![0.0; w.len() / ty.block_bytes() * ty.block_len()];
    dequantize(ty, w, &mut numbers);
    let dot = |x: &[f32], w: &[f32]| {
        x.iter()
            .zip(w)
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .sum()
    };
    x.chunks(width)
        .flat_map(|x| numbers.chunks(width).map(move |w| dot(x, w)))
        .collect()
}

/// The relative root mean square error.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares: f64 = (found.iter().zip(expected))
        .map(|(f, e)| (f64::from(*f) - e).powi(2))
        .sum();
    (squares / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

/// Whether our device is registered on this machine; without it there is nothing to test.
fn is_registered() -> bool {
    super::super::backend();
    register().is_ok()
}

/// The kernels of this CPU, if [`is_registered`].
fn kernels() -> MatmulKernels {
    let quantized = register().expect("it is registered");
    MatmulKernels { quantized }
}

const TYPES: [GgmlType; 8] = [
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q4_0,
    GgmlType::Q5_0,
    GgmlType::Q8_0,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
];

#[test]
fn products_are_as_accurate_as_ggmls() {
    /// Relative to ggml's error, which comes from quantizing activations.
    const ALLOWED: f64 = 1.1;
    if !is_registered() {
        return;
    }
    let mut failures = Vec::new();
    for ty in TYPES {
        for (n, width, n_out) in [
            (1, 2048, 96),
            (5, 512, 70),
            (8, 1024, 64),
            (40, 256, 300),
            (300, 768, 33),
        ] {
            let w = quantized(ty, &noise(n_out, width, 1), width);
            let x = noise(n, width, 2);
            let inputs = [
                (ty, [width, n_out], &w[..]),
                (GgmlType::F32, [width, n], &bytes(&x)),
            ];
            // SAFETY: a product of a matrix and rows of its width.
            let graph = Graph::new(&inputs, |c, t| unsafe { sys::ggml_mul_mat(c, t[0], t[1]) });
            let before = graph.operations();
            let expected = definition(ty, &w, &x, width);
            let (theirs, ours) = (graph.compute(c"CPU"), graph.compute(c"XC2"));
            assert_eq!(graph.operations(), before, "nodes are restored");
            assert_ne!(ours, theirs, "{ty}: our kernel was used");
            let (theirs, ours) = (error(&theirs, &expected), error(&ours, &expected));
            if ours > ALLOWED * theirs {
                failures.push(format!(
                    "{ty} {n} x {width} x {n_out}: {ours:.2e}, ggml {theirs:.2e}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn an_adapters_product_is_scaled_and_added() {
    if !is_registered() {
        return;
    }
    // The longer product is split, unless another node reads an intermediate result.
    use GgmlType::{BF16, F16, Q4_K, Q8_0};
    for types in [
        [Q4_K, Q8_0],
        [F16, F16],
        [BF16, BF16],
        // Of two kinds: base and adapter are computed separately.
        [Q4_K, BF16],
        [F16, Q8_0],
    ] {
        // Enough rows for tiles, on CPUs that have them.
        let [few, many] = [100, MIN_SPLIT_ROWS + 17].map(|n| adapter_product(n, types));
        assert_eq!(
            few[..],
            many[..few.len()],
            "{types:?}: a row does not depend on other rows"
        );
    }
}

/// Our product of `n` rows with a matrix and an adapter of these types, after comparison with ggml's.
fn adapter_product(n: usize, [base, adapter]: [GgmlType; 2]) -> Vec<f32> {
    let (width, rank, n_out) = (512, 256, 96);
    let w = quantized(base, &noise(n_out, width, 1), width);
    let a = quantized(adapter, &noise(rank, width, 2), width);
    let b = quantized(adapter, &noise(n_out, rank, 3), rank);
    let x = bytes(&noise(n, width, 4));
    let inputs = [
        (base, [width, n_out], &w[..]),
        (adapter, [width, rank], &a[..]),
        (adapter, [rank, n_out], &b[..]),
        (GgmlType::F32, [width, n], &x[..]),
    ];
    // Without another reader; with one of the base product; with one of the scaled product.
    let by_reader = [0, 1, 2].map(|reader| {
        let graph = Graph::new(&inputs, |c, t| {
            // SAFETY: the shapes fit; llama.cpp builds an adapter like this.
            unsafe {
                // Not an input, so that ggml may reuse its memory.
                let x = sys::ggml_scale(c, t[3], 1.0);
                let base = sys::ggml_mul_mat(c, t[0], x);
                let low_rank = sys::ggml_mul_mat(c, t[1], x);
                let scaled = sys::ggml_scale(c, sys::ggml_mul_mat(c, t[2], low_rank), 0.01);
                let sum = sys::ggml_add(c, base, scaled);
                match reader {
                    0 => sys::ggml_scale(c, sum, 1.0),
                    1 => sys::ggml_add(c, sum, base),
                    _ => sys::ggml_add(c, sum, scaled),
                }
            }
        });
        if reader == 0 {
            let adds = base == adapter || (base, adapter) == (GgmlType::Q4_K, GgmlType::Q8_0);
            check_plan(&graph, n, adds);
        }
        let before = graph.operations();
        let (theirs, ours) = (graph.compute(c"CPU"), graph.compute(c"XC2"));
        let expected: Vec<f64> = theirs.iter().map(|v| f64::from(*v)).collect();
        let error = error(&ours, &expected);
        assert!(error < 0.01, "{n} rows, {reader}: {error}");
        assert_eq!(graph.operations(), before, "nodes are restored");
        assert_eq!(graph.compute(c"XC2"), ours, "nodes are restored");
        ours
    });
    let [without_reader, ..] = by_reader;
    without_reader
}

/// Checks the plan for a graph of an adapter's product with `n` rows, whose nodes from the second on are those of the
/// sum. Each of the three products is planned separately. If the adapter `adds` to the base, both are planned at the
/// adapter's node; if there are many rows as well, all are split, each half at a node of its own.
fn check_plan(graph: &Graph, n: usize, adds: bool) {
    let nodes = graph.nodes();
    // SAFETY: the nodes are valid and their memory is allocated.
    let plan = unsafe { plan_products(&nodes, kernels()) };
    let [_, base, low_rank, product, scale, ..] = nodes[..] else {
        panic!("{} nodes", nodes.len());
    };
    let middle = (n / 2).next_multiple_of(kernels().quantized.rows);
    let expected = match (adds, n >= MIN_SPLIT_ROWS) {
        (false, _) => [base, low_rank, product].map(|at| (at, at, 0..n)).to_vec(),
        (true, false) => [low_rank, product].map(|at| (at, at, 0..n)).to_vec(),
        (true, true) => vec![
            (base, low_rank, 0..middle),
            (low_rank, product, 0..middle),
            (product, low_rank, middle..n),
            (scale, product, middle..n),
        ],
    };
    let found: Vec<_> = plan
        .iter()
        .map(|p| (p.at, p.node, p.rows.clone()))
        .collect();
    assert_eq!(found, expected);
    let are_sums = plan
        .iter()
        .all(|p| p.adapter.is_some() == (adds && p.node == product));
    assert!(are_sums, "the adapter's product is added to the base's");
}

#[test]
fn ggml_computes_unsupported_types() {
    if !is_registered() {
        return;
    }
    let w = quantized(GgmlType::Q5_1, &noise(48, 64, 1), 64);
    let x = bytes(&noise(9, 64, 2));
    let inputs = [
        (GgmlType::Q5_1, [64, 48], &w[..]),
        (GgmlType::F32, [64, 9], &x[..]),
    ];
    // SAFETY: a product of a matrix and rows of its width.
    let graph = Graph::new(&inputs, |c, t| unsafe { sys::ggml_mul_mat(c, t[0], t[1]) });
    assert_eq!(graph.compute(c"XC2"), graph.compute(c"CPU"));
}

#[test]
fn attention_equals_ggmls() {
    if !is_registered() {
        return;
    }
    attention_equals_ggmls_with(70, 1e-5);
    attention_equals_ggmls_with(1, 1e-3); // ggml accumulates values in f16
}

fn attention_equals_ggmls_with(n: usize, tolerance: f64) {
    let (dim, heads, heads_kv, n_key) = (128, 4, 2, 256);
    let half = |numbers: Vec<f32>| -> Vec<u8> {
        let halves = numbers.iter().map(|v| half::f16::from_f32(*v));
        halves.flat_map(half::f16::to_le_bytes).collect()
    };
    let q = bytes(&noise(n, heads * dim, 1));
    let k = half(noise(n_key, heads_kv * dim, 2));
    let v = half(noise(n_key, heads_kv * dim, 3));
    let hidden = |i: usize| {
        if i % n_key > i / n_key + 100 {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let mask = half((0..n * n_key).map(hidden).collect());
    let inputs = [
        (GgmlType::F32, [heads * dim, n], &q[..]),
        (GgmlType::F16, [heads_kv * dim, n_key], &k[..]),
        (GgmlType::F16, [heads_kv * dim, n_key], &v[..]),
        (GgmlType::F16, [n_key, n], &mask[..]),
    ];
    let graph = Graph::new(&inputs, |c, t| {
        // SAFETY: views and permutations within the tensors; llama.cpp builds attention like this.
        unsafe {
            let split = |t: *mut sys::ggml_tensor, heads: usize, n: usize| {
                let t = sys::ggml_reshape_3d(c, t, dim as i64, heads as i64, n as i64);
                sys::ggml_permute(c, t, 0, 2, 1, 3)
            };
            let (q, k) = (split(t[0], heads, n), split(t[1], heads_kv, n_key));
            let v = split(t[2], heads_kv, n_key);
            sys::ggml_flash_attn_ext(c, q, k, v, t[3], 0.1, 0.0, 0.0)
        }
    });
    let (theirs, ours) = (graph.compute(c"CPU"), graph.compute(c"XC2"));
    let expected: Vec<f64> = theirs.iter().map(|v| f64::from(*v)).collect();
    // Our kernel for a single query needs AVX-512.
    if n > 1 || (cfg!(target_arch = "x86_64") && Cpu::chosen() >= Cpu::Avx512) {
        assert_ne!(ours, theirs, "our kernel was used");
    }
    assert!(error(&ours, &expected) < tolerance);
    assert_eq!(graph.compute(c"XC2"), ours, "nodes are restored");
}
