//! What we compute of a graph, as custom nodes.

use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;
use xc2_kernels::attention::CachedAttention;
use xc2_kernels::matmul::{Matmul, MatmulInput, MatmulKernels, WeightMatrix};
use xc2_kernels::{Cpu, SharedOutput};

use super::abi::{ALL_THREADS, CustomParams};
use super::attention::attention;
use super::plan::{Planned, planned};
use super::scratch::{Activations, Place, ScratchAllocator};
use crate::language::llama::threads::Counter;

/// Our part of the graph that is being computed.
pub struct CustomOps {
    kernels: MatmulKernels,
    slots: ScratchAllocator,
    /// Nodes as they were.
    nodes: Vec<Node>,
    /// Nodes that have nothing left to do, with their operations.
    idle: Vec<(*mut sys::ggml_tensor, sys::ggml_op)>,
    /// In the order of `nodes`. They do not move while the graph is computed.
    jobs: Vec<Job>,
}

struct Node {
    node: *mut sys::ggml_tensor,
    op: sys::ggml_op,
    params: [i32; 16],
}

/// A node's work, for all threads.
struct Job {
    cpu: Cpu,
    work: Work,
    /// The next task.
    next: AtomicUsize,
}

enum Work {
    Attention(CachedAttention),
    Product {
        product: Matmul<'static>,
        /// Activations that have to be put in form first, `[n, width]`, and where to.
        inputs: Vec<(*const f32, MatmulInput)>,
        /// The next piece of that, and how many are done.
        filling: AtomicUsize,
        filled: Counter,
    },
}

impl CustomOps {
    pub fn new(kernels: MatmulKernels) -> Self {
        Self {
            kernels,
            slots: ScratchAllocator::default(),
            nodes: Vec::new(),
            idle: Vec::new(),
            jobs: Vec::new(),
        }
    }

    /// Puts custom nodes in place of the graph's products and of its attention.
    ///
    /// # Safety
    /// - The nodes of the graph are valid and their memory is allocated.
    /// - It is computed, and [`Self::restore`] called, before anything else is done with it or `self`.
    pub unsafe fn replace(&mut self, graph: *mut sys::ggml_cgraph) {
        // SAFETY: as the caller says.
        let nodes: Vec<_> = unsafe {
            let n = sys::ggml_graph_n_nodes(graph);
            (0..n).map(|i| sys::ggml_graph_node(graph, i)).collect()
        };
        // SAFETY: as the caller says.
        let products = unsafe { planned(&nodes, self.kernels) };
        let kernels = self.kernels;
        let bytes = |p: &Planned, matrix: &WeightMatrix| matrix.input_bytes(p.rows.len(), kernels);
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
        let places = self.slots.plan(&activations.collect::<Vec<_>>());
        // SAFETY: as the caller says.
        unsafe { self.rest(&products) }
        for (product, place) in products.into_iter().zip(places) {
            // SAFETY: as the caller says; the places were planned for this product.
            unsafe { self.add_product(&product, place) }
        }
        for node in nodes {
            // SAFETY: as the caller says.
            if let Some(attention) = unsafe { attention(&*node, kernels.quantized.cpu) } {
                // SAFETY: as the caller says.
                unsafe { self.push(node, Work::Attention(attention)) }
            }
        }
        for (node, job) in self.nodes.iter().zip(&self.jobs) {
            let params = CustomParams {
                function: run,
                n_tasks: ALL_THREADS,
                user_data: std::ptr::from_ref(job).cast_mut().cast(),
            };
            // SAFETY: a node of the graph.
            unsafe {
                (*node.node).op = sys::GGML_OP_CUSTOM;
                (*node.node).op_params = params.to_words();
            }
        }
    }

    /// # Safety
    /// A product of a graph that is about to be computed, and the places are its activations'.
    unsafe fn add_product(&mut self, planned: &Planned, place: Place) {
        let Planned {
            node, x, matrix, ..
        } = *planned;
        // SAFETY: as above; the node has two sources and a place for its result, by `matrix`.
        let (node, x, small) = unsafe { (&*node, &*x, &*(*node).src[1]) };
        let first = planned.rows.start;
        // SAFETY: as above.
        let rows = unsafe { self.rows(place.input, planned, &matrix) };
        let mut inputs = Vec::new();
        if !place.known {
            inputs.push((row(x, first).cast_const(), rows));
        }
        let out = |t: &sys::ggml_tensor| SharedOutput::new(row(t, first), t.nb[1] / 4);
        let product = match &planned.adapter {
            None => Matmul::new(matrix, rows, out(node), self.kernels),
            Some((added, sum)) => {
                // SAFETY: as above.
                let small_rows = unsafe { self.rows(place.adapter, planned, added) };
                let small_rows = small_rows.scaled(sum.factor);
                inputs.push((row(small, first).cast_const(), small_rows));
                // SAFETY: as above.
                let out = out(unsafe { &*sum.add });
                Matmul::new(matrix, rows, out, self.kernels).plus(*added, small_rows)
            }
        };
        let work = Work::Product {
            product,
            inputs,
            filling: AtomicUsize::new(0),
            filled: Counter::default(),
        };
        // SAFETY: handed on.
        unsafe { self.push(planned.at, work) }
    }

