//! Memory for activations in the form in which they are multiplied, shared by the products of a graph.

use std::collections::HashMap;

use llama_cpp_sys_2 as sys;
use xc2_kernels::matmul::InputType;

/// Which tensor activations are those of, from which row on, and in which form.
pub type Key = (*const sys::ggml_tensor, usize, InputType);

/// The activations of a product, and their sizes in bytes.
#[derive(Clone, Copy)]
pub struct Activations {
    /// Of its input: products with the same share them.
    pub input: (Key, usize),
    /// Of an adapter's small rows, which nobody else takes; zero for none.
    pub adapter_bytes: usize,
}

/// Where a product finds its activations: bytes from the begin of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub input: usize,
    /// Whether the input's are there already, because an earlier product took them too.
    pub known: bool,
    /// Of no meaning where there is none.
    pub adapter: usize,
}

/// The memory. Activations have their place from the first product that takes them to the last; the next
/// ones lie where they were.
#[derive(Default)]
pub struct ScratchAllocator {
    memory: Vec<Line>,
}

/// Where activations may begin.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; LINE]);

const LINE: usize = 64;

impl ScratchAllocator {
    /// Positions for the activations of a graph's products, in their order. The memory does not move until the
    /// next time.
    pub fn plan(&mut self, products: &[Activations]) -> Vec<Place> {
        let (places, bytes) = places(products);
        let lines = bytes.div_ceil(LINE);
        if self.memory.len() < lines {
            self.memory = Vec::new(); // before the new one is made
            self.memory = vec![Line([0; LINE]); lines];
        }
        places
    }

    /// The memory from a place on.
    pub fn memory(&mut self, place: usize) -> *mut u8 {
        self.memory.as_mut_ptr().cast::<u8>().wrapping_add(place)
    }
}

/// The places, and how many bytes they reach to.
fn places(products: &[Activations]) -> (Vec<Place>, usize) {
    let mut last_use = HashMap::new();
    for (time, product) in products.iter().enumerate() {
        last_use.insert(product.input.0, time);
    }
    let mut room = FreeSpace::default();
    let mut held = HashMap::new();
    let place = |(time, product): (usize, &Activations)| {
        let (key, bytes) = product.input;
        room.free_before(time);
        let known = held.get(&key).copied();
        let input = known.unwrap_or_else(|| room.take(bytes, last_use[&key]));
        held.insert(key, input);
        Place {
            input,
            known: known.is_some(),
            adapter: room.take(product.adapter_bytes, time),
        }
    };
    let places = products.iter().enumerate().map(place).collect();
    (places, room.reached)
}

/// Blocks of the memory that are in use.
#[derive(Default)]
struct FreeSpace {
    /// Begin, end, and the time up to which; by their begin.
    blocks: Vec<(usize, usize, usize)>,
    /// The farthest end so far.
    reached: usize,
}

impl FreeSpace {
    fn free_before(&mut self, time: usize) {
        self.blocks.retain(|(_, _, until)| *until >= time);
    }

    /// The first gap of so many bytes.
    fn take(&mut self, bytes: usize, until: usize) -> usize {
        if bytes == 0 {
            return 0;
        }
        let (mut begin, mut at) = (0, 0);
        while let Some((next, end, _)) = self.blocks.get(at)
            && begin + bytes > *next
        {
            (begin, at) = (*end, at + 1);
        }
        let end = (begin + bytes).next_multiple_of(LINE);
        self.blocks.insert(at, (begin, end, until));
        self.reached = self.reached.max(end);
        begin
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
    fn what_several_products_take_stays_and_others_lie_where_it_was() {
        use QuantFormat::{Q4K, Q8_0};
        // Two matrices of the base with an adapter each; then a wide input; then the next layer's.
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
        let place = |input, known, adapter| Place {
            input,
            known,
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
        let (found, reached) = places(&products);
        assert_eq!(found, expected);
        assert_eq!(reached, 1024 + 64);
    }

    #[test]
    fn no_two_that_are_in_use_lie_over_each_other() {
        let mut products = Vec::new();
        for i in 0..60_usize {
            // Some tensors come again much later, sizes vary.
            let tensor = if i % 7 == 0 { i / 21 } else { 100 + i / 3 };
            let mut product = product(tensor, QuantFormat::Q4K, tensor * 37 % 500 + 1);
            product.adapter_bytes = i % 5 * 33;
            products.push(product);
        }
        let (places, reached) = places(&products);
        let last = |key: Key| products.iter().rposition(|p| p.input.0 == key).unwrap();
        let mut blocks = Vec::new();
        for (time, (product, place)) in products.iter().zip(&places).enumerate() {
            let (key, bytes) = product.input;
            if !place.known {
                blocks.push((place.input, bytes, time, last(key)));
            }
            blocks.push((place.adapter, product.adapter_bytes, time, time));
        }
        for (i, a) in blocks.iter().enumerate() {
            assert!(a.0 + a.1 <= reached, "{a:?}");
            for b in &blocks[i + 1..] {
                let at_once = a.2 <= b.3 && b.2 <= a.3;
                let over = a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
                assert!(!(at_once && over), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn the_memory_reaches_as_far_as_the_places() {
        let mut slots = ScratchAllocator::default();
        let places = slots.plan(&[product(1, QuantFormat::Q4K, 4097)]);
        assert_eq!(slots.memory.len(), 4097_usize.div_ceil(LINE));
        let memory = slots.memory(places[0].input);
        assert_eq!(memory.addr() % LINE, 0);
        slots.plan(&[product(1, QuantFormat::Q4K, 1)]);
        assert_eq!(slots.memory.len(), 4097_usize.div_ceil(LINE), "kept");
    }
}
