//! A scratch allocator for converted activations, shared by the products of a graph.

use std::collections::HashMap;

use llama_cpp_sys_2 as sys;
use xc2_kernels::matmul::InputType;

/// Identifies converted activations: their tensor, first row and format.
pub type ActivationKey = (*const sys::ggml_tensor, usize, InputType);

/// The scratch that a product needs.
#[derive(Clone, Copy)]
pub struct Activations {
    /// Key and bytes of its converted input. Products with the same key share it.
    pub input: (ActivationKey, usize),
    /// Bytes of the adapter's converted low-rank rows, which are not shared; zero if there is no adapter.
    pub adapter_bytes: usize,
}

/// Offsets of a product's activations in the scratch memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub input: usize,
    /// Whether an earlier product has converted the input already.
    pub is_converted: bool,
    /// Unused if there is no adapter.
    pub adapter: usize,
}

/// The scratch memory. Activations are live from the first product that reads them to the last; then their memory is
/// reused.
#[derive(Default)]
pub struct ScratchAllocator {
    memory: Vec<Line>,
}

/// The alignment of activations: a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; LINE]);

const LINE: usize = 64;

impl ScratchAllocator {
    /// Placements for the activations of a graph's products, in execution order. The memory does not move before the
    /// next call.
    pub fn plan(&mut self, products: &[Activations]) -> Vec<Placement> {
        let (placements, bytes) = plan_placements(products);
        let lines = bytes.div_ceil(LINE);
        if self.memory.len() < lines {
            self.memory = Vec::new(); // free the old memory first
            self.memory = vec![Line([0; LINE]); lines];
        }
        placements
    }

    /// The memory from an offset on.
    pub fn memory(&mut self, offset: usize) -> *mut u8 {
        self.memory.as_mut_ptr().cast::<u8>().wrapping_add(offset)
    }
}

/// The placements, and the bytes of memory that they need.
fn plan_placements(products: &[Activations]) -> (Vec<Placement>, usize) {
    let mut last_use = HashMap::new();
    for (time, product) in products.iter().enumerate() {
        last_use.insert(product.input.0, time);
    }
    let mut blocks = LiveBlocks::default();
    let mut offsets = HashMap::new();
    let place = |(time, product): (usize, &Activations)| {
        let (key, bytes) = product.input;
        blocks.free_before(time);
        let converted = offsets.get(&key).copied();
        let input = converted.unwrap_or_else(|| blocks.allocate(bytes, last_use[&key]));
        offsets.insert(key, input);
        Placement {
            input,
            is_converted: converted.is_some(),
            adapter: blocks.allocate(product.adapter_bytes, time),
        }
    };
    let placements = products.iter().enumerate().map(place).collect();
    (placements, blocks.size)
}

/// Blocks of the memory that are in use.
#[derive(Default)]
struct LiveBlocks {
    /// Start, end and time of the last use, sorted by start.
    blocks: Vec<(usize, usize, usize)>,
    /// The largest end so far.
    size: usize,
}

impl LiveBlocks {
    fn free_before(&mut self, time: usize) {
        self.blocks.retain(|(_, _, until)| *until >= time);
    }

    /// Allocates `bytes` bytes in the first gap that is large enough, in use up to time `until`. Returns their start.
    fn allocate(&mut self, bytes: usize, until: usize) -> usize {
        if bytes == 0 {
            return 0;
        }
        let (mut start, mut at) = (0, 0);
        while let Some((next, end, _)) = self.blocks.get(at)
            && start + bytes > *next
        {
            (start, at) = (*end, at + 1);
        }
        let end = (start + bytes).next_multiple_of(LINE);
        self.blocks.insert(at, (start, end, until));
        self.size = self.size.max(end);
        start
    }
}

#[cfg(test)]
mod tests {
    use xc2_kernels::quantized::QuantFormat;

    use super::*;

    fn product(tensor: usize, format: QuantFormat, bytes: usize) -> Activations {
        Activations {
            input: (
                (
                    std::ptr::without_provenance(tensor),
                    0,
                    InputType::Int8(format.scheme()),
                ),
                bytes,
            ),
            adapter_bytes: 0,
        }
    }

    #[test]
    fn shared_activations_stay_live_and_then_their_memory_is_reused() {
        use QuantFormat::{Q4K, Q8_0};
        // Two matrices of the base with an adapter each; then a wide input; then that of the next layer.
        let mut products = vec![
            product(1, Q8_0, 100),
            product(1, Q4K, 100),
            product(1, Q8_0, 100),
            product(1, Q4K, 100),
            product(4, Q8_0, 1000),
            product(4, Q4K, 1000),
            product(5, Q4K, 100),
            product(5, Q4K, 100),
        ];
        products[1].adapter_bytes = 10;
        products[5].adapter_bytes = 10;
        let place = |input, is_converted, adapter| Placement {
            input,
            is_converted,
            adapter,
        };
        let expected = [
            place(0, false, 0),
            place(128, false, 256),
            place(0, true, 0),
            place(128, true, 0),
            place(0, false, 0),
            place(0, false, 1024),
            place(0, false, 0),
            place(0, true, 0),
        ];
        let (found, size) = plan_placements(&products);
        assert_eq!(found, expected);
        assert_eq!(size, 1024 + 64);
    }

    #[test]
    fn live_blocks_never_overlap() {
        let mut products = Vec::new();
        for i in 0..60_usize {
            // Some tensors recur much later; sizes vary.
            let tensor = if i % 7 == 0 { i / 21 } else { 100 + i / 3 };
            let mut product = product(tensor, QuantFormat::Q4K, tensor * 37 % 500 + 1);
            product.adapter_bytes = i % 5 * 33;
            products.push(product);
        }
        let (placements, size) = plan_placements(&products);
        let last = |key: ActivationKey| products.iter().rposition(|p| p.input.0 == key).unwrap();
        let mut blocks = Vec::new();
        for (time, (product, place)) in products.iter().zip(&placements).enumerate() {
            let (key, bytes) = product.input;
            if !place.is_converted {
                blocks.push((place.input, bytes, time, last(key)));
            }
            blocks.push((place.adapter, product.adapter_bytes, time, time));
        }
        for (i, a) in blocks.iter().enumerate() {
            assert!(a.0 + a.1 <= size, "{a:?}");
            for b in &blocks[i + 1..] {
                let both_live = a.2 <= b.3 && b.2 <= a.3;
                let overlap = a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
                assert!(!(both_live && overlap), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn the_memory_is_aligned_and_large_enough() {
        let mut scratch = ScratchAllocator::default();
        let placements = scratch.plan(&[product(1, QuantFormat::Q4K, 4097)]);
        assert_eq!(scratch.memory.len(), 4097_usize.div_ceil(LINE));
        let memory = scratch.memory(placements[0].input);
        assert_eq!(memory.addr() % LINE, 0);
        scratch.plan(&[product(1, QuantFormat::Q4K, 1)]);
        assert_eq!(scratch.memory.len(), 4097_usize.div_ceil(LINE), "kept");
    }
}