    /// Leaves nodes of adapters' sums in whose place nothing is computed with nothing to do.
    ///
    /// # Safety
    /// MatmulBackend of a graph that is about to be computed.
    unsafe fn rest(&mut self, products: &[Planned]) {
        let busy: HashSet<_> = products.iter().map(|p| p.at).collect();
        let sums = products.iter().filter_map(|p| p.adapter.as_ref());
        let nodes: HashSet<_> = sums
            .flat_map(|(_, sum)| [sum.base, sum.scale, sum.add])
            .collect();
        for node in nodes.difference(&busy) {
            // SAFETY: nodes of this graph.
            unsafe {
                self.idle.push((*node, (**node).op));
                (**node).op = sys::GGML_OP_NONE;
            }
        }
    }

    /// # Safety
    /// The place was planned for the activations of this product that are multiplied by this matrix.
    unsafe fn rows(
        &mut self,
        place: usize,
        planned: &Planned,
        matrix: &WeightMatrix,
    ) -> MatmulInput {
        let memory = self.slots.memory(place);
        // SAFETY: as above; and the memory stays until the graph is computed.
        unsafe { matrix.input(memory, planned.rows.len(), self.kernels) }
    }

    /// # Safety
    /// The node is valid.
    unsafe fn push(&mut self, node: *mut sys::ggml_tensor, work: Work) {
        // SAFETY: as above.
        let (op, params) = unsafe { ((*node).op, (*node).op_params) };
        self.nodes.push(Node { node, op, params });
        self.jobs.push(Job {
            cpu: self.kernels.quantized.cpu,
            work,
            next: AtomicUsize::new(0),
        });
    }

    /// Puts the nodes back as they were.
    ///
    /// # Safety
    /// The graph of [`Self::replace`] still exists and has been computed.
    pub unsafe fn restore(&mut self) {
        for Node { node, op, params } in self.nodes.drain(..) {
            // SAFETY: as the caller says.
            unsafe { ((*node).op, (*node).op_params) = (op, params) }
        }
        for (node, op) in self.idle.drain(..) {
            // SAFETY: as the caller says.
            unsafe { (*node).op = op }
        }
        self.jobs.clear();
    }
}

/// Where row `i` of a tensor of numbers begins.
fn row(tensor: &sys::ggml_tensor, i: usize) -> *mut f32 {
    tensor.data.cast::<f32>().wrapping_add(i * tensor.nb[1] / 4)
}

/// One thread's part of a job: called by ggml on all of its threads, between two of its barriers.
unsafe extern "C" fn run(_: *mut sys::ggml_tensor, _: c_int, nth: c_int, job: *mut c_void) {
    // SAFETY: `replace` put it there, and it stays until the graph is computed.
    let job = unsafe { &*job.cast::<Job>() };
    let nth = nth as usize;
    match &job.work {
        Work::Attention(attention) => job.each(attention.tasks(job.cpu, nth), nth, |task| {
            // SAFETY: the node's operands, which were checked, and its result; each task is taken once.
            unsafe { attention.run(job.cpu, task, nth) }
        }),
        Work::Product {
            product,
            inputs,
            filling,
            filled,
        } => {
            // SAFETY: sources of the product's nodes, which are there and not written while this one is computed (see
            // `plan::halved`); each piece is taken once, and nobody reads before all are done.
            unsafe { fill(inputs, filling, filled, nth) }
            job.each(product.tasks(nth), nth, |task| {
                // SAFETY: the CPU has the kernel; the rows are filled by all threads, here or in an
                // earlier node; only this job writes the result, and each task is taken once.
                unsafe { product.run(task, nth) }
            });
        }
    }
}

impl Job {
    /// Takes tasks until there are none: many neighbours at first, since where one ends what the next reads
    /// has been asked for, then fewer, so that threads end together.
    fn each(&self, tasks: usize, n_threads: usize, run: impl Fn(usize)) {
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

/// Puts what is left of activations in form, and returns when all are: a thread that comes late finds it done
/// by the others and keeps nobody waiting.
///
/// # Safety
/// - The activations are contiguous, of these shapes, and stay as they are.
/// - Pieces are filled here only, with these counters.
unsafe fn fill(
    inputs: &[(*const f32, MatmulInput)],
    next: &AtomicUsize,
    done: &Counter,
    n_threads: usize,
) {
    let all: usize = inputs.iter().map(|(_, rows)| rows.pieces()).sum();
    let at_a_time = all.div_ceil(4 * n_threads).max(1);
    loop {
        let first = next.fetch_add(at_a_time, Ordering::Relaxed);
        if first >= all {
            break;
        }
        let taken = first..all.min(first + at_a_time);
        let mut before = 0;
        for (x, rows) in inputs {
            let (begin, end) = (before, before + rows.pieces());
            before = end;
            // SAFETY: as the caller says.
            let x = unsafe { std::slice::from_raw_parts(*x, rows.n() * rows.width()) };
            for piece in taken.start.max(begin)..taken.end.min(end) {
                // SAFETY: a piece of these rows that no other thread takes.
                unsafe { rows.fill(x, piece - begin) }
            }
        }
        done.add(taken.len() as u32);
    }
    done.wait_until(|done| done as usize == all);
}
