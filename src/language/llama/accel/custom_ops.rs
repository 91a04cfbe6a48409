//! Custom nodes: the operations of a graph that our kernels compute.

use std::{
    collections::HashSet,
    ffi::{c_int, c_void},
    sync::atomic::{AtomicUsize, Ordering},
};

use llama_cpp_sys_2 as sys;
use xc2_kernels::{
    Cpu, SharedOutput,
    attention::CachedAttention,
    matmul::{Matmul, MatmulInput, MatmulKernels, WeightMatrix},
};

use super::{
    abi::{ALL_THREADS, CustomParams},
    attention::attention,
    plan::{PlannedProduct, plan_products},
    scratch::{Activations, Placement, ScratchAllocator},
};
use crate::language::llama::threads::Counter;

/// The custom nodes of the graph that is being computed.
pub struct CustomOps {
    kernels: MatmulKernels,
    scratch: ScratchAllocator,
    /// The replaced nodes, with their original operations.
    replaced: Vec<ReplacedNode>,
    /// Nodes that are skipped, with their original operations.
    skipped: Vec<(*mut sys::ggml_tensor, sys::ggml_op)>,
    /// The operations, in the order of `replaced`. They do not move while the graph is computed.
    ops: Vec<CustomOp>,
}

struct ReplacedNode {
    node: *mut sys::ggml_tensor,
    op: sys::ggml_op,
    params: [i32; 16],
}

/// The operation of a node, which all threads compute together.
struct CustomOp {
    kind: OpKind,
    /// The next task.
    next: AtomicUsize,
}

enum OpKind {
    Attention(CachedAttention),
    Matmul {
        matmul: Matmul<'static>,
        /// Activations to convert first, `[n, width]`, and the destination.
        inputs: Vec<(*const f32, MatmulInput)>,
        /// The next piece to convert.
        next_piece: AtomicUsize,
        /// The number of converted pieces.
        n_converted: Counter,
    },
}

impl CustomOps {
    pub fn new(kernels: MatmulKernels) -> Self {
        Self {
            kernels,
            scratch: ScratchAllocator::default(),
            replaced: Vec::new(),
            skipped: Vec::new(),
            ops: Vec::new(),
        }
    }

    /// Replaces the graph's products and attention with custom nodes.
    ///
    /// # Safety
    /// - The nodes of the graph are valid and their memory is allocated.
    /// - The graph is computed and [`Self::restore`] is called before anything else is done with the graph or `self`.
    pub unsafe fn replace(&mut self, graph: *mut sys::ggml_cgraph) {
        // SAFETY: the caller guarantees it.
        let nodes: Vec<_> = unsafe {
            let n = sys::ggml_graph_n_nodes(graph);
            (0..n).map(|i| sys::ggml_graph_node(graph, i)).collect()
        };
        // SAFETY: the caller guarantees it.
        let products = unsafe { plan_products(&nodes, self.kernels) };
        let kernels = self.kernels;
        let bytes =
            |p: &PlannedProduct, matrix: &WeightMatrix| matrix.input_bytes(p.rows.len(), kernels);
        let activations = products.iter().map(|p| Activations {
            input: (
                (
                    p.x,
                    p.rows.start,
                    p.matrix.input_type(p.rows.len(), kernels),
                ),
                bytes(p, &p.matrix),
            ),
            adapter_bytes: (p.adapter.as_ref()).map_or(0, |(added, _)| bytes(p, added)),
        });
        let placements = self.scratch.plan(&activations.collect::<Vec<_>>());
        // SAFETY: the caller guarantees it.
        unsafe { self.skip_unused(&products) }
        for (product, placement) in products.into_iter().zip(placements) {
            // SAFETY: the caller guarantees the graph; the placement was planned for this product.
            unsafe { self.add_product(&product, placement) }
        }
        for node in nodes {
            // SAFETY: the caller guarantees it.
            if let Some(attention) = unsafe { attention(&*node, Cpu::chosen()) } {
                // SAFETY: the caller guarantees it.
                unsafe { self.push(node, OpKind::Attention(attention)) }
            }
        }
        for (node, op) in self.replaced.iter().zip(&self.ops) {
            let params = CustomParams {
                function: run,
                n_tasks: ALL_THREADS,
                user_data: std::ptr::from_ref(op).cast_mut().cast(),
            };
            // SAFETY: it is a node of the graph.
            unsafe {
                (*node.node).op = sys::GGML_OP_CUSTOM;
                (*node.node).op_params = params.to_words();
            }
        }
    }

