//! Which products of a graph are computed by our kernels, and in place of which nodes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use llama_cpp_sys_2 as sys;
use xc2_kernels::matmul::{MatmulKernels, WeightMatrix};

use super::products::{AdapterSum, adapter_sums, matrix};

/// A product, or some rows of one, that is to be computed in place of a node.
#[derive(Clone)]
pub struct Planned {
    /// In whose place.
    pub at: *mut sys::ggml_tensor,
    /// The product.
    pub node: *mut sys::ggml_tensor,
    pub matrix: WeightMatrix<'static>,
    pub x: *const sys::ggml_tensor,
    pub rows: Range<usize>,
    /// What an adapter adds to it.
    pub adapter: Option<(WeightMatrix<'static>, AdapterSum)>,
}

impl Planned {
    /// Its rows below `middle` in place of one node, and the others in place of another.
    fn halves(self, middle: usize, at: [*mut sys::ggml_tensor; 2]) -> [Self; 2] {
        let rows = [self.rows.start..middle, middle..self.rows.end];
        let half = |i: usize| Self {
            at: at[i],
            rows: rows[i].clone(),
            ..self.clone()
        };
        [half(0), half(1)]
    }
}

/// The products of a graph that our kernels take, in the order in which they are computed: that of a base
/// with an adapter where the adapter's is, whose input must be there.
///
/// # Safety
/// The nodes are valid and their memory is allocated.
pub unsafe fn planned(nodes: &[*mut sys::ggml_tensor], kernels: MatmulKernels) -> Vec<Planned> {
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
        Some(Planned {
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
    unsafe { halved(plan, nodes, kernels) }
}

/// The same with long products of wide inputs that nothing else takes cut in two, where an adapter leaves
/// nodes for the halves. Half the activations, the largest there are, are there at a time then:
///
/// ```text
/// node:   base               first matrix       second matrix      scale            sum
/// was:                       all rows' small    all rows' sum
/// is:     half of the small  half of the sum    the other small    the other sum
/// ```
///
/// What the halves read and write is theirs at those nodes, too. The base frees nothing, since the adapter's first
/// matrix takes the same input, so the place of that one's result is free a node earlier. The sum must not lie over
/// what the other half reads. Positions of the product and its scale, which may lie over the inputs, are never written.
///
/// # Safety
/// The nodes are valid and their memory is allocated.
unsafe fn halved(
    plan: Vec<Planned>,
    nodes: &[*mut sys::ggml_tensor],
    kernels: MatmulKernels,
) -> Vec<Planned> {
    let mut uses = HashMap::new();
    for product in &plan {
        *uses.entry(product.x).or_insert(0_usize) += 1;
    }
    let is_wide = |p: &Planned| p.matrix.n_in() > p.matrix.n_out() && p.rows.len() >= LONG;
    let halves = plan.iter().filter(|p| is_wide(p)).filter_map(|p| {
        let (_, sum) = p.adapter.as_ref()?;
        // SAFETY: products have two sources; the nodes are valid.
        let (small, apart) = unsafe {
            let small = (*p.node).src[1];
            (small, !overlap(sum.add, p.x) && !overlap(sum.add, small))
        };
        let ours = plan
            .iter()
            .any(|other| other.node == small && other.x == p.x);
        (apart && ours && uses[&p.x] == 2).then_some((p.node, small, *sum))
    });
    let mut at = HashMap::new();
    for (node, small, sum) in halves {
        at.insert(small, [sum.base, node]);
        at.insert(node, [small, sum.scale]);
    }
    let cut = |product: Planned| match at.get(&product.node) {
        None => vec![product],
        Some(at) => {
            let middle = product.rows.len() / 2;
            let middle = middle.next_multiple_of(kernels.quantized.rows);
            product.halves(middle, *at).into()
        }
    };
    let mut plan: Vec<_> = plan.into_iter().flat_map(cut).collect();
    if !at.is_empty() {
        let places: HashMap<_, _> = nodes.iter().enumerate().map(|(i, n)| (*n, i)).collect();
        plan.sort_by_key(|product| places[&product.at]);
    }
    plan
}

/// Whether numbers of one tensor lie where those of another do.
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

/// Rows from which a product is worth cutting in two: weights are unpacked for each half, which costs as much as some
/// rows. A picture of 224 px has 256; cut in two, its prefill took up to 7 % longer.
pub(super) const LONG: usize = 384;
