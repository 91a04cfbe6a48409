//! Plans which products of a graph our kernels compute, and in place of which nodes.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use llama_cpp_sys_2 as sys;
use xc2_kernels::matmul::{MatmulKernels, WeightMatrix};

use super::products::{AdapterSum, adapter_sums, matrix};

/// A product, or some of its rows, that is computed in place of a node.
#[derive(Clone)]
pub struct PlannedProduct {
    /// The node that is replaced.
    pub at: *mut sys::ggml_tensor,
    /// The node of the product.
    pub node: *mut sys::ggml_tensor,
    pub matrix: WeightMatrix<'static>,
    pub x: *const sys::ggml_tensor,
    pub rows: Range<usize>,
    /// The adapter's second matrix, whose product is added.
    pub adapter: Option<(WeightMatrix<'static>, AdapterSum)>,
}

impl PlannedProduct {
    /// Splits the product at row `middle` into two, each in place of one of the nodes `at`.
    fn split(self, middle: usize, at: [*mut sys::ggml_tensor; 2]) -> [Self; 2] {
        let rows = [self.rows.start..middle, middle..self.rows.end];
        let half = |i: usize| Self {
            at: at[i],
            rows: rows[i].clone(),
            ..self.clone()
        };
        [half(0), half(1)]
    }
}

/// The products of a graph that our kernels compute, in execution order. A base's product with an adapter is computed
/// at the adapter's product, because it needs the input of that.
///
/// # Safety
/// The nodes are valid and their memory is allocated.
pub unsafe fn plan_products(
    nodes: &[*mut sys::ggml_tensor],
    kernels: MatmulKernels,
) -> Vec<PlannedProduct> {
    // SAFETY: as above.
    let (mut sums, matrices): (_, HashMap<_, WeightMatrix<'static>>) = unsafe {
        let ours = nodes
            .iter()
            .filter_map(|n| Some((*n, matrix(&**n, kernels)?)));
        (adapter_sums(nodes), ours.collect())
    };
    sums.retain(|product, sum| {
        let of = [product, &sum.base].map(|node| matrices.get(node));
        matches!(of, [Some(adapter), Some(base)] if adapter.adds_to(base, kernels))
    });
    let bases: HashSet<_> = sums.values().map(|sum| sum.base).collect();
    let ours = nodes.iter().filter(|n| !bases.contains(n));
    let plan = ours.filter_map(|node| {
        let (own, sum) = (*matrices.get(node)?, sums.get(node));
        let base = sum.map_or(*node, |sum| sum.base);
        // SAFETY: products have two sources.
        let (x, n) = unsafe { ((*base).src[1], (*base).ne[1] as usize) };
        Some(PlannedProduct {
            at: *node,
            node: *node,
            matrix: matrices[&base],
            x,
            rows: 0..n,
            adapter: sum.map(|sum| (own, *sum)),
        })
    });
    let plan: Vec<_> = plan.collect();
    // SAFETY: as above.
    unsafe { split_long(plan, nodes, kernels) }
}

/// Splits long products of wide inputs in two, if no other product has the same input and an adapter leaves nodes for
/// the halves. Only half of the converted activations, the largest in a graph, is in memory at a time then:
///
/// ```text
/// node:    base              A (first matrix)   B (second matrix)   scale
/// before:                    A x, all rows      sum, all rows
/// after:   A x, first half   sum, first half    A x, second half    sum, second half
/// ```
///
/// The halves' inputs and outputs are valid at these nodes. The base's input is still in use at the next node, A, so
/// the memory of A's result is available one node earlier. The sum must not overlap what the second half reads. The
/// results of B and scale, which may overlap the inputs, are never written.
///
/// # Safety
/// The nodes are valid and their memory is allocated.
unsafe fn split_long(
    plan: Vec<PlannedProduct>,
    nodes: &[*mut sys::ggml_tensor],
    kernels: MatmulKernels,
) -> Vec<PlannedProduct> {
    let mut uses = HashMap::new();
    for product in &plan {
        *uses.entry(product.x).or_insert(0_usize) += 1;
    }
    let is_wide =
        |p: &PlannedProduct| p.matrix.n_in() > p.matrix.n_out() && p.rows.len() >= MIN_SPLIT_ROWS;
    let halves = plan.iter().filter(|p| is_wide(p)).filter_map(|p| {
        let (_, sum) = p.adapter.as_ref()?;
        // SAFETY: products have two sources; the nodes are valid.
        let (low_rank, apart) = unsafe {
            let low_rank = (*p.node).src[1];
            (
                low_rank,
                !overlap(sum.add, p.x) && !overlap(sum.add, low_rank),
            )
        };
        let ours = plan
            .iter()
            .any(|other| other.node == low_rank && other.x == p.x);
        (apart && ours && uses[&p.x] == 2).then_some((p.node, low_rank, *sum))
    });
    let mut at = HashMap::new();
    for (node, low_rank, sum) in halves {
        at.insert(low_rank, [sum.base, node]);
        at.insert(node, [low_rank, sum.scale]);
    }
    let split = |product: PlannedProduct| match at.get(&product.node) {
        None => vec![product],
        Some(at) => {
            let middle = product.rows.len() / 2;
            let middle = middle.next_multiple_of(kernels.quantized.rows);
            product.split(middle, *at).into()
        }
    };
    let mut plan: Vec<_> = plan.into_iter().flat_map(split).collect();
    if !at.is_empty() {
        let places: HashMap<_, _> = nodes.iter().enumerate().map(|(i, n)| (*n, i)).collect();
        plan.sort_by_key(|product| places[&product.at]);
    }
    plan
}

/// Whether the memory of two tensors overlaps.
///
/// # Safety
/// Both are valid.
unsafe fn overlap(a: *const sys::ggml_tensor, b: *const sys::ggml_tensor) -> bool {
    // SAFETY: as above.
    let [a, b] = [a, b].map(|tensor| unsafe {
        let start = (*tensor).data.addr();
        start..start + sys::ggml_nbytes(tensor)
    });
    a.start < b.end && b.start < a.end
}

/// The minimum number of rows for splitting a product. Each half unpacks the weights, which costs as much as some rows.
/// With the 256 rows of a picture of 224 px, a split prefill took up to 7 % longer.
pub(super) const MIN_SPLIT_ROWS: usize = 384;