    /// # Safety
    /// The product belongs to a graph that is about to be computed, and the placement to the product.
    unsafe fn add_product(&mut self, planned: &PlannedProduct, placement: Placement) {
        let PlannedProduct {
            node, x, matrix, ..
        } = *planned;
        // SAFETY: as above; `products::matrix` checked that the node has two sources and memory for its result.
        let (node, x, low_rank) = unsafe { (&*node, &*x, &*(*node).src[1]) };
        let first = planned.rows.start;
        // SAFETY: as above.
        let rows = unsafe { self.rows(placement.input, planned, &matrix) };
        let mut inputs = Vec::new();
        if !placement.is_converted {
            inputs.push((row(x, first).cast_const(), rows));
        }
        let out = |t: &sys::ggml_tensor| SharedOutput::new(row(t, first), t.nb[1] / 4);
        let matmul = match &planned.adapter {
            None => Matmul::new(matrix, rows, out(node), self.kernels),
            Some((added, sum)) => {
                // SAFETY: as above.
                let low_rank_rows = unsafe { self.rows(placement.adapter, planned, added) };
                let low_rank_rows = low_rank_rows.scaled(sum.factor);
                inputs.push((row(low_rank, first).cast_const(), low_rank_rows));
                // SAFETY: as above.
                let out = out(unsafe { &*sum.add });
                Matmul::new(matrix, rows, out, self.kernels).plus(*added, low_rank_rows)
            }
        };
        let kind = OpKind::Matmul {
            matmul,
            inputs,
            next_piece: AtomicUsize::new(0),
            n_converted: Counter::default(),
        };
        // SAFETY: as above.
        unsafe { self.push(planned.at, kind) }
    }

    /// Makes ggml skip the nodes of adapter sums that are neither needed nor replaced.
    ///
    /// # Safety
    /// The products belong to a graph that is about to be computed.
    unsafe fn skip_unused(&mut self, products: &[PlannedProduct]) {
        let replaced: HashSet<_> = products.iter().map(|p| p.at).collect();
        let sums = products.iter().filter_map(|p| p.adapter.as_ref());
        let nodes: HashSet<_> = sums
            .flat_map(|(_, sum)| [sum.base, sum.scale, sum.add])
            .collect();
        for node in nodes.difference(&replaced) {
            // SAFETY: they are nodes of this graph.
            unsafe {
                self.skipped.push((*node, (**node).op));
                (**node).op = sys::GGML_OP_NONE;
            }
        }
    }

    /// # Safety
    /// The offset was planned for this product's activations that are multiplied by this matrix.
    unsafe fn rows(
        &mut self,
        offset: usize,
        planned: &PlannedProduct,
        matrix: &WeightMatrix,
    ) -> MatmulInput {
        let memory = self.scratch.memory(offset);
        // SAFETY: as above; the memory does not move until the graph is computed.
        unsafe { matrix.input(memory, planned.rows.len(), self.kernels) }
    }

    /// # Safety
    /// The node is valid.
    unsafe fn push(&mut self, node: *mut sys::ggml_tensor, kind: OpKind) {
        // SAFETY: as above.
        let (op, params) = unsafe { ((*node).op, (*node).op_params) };
        self.replaced.push(ReplacedNode { node, op, params });
        self.ops.push(CustomOp {
            kind,
            next: AtomicUsize::new(0),
        });
    }

