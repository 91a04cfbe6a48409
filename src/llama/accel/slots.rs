//! Memory for quantized activations, shared by the products of a graph.

use std::collections::HashMap;

use llama_cpp_sys_2 as sys;
use xc2_kernels::blocks::Shape;

/// Which tensor activations are those of, and for which weights they are quantized.
pub type Key = (*const sys::ggml_tensor, Shape);

/// Activations that are kept for several products at a time: a layer multiplies its input by matrices of
/// the base and of the adapter in turn, which are quantized differently.
const SHARED: usize = 2;
/// Where activations of a single product go. They may be four times as wide, hence not in turn with those.
const SINGLE: usize = SHARED;
/// Where an adapter's small rows go, beside the activations of the product that they are added to.
pub const ADAPTER: usize = SHARED + 1;

/// The memory.
#[derive(Default)]
pub struct Slots {
    memory: [Vec<u64>; SHARED + 2],
}

/// Where a product finds its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub slot: usize,
    /// Whether they are there already, because an earlier product took them too.
    pub known: bool,
}

impl Slots {
    /// Places for the activations of a graph's products, in their order, each with its size in bytes, and
    /// room for the largest rows of an adapter. The memory does not move until the next time.
    pub fn plan(&mut self, products: &[(Key, usize)], adapter_bytes: usize) -> Vec<Place> {
        let places = places(products.iter().map(|(key, _)| *key));
        for (place, (_, bytes)) in places.iter().zip(products) {
            self.reserve(place.slot, *bytes);
        }
        self.reserve(ADAPTER, adapter_bytes);
        places
    }

    fn reserve(&mut self, slot: usize, bytes: usize) {
        let (memory, words) = (&mut self.memory[slot], bytes.div_ceil(8));
        if memory.len() < words {
            *memory = vec![0; words];
        }
    }

    /// The memory of a slot: as much as the largest activations that were planned for it.
    pub fn memory(&mut self, slot: usize) -> *mut u8 {
        self.memory[slot].as_mut_ptr().cast()
    }
}

fn places(products: impl Iterator<Item = Key> + Clone) -> Vec<Place> {
    let mut uses = HashMap::new();
    for key in products.clone() {
        *uses.entry(key).or_insert(0_usize) += 1;
    }
    let mut held = [None; SHARED];
    let mut used = [0; SHARED];
    let place = |(time, key): (usize, Key)| {
        if uses[&key] == 1 {
            return Place {
                slot: SINGLE,
                known: false,
            };
        }
        let known = held.iter().position(|k| *k == Some(key));
        let slot = known.unwrap_or_else(|| usize::from(used[1] < used[0])); // the one not used for longer
        (held[slot], used[slot]) = (Some(key), time + 1);
        Place {
            slot,
            known: known.is_some(),
        }
    };
    products.enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use xc2_kernels::blocks::BlockFormat;

    use super::*;

    #[test]
    fn what_several_products_take_stays_and_what_one_takes_lies_apart() {
        let (base, adapter) = (BlockFormat::Q4K.shape(), BlockFormat::Q8_0.shape());
        let key = |tensor: usize, shape| (std::ptr::without_provenance(tensor), shape);
        // Two matrices of the base with an adapter each; then the next layer's.
        let products = [
            key(1, adapter),
            key(1, base),
            key(1, adapter),
            key(1, base),
            key(4, adapter),
            key(4, base),
            key(5, base),
            key(5, base),
        ];
        let found = places(products.into_iter());
        let place = |slot, known| Place { slot, known };
        let expected = [
            place(0, false),
            place(1, false),
            place(0, true),
            place(1, true),
            place(SINGLE, false),
            place(SINGLE, false),
            place(0, false),
            place(0, true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_slot_has_room_for_the_largest() {
        let shape = BlockFormat::Q4K.shape();
        let mut slots = Slots::default();
        let key = |tensor: usize| (std::ptr::without_provenance(tensor), shape);
        slots.plan(&[(key(1), 100), (key(2), 4097), (key(3), 10)], 8);
        assert_eq!(
            slots.memory.each_ref().map(Vec::len),
            [0, 0, 4097_usize.div_ceil(8), 1]
        );
    }
}
