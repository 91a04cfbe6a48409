//! The products of a graph, as custom nodes.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;
use xc2_kernels::blocks::{BlockFormat, BlockMatrix, Kernel, Product, SharedOut, SharedRows};

use super::abi::{ALL_THREADS, CustomParams};
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

/// A product, for all threads.
struct Job {
    product: Product<'static>,
    rows: SharedRows,
    /// Activations that have to be quantized first, `[n, width]`.
    x: Option<*const f32>,
    /// Threads that have done their share of that.
    arrived: AtomicUsize,
    /// The next task.
    next: AtomicUsize,
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

    /// Puts custom nodes in place of the graph's products.
    ///
    /// # Safety
    /// - The nodes of the graph are valid and their memory is allocated.
    /// - It is computed, and [`Self::restore`] called, before anything else is done with it or `self`.
    pub unsafe fn replace(&mut self, graph: *mut sys::ggml_cgraph) {
        // SAFETY: as the caller says.
        let products: Vec<_> = unsafe {
            let n = sys::ggml_graph_n_nodes(graph);
            let nodes = (0..n).map(|i| sys::ggml_graph_node(graph, i));
            nodes
                .filter_map(|node| Some((node, matrix(&*node, self.kernel)?)))
                .collect()
        };
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
            unsafe { self.add(node, matrix, place, sums.get(&node)) }
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
    unsafe fn add(
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
        self.nodes.push(Node {
            node,
            op: out.op,
            params: out.op_params,
        });
        self.jobs.push(Job {
            product: Product::new(matrix, rows, to, self.kernel),
            rows,
            x: (!place.known).then_some(x.data.cast::<f32>().cast_const()),
            arrived: AtomicUsize::new(0),
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

/// What follows the second product of an adapter: `add = base + factor * product`.
struct AdapterSum {
    scale: *mut sys::ggml_tensor,
    add: *mut sys::ggml_tensor,
    factor: f32,
}

/// The products of a graph whose result is only scaled and added to another, in that one's place, by the
/// two nodes that follow: so a product can do it itself, and two passes over memory are saved.
///
/// # Safety
/// The nodes of the graph are valid.
unsafe fn adapter_sums(graph: *mut sys::ggml_cgraph) -> HashMap<*mut sys::ggml_tensor, AdapterSum> {
    // SAFETY: as above; sources are null or valid.
    unsafe {
        let n = sys::ggml_graph_n_nodes(graph);
        let nodes: Vec<_> = (0..n).map(|i| sys::ggml_graph_node(graph, i)).collect();
        let sums = nodes.windows(3).filter_map(|nodes| {
            let &[product, scale, add] = nodes else {
                return None;
            };
            let (p, s, a) = (&*product, &*scale, &*add);
            // A scale may have a bias as well, which is zero here.
            let factor = f32::from_bits(s.op_params[0].cast_unsigned());
            let fits = p.op == sys::GGML_OP_MUL_MAT
                && (s.op, s.src[0]) == (sys::GGML_OP_SCALE, product)
                && s.op_params[1] == 0
                && (a.op, a.src[1]) == (sys::GGML_OP_ADD, scale)
                && a.src[0] != product
                && a.ne == p.ne
                && (*a.src[0]).ne == p.ne
                && (*a.src[0]).data == a.data
                && (*a.src[0]).type_ == sys::GGML_TYPE_F32
                && [p, s, a].iter().all(|t| t.type_ == sys::GGML_TYPE_F32)
                && sys::ggml_is_contiguous(a)
                && sys::ggml_is_contiguous(a.src[0]);
            fits.then_some((product, AdapterSum { scale, add, factor }))
        });
        let mut sums: HashMap<_, _> = sums.collect();
        if sums.is_empty() {
            return sums;
        }
        // Whatever else reads the product, the scaled one or what they are added to needs them as they are.
        let mut uses = HashMap::new();
        for node in &nodes {
            let sources = (**node).src.into_iter().chain([(**node).view_src]);
            for source in sources.filter(|s| !s.is_null()) {
                *uses.entry(source).or_insert(0) += 1;
            }
        }
        // A node that was computed in place of its source is counted as its view, too.
        let alone = |t: *mut sys::ggml_tensor| {
            uses.get(&t).is_none_or(|n| *n <= 1)
                && (*t).flags & sys::GGML_TENSOR_FLAG_OUTPUT as i32 == 0
        };
        sums.retain(|product, sum| alone(*product) && alone(sum.scale) && alone((*sum.add).src[0]));
        sums
    }
}

/// The weights of a node that is a product which our kernels take: a matrix in blocks, in memory of this
/// machine and in ggml's own layout, times rows of f32.
///
/// # Safety
/// The node is valid, and its memory and that of its sources allocated.
unsafe fn matrix(node: &sys::ggml_tensor, kernel: &Kernel) -> Option<BlockMatrix<'static>> {
    if node.op != sys::GGML_OP_MUL_MAT || node.type_ != sys::GGML_TYPE_F32 {
        return None;
    }
    // SAFETY: a product has two sources.
    let (w, x) = unsafe { (&*node.src[0], &*node.src[1]) };
    let format = match w.type_ {
        sys::GGML_TYPE_Q4_0 => BlockFormat::Q4_0,
        sys::GGML_TYPE_Q8_0 => BlockFormat::Q8_0,
        sys::GGML_TYPE_Q4_K => BlockFormat::Q4K,
        sys::GGML_TYPE_Q5_K => BlockFormat::Q5K,
        sys::GGML_TYPE_Q6_K => BlockFormat::Q6K,
        _ => return None,
    };
    let flat = |t: &sys::ggml_tensor| t.ne[2] == 1 && t.ne[3] == 1 && !t.data.is_null();
    // SAFETY: the tensors are valid; a buffer, where there is one, is.
    let plain = unsafe {
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
    let fits = plain
        && flat(w)
        && flat(x)
        && flat(node)
        && x.type_ == sys::GGML_TYPE_F32
        && x.ne[0] == w.ne[0]
        && node.ne[0] == w.ne[1]
        && node.ne[1] == x.ne[1]
        && node.nb[0] == size_of::<f32>()
        && node.nb[1].is_multiple_of(size_of::<f32>());
    let n = usize::try_from(x.ne[1]).ok()?;
    if !fits || n < kernel.few.max(1) {
        return None;
    }
    let (n_in, n_out) = (w.ne[0] as usize, w.ne[1] as usize);
    // SAFETY: contiguous rows of blocks, hence so many bytes; weights outlive the graph that uses them.
    let bytes = unsafe {
        std::slice::from_raw_parts(
            w.data.cast::<u8>(),
            format.row_bytes(n_in)?.checked_mul(n_out)?,
        )
    };
    BlockMatrix::new(format, bytes, n_out, n_in)
}

/// One thread's part of a job: called by ggml on all of its threads, between two of its barriers.
unsafe extern "C" fn run(_: *mut sys::ggml_tensor, ith: c_int, nth: c_int, job: *mut c_void) {
    // SAFETY: `replace` put it there, and it stays until the graph is computed.
    let job = unsafe { &*job.cast::<Job>() };
    let (ith, nth) = (ith as usize, nth as usize);
    if let Some(x) = job.x {
        let rows = &job.rows;
        let pieces = rows.pieces();
        // SAFETY: the node's second source: contiguous, of this shape, and not written while it is used.
        let x = unsafe { std::slice::from_raw_parts(x, rows.n() * rows.width()) };
        for piece in ith * pieces / nth..(ith + 1) * pieces / nth {
            // SAFETY: the pieces of threads do not overlap, and nobody reads before all have arrived.
            unsafe { rows.quantize(x, piece) }
        }
        job.arrived.fetch_add(1, Ordering::AcqRel);
        let mut turns = 0_u32;
        while job.arrived.load(Ordering::Acquire) < nth {
            // As ggml's barrier does; but where threads outnumber cores the others must get their turn.
            turns += 1;
            if turns.is_multiple_of(1024) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
    loop {
        let task = job.next.fetch_add(1, Ordering::Relaxed);
        if task >= job.product.tasks() {
            break;
        }
        // SAFETY: the kernel is one that this CPU has; the rows are quantized by all threads, here or in
        // an earlier node; the node's memory is written by this job only, and each task is taken once.
        unsafe { job.product.run(task) }
    }
}