    /// Restores the nodes.
    ///
    /// # Safety
    /// The graph passed to [`Self::replace`] still exists and has been computed.
    pub unsafe fn restore(&mut self) {
        for ReplacedNode { node, op, params } in self.replaced.drain(..) {
            // SAFETY: the caller guarantees it.
            unsafe { ((*node).op, (*node).op_params) = (op, params) }
        }
        for (node, op) in self.skipped.drain(..) {
            // SAFETY: the caller guarantees it.
            unsafe { (*node).op = op }
        }
        self.ops.clear();
    }
}

/// The start of row `i` of a tensor in f32.
fn row(tensor: &sys::ggml_tensor, i: usize) -> *mut f32 {
    tensor.data.cast::<f32>().wrapping_add(i * tensor.nb[1] / 4)
}

/// One thread's part of an operation. ggml calls it on all of its threads, between two barriers.
unsafe extern "C" fn run(_: *mut sys::ggml_tensor, _: c_int, nth: c_int, op: *mut c_void) {
    // SAFETY: `replace` stored the pointer, which is valid until the graph is computed.
    let op = unsafe { &*op.cast::<CustomOp>() };
    let nth = nth as usize;
    match &op.kind {
        OpKind::Attention(attention) => {
            op.for_each_task(attention.tasks(Cpu::chosen(), nth), nth, |task| {
                // SAFETY: the node's operands were checked; each task is taken once.
                unsafe { attention.run(Cpu::chosen(), task, nth) }
            });
        }
        OpKind::Matmul {
            matmul,
            inputs,
            next_piece,
            n_converted,
        } => {
            // SAFETY: the inputs are sources of the product's nodes, which are computed and not written while this
            // one is computed (see `plan::split_long`); each piece is taken once, and all are converted before any is
            // read.
            unsafe { convert_inputs(inputs, next_piece, n_converted, nth) }
            op.for_each_task(matmul.tasks(nth), nth, |task| {
                // SAFETY: the CPU has the kernel; all rows are converted, here or in an earlier node; only this
                // operation writes the result, and each task is taken once.
                unsafe { matmul.run(task, nth) }
            });
        }
    }
}

impl CustomOp {
    /// Takes tasks until there are none left: first many neighbouring ones, because each prefetches what the next one
    /// reads, then fewer, so that all threads finish at the same time.
    fn for_each_task(&self, tasks: usize, n_threads: usize, run: impl Fn(usize)) {
        let mut first = self.next.load(Ordering::Relaxed);
        while first < tasks {
            let end = first + ((tasks - first) / (2 * n_threads)).max(1);
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match (self.next).compare_exchange_weak(first, end, success, failure) {
                Ok(_) => {
                    (first..end).for_each(&run);
                    first = self.next.load(Ordering::Relaxed);
                }
                Err(now) => first = now,
            }
        }
    }
}

/// Converts the remaining activations, and returns when all are converted. No thread waits for one that arrives late.
///
/// # Safety
/// - The activations are contiguous, have these shapes, and do not change.
/// - Pieces are converted only here, with these counters.
unsafe fn convert_inputs(
    inputs: &[(*const f32, MatmulInput)],
    next: &AtomicUsize,
    done: &Counter,
    n_threads: usize,
) {
    let all: usize = inputs.iter().map(|(_, rows)| rows.pieces()).sum();
    let n_at_a_time = all.div_ceil(4 * n_threads).max(1);
    loop {
        let first = next.fetch_add(n_at_a_time, Ordering::Relaxed);
        if first >= all {
            break;
        }
        let taken = first..all.min(first + n_at_a_time);
        let mut before = 0;
        for (x, rows) in inputs {
            let (begin, end) = (before, before + rows.pieces());
            before = end;
            // SAFETY: the caller guarantees it.
            let x = unsafe { std::slice::from_raw_parts(*x, rows.n() * rows.width()) };
            for piece in taken.start.max(begin)..taken.end.min(end) {
                // SAFETY: the piece belongs to these rows, and no other thread takes it.
                unsafe { rows.fill(x, piece - begin) }
            }
        }
        done.add(taken.len() as u32);
    }
    done.wait_until(|done| done as usize == all);
}
