//! What we compute of a graph, as custom nodes.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;
use xc2_kernels::attention::CachedAttention;
use xc2_kernels::blocks::{BlockMatrix, Kernel, Product, SharedOut, SharedRows};

use super::abi::{ALL_THREADS, CustomParams};
use super::attention::attention;
use super::products::{AdapterSum, adapter_sums, matrix};
use super::slots::{Place, Slots};

/// Our part of the graph that is being computed.
pub struct Jobs {
    kernel: &'static Kernel,
    slots: Slots,
    /// Nodes as they were.
    nodes: Vec<Node>,
    /// Nodes that have nothing left to do, with their operations.
    idle: Vec<(*mut sys::ggml_tensor, sys::ggml_op)>,
    /// In the order of the nodes. They do not move while the graph is computed.
    jobs: Vec<Job>,
}

struct Node {
    node: *mut sys::ggml_tensor,
    op: sys::ggml_op,
    params: [i32; 16],
}

/// A node's work, for all threads.
struct Job {
    kernel: &'static Kernel,
    work: Work,
    /// The next task.
    next: AtomicUsize,
}

enum Work {
    Attention(CachedAttention),
    Product {
        product: Product<'static>,
        rows: SharedRows,
        /// Activations that have to be quantized first, `[n, width]`.
        x: Option<*const f32>,
        /// Threads that have done their share of that.
        arrived: AtomicUsize,
    },
}

impl Jobs {
    pub fn new(kernel: &'static Kernel) -> Self {
        Self {
            kernel,
            slots: Slots::default(),
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
        let products: Vec<_> = nodes
            .iter()
            // SAFETY: as the caller says.
            .filter_map(|node| unsafe { Some((*node, matrix(&**node, self.kernel)?)) })
            .collect();
        let activations: Vec<_> = products
            .iter()
            .map(|(node, matrix)| {
                // SAFETY: as the caller says; products have two sources.
                let x = unsafe { &*(**node).src[1] };
                let bytes = SharedRows::bytes(x.ne[1] as usize, matrix.n_in(), self.kernel);
                ((std::ptr::from_ref(x), matrix.format().shape()), bytes)
            })
            .collect();
        let places = self.slots.plan(&activations);
        // SAFETY: as the caller says.
        let sums = unsafe { adapter_sums(graph) };
        for ((node, matrix), place) in products.into_iter().zip(places) {
            // SAFETY: as the caller says; the slot was planned for this node.
            unsafe { self.add_product(node, matrix, place, sums.get(&node)) }
        }
        for node in nodes {
            // SAFETY: as the caller says.
            if let Some(attention) = unsafe { attention(&*node, self.kernel.cpu) } {
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
    /// A node of a graph that is about to be computed; the matrix is its first source, and the slot has
    /// room for its activations.
    unsafe fn add_product(
        &mut self,
        node: *mut sys::ggml_tensor,
        matrix: BlockMatrix<'static>,
        place: Place,
        sum: Option<&AdapterSum>,
    ) {
        // SAFETY: the node has two sources and a place for its result, by `matrix`.
        let (x, out) = unsafe { (&*(*node).src[1], &*node) };
        // SAFETY: the slot has room for them, and its memory stays until the graph is computed.
        let rows = unsafe {
            SharedRows::new(
                self.slots.memory(place.slot),
                x.ne[1] as usize,
                matrix.n_in(),
                matrix.format().shape(),
                self.kernel,
            )
        };
        let mut to = SharedOut::new(out.data.cast(), out.nb[1] / 4);
        if let Some(sum) = sum {
            // SAFETY: nodes of this graph.
            unsafe {
                to =
                    SharedOut::new((*sum.add).data.cast(), (*sum.add).nb[1] / 4).adding(sum.factor);
                for node in [sum.scale, sum.add] {
                    self.idle.push((node, (*node).op));
                    (*node).op = sys::GGML_OP_NONE;
                }
            }
        }
        let work = Work::Product {
            product: Product::new(matrix, rows, to, self.kernel),
            rows,
            x: (!place.known).then_some(x.data.cast::<f32>().cast_const()),
            arrived: AtomicUsize::new(0),
        };
        // SAFETY: handed on.
        unsafe { self.push(node, work) }
    }

    /// # Safety
    /// The node is valid.
    unsafe fn push(&mut self, node: *mut sys::ggml_tensor, work: Work) {
        // SAFETY: as above.
        let (op, params) = unsafe { ((*node).op, (*node).op_params) };
        self.nodes.push(Node { node, op, params });
        self.jobs.push(Job {
            kernel: self.kernel,
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

/// One thread's part of a job: called by ggml on all of its threads, between two of its barriers.
unsafe extern "C" fn run(_: *mut sys::ggml_tensor, ith: c_int, nth: c_int, job: *mut c_void) {
    // SAFETY: `replace` put it there, and it stays until the graph is computed.
    let job = unsafe { &*job.cast::<Job>() };
    let (ith, nth) = (ith as usize, nth as usize);
    match &job.work {
        Work::Attention(attention) => job.each(attention.tasks(job.kernel.cpu, nth), |task| {
            // SAFETY: the node's operands, which were checked, and its result; each task is taken once.
            unsafe { attention.run(job.kernel.cpu, task, nth) }
        }),
        Work::Product {
            product,
            rows,
            x,
            arrived,
        } => {
            if let Some(x) = *x {
                // SAFETY: the node's second source: contiguous, of this shape, not written while it is used.
                let x = unsafe { std::slice::from_raw_parts(x, rows.n() * rows.width()) };
                let pieces = rows.pieces();
                for piece in ith * pieces / nth..(ith + 1) * pieces / nth {
                    // SAFETY: pieces of threads do not overlap, and nobody reads before all have arrived.
                    unsafe { rows.quantize(x, piece) }
                }
                wait_for_all(arrived, nth);
            }
            job.each(product.tasks(), |task| {
                // SAFETY: the CPU has the kernel; the rows are quantized by all threads, here or in an
                // earlier node; only this job writes the result, and each task is taken once.
                unsafe { product.run(task) }
            });
        }
    }
}

impl Job {
    /// Takes tasks until there are none.
    fn each(&self, tasks: usize, run: impl Fn(usize)) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            run(task);
        }
    }
}

/// As ggml's barrier does; but where threads outnumber cores the others must get their turn.
fn wait_for_all(arrived: &AtomicUsize, n: usize) {
    arrived.fetch_add(1, Ordering::AcqRel);
    let mut turns = 0_u32;
    while arrived.load(Ordering::Acquire) < n {
        turns += 1;
        if turns.is_multiple_of(1024) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
