//! What would make a run fit that takes too much memory: computed, not guessed.

use super::MemoryNeed;
use crate::{
    language::llama::KvType,
    model::{container::Container, gguf::TensorInfo},
};

/// What of a run can be changed to make it smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Positions of the context, of each sequence.
    pub n_ctx: usize,
    /// The fewest positions that would do.
    pub n_ctx_least: usize,
    /// Sequences computed side by side, each with a context of its own.
    pub n_seq: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Whether llama.cpp rearranges weights for its kernels.
    pub repack: bool,
}

/// A way to make a run fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What to type: options of `xc2-edge`, or of `xc2-convert` where the model has to be smaller.
    pub options: String,
    /// Bytes that the run needs then.
    pub need: u64,
}

/// Contexts are a multiple of this: llama.cpp rounds up to it.
const STEP: usize = 256;

/// A change and the option that makes it.
type Change = (String, Shape);

/// The changes of `shape` of which each is enough, or one with several where none is; nothing where
/// not even all of them are. `need` tells what a shape needs.
pub fn remedies(shape: Shape, available: u64, need: impl Fn(&Shape) -> u64) -> Vec<Remedy> {
    let fits = |shape: &Shape| need(shape) <= available;
    let remedy = |(options, shape): Change| Remedy {
        options,
        need: need(&shape),
    };
    let single: Vec<Change> = [
        without_repack(shape),
        smaller_kv(shape),
        fewer_sequences(shape, fits),
        shorter_context(shape, fits),
    ]
    .into_iter()
    .flatten()
    .filter(|(_, shape)| fits(shape))
    .collect();
    if !single.is_empty() {
        return single.into_iter().map(remedy).collect();
    }
    together(shape, fits).map(remedy).into_iter().collect()
}

fn without_repack(shape: Shape) -> Option<Change> {
    let less = Shape {
        repack: false,
        ..shape
    };
    shape.repack.then(|| ("--repack off".to_owned(), less))
}

fn smaller_kv(shape: Shape) -> Option<Change> {
    let less = Shape {
        kv_type: KvType::Q8_0,
        ..shape
    };
    (shape.kv_type != KvType::Q8_0).then(|| ("--kv-type q8_0".to_owned(), less))
}

/// The most sequences that fit, or one if not even that does.
fn fewer_sequences(shape: Shape, fits: impl Fn(&Shape) -> bool) -> Option<Change> {
    let with = |n_seq| Shape { n_seq, ..shape };
    let most = (1..shape.n_seq).rev().find(|n| fits(&with(*n)));
    let n_seq = most.or((shape.n_seq > 1).then_some(1))?;
    Some((format!("--parallel {n_seq}"), with(n_seq)))
}

/// The longest context that fits, or the shortest that would do if not even that does.
fn shorter_context(shape: Shape, fits: impl Fn(&Shape) -> bool) -> Option<Change> {
    let with = |n_ctx| Shape { n_ctx, ..shape };
    let least = shape.n_ctx_least.next_multiple_of(STEP);
    let shorter = (least..shape.n_ctx).step_by(STEP);
    let longest = shorter.clone().rev().find(|n| fits(&with(*n)));
    let n_ctx = longest.or(shorter.clone().next())?;
    Some((format!("--ctx-size {n_ctx}"), with(n_ctx)))
}

/// Changes one upon another until it fits, the least harmful first; those that turn out not to be
/// needed are left out.
fn together(shape: Shape, fits: impl Fn(&Shape) -> bool) -> Option<Change> {
    let step = |kind: usize, shape: Shape| match kind {
        0 => without_repack(shape),
        1 => smaller_kv(shape),
        2 => fewer_sequences(shape, &fits),
        _ => shorter_context(shape, &fits),
    };
    let apply = |kinds: &[usize]| {
        let mut at = (Vec::new(), shape);
        for kind in kinds {
            if let Some((option, next)) = step(*kind, at.1) {
                at.0.push(option);
                at.1 = next;
            }
        }
        at
    };
    let mut kinds: Vec<usize> = (0..4).collect();
    let n = (1..=4).find(|n| fits(&apply(&kinds[..*n]).1))?;
    kinds.truncate(n);
    for kind in 0..n {
        let fewer: Vec<usize> = kinds.iter().copied().filter(|k| *k != kind).collect();
        if fits(&apply(&fewer).1) {
            kinds = fewer;
        }
    }
    let (options, shape) = apply(&kinds);
    Some((options.join(" "), shape))
}

/// Presets of `xc2-convert` with the bits that a weight of the decoder takes in each, the widest first;
/// they mix types, hence a little more than the type of the name.
const PRESETS: [(&str, f64); 4] = [
    ("--q8_0", 8.5),
    ("--q6_k", 6.6),
    ("--q5_k", 5.7),
    ("--q4_k", 4.9),
];
/// Likewise of tower, projector and Partial-LoRA in all of these presets.
const SIDE_BITS: f64 = 8.5;

/// The widest preset in which the model would fit, if it is smaller than the model is now. `need` is
/// what the run needs with the model as it is.
pub fn smaller_model(container: &Container, need: &MemoryNeed, available: u64) -> Option<Remedy> {
    let tensors = container.file().tensors();
    let in_bits = |bits: f64, which: &dyn Fn(&TensorInfo) -> bool| {
        let matrices = tensors.iter().filter(|t| t.shape.len() > 1 && which(t));
        let weights: usize = matrices.map(|t| t.shape.iter().product::<usize>()).sum();
        (weights as f64 * bits / 8.0) as u64
    };
    let is_vision = |t: &TensorInfo| t.name.starts_with("v.") || t.name.starts_with("mm.");
    let is_plora = |t: &TensorInfo| t.name.contains(".lora_");
    let shrunk = PRESETS.iter().map(|(preset, bits)| {
        let decoder = in_bits(*bits, &|t| !is_vision(t) && !is_plora(t));
        let smaller = MemoryNeed {
            decoder: need.decoder.min(decoder),
            repacked: need.repacked.min(decoder),
            vision: need.vision.min(in_bits(SIDE_BITS, &is_vision)),
            plora: need.plora.min(in_bits(SIDE_BITS, &is_plora)),
            ..*need
        };
        Remedy {
            options: (*preset).to_owned(),
            need: smaller.total(),
        }
    });
    let mut fitting = shrunk.filter(|r| r.need <= available && r.need < need.total());
    fitting.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        n_ctx: 4096,
        n_ctx_least: 700,
        n_seq: 4,
        kv_type: KvType::F16,
        repack: true,
    };

    /// 1000 for weights, 500 for a second copy, 10 a step of context in f16.
    fn need(shape: &Shape) -> u64 {
        let kv = shape
            .kv_type
            .bytes(10 * 32 * shape.n_seq * shape.n_ctx / STEP) as u64
            / 64;
        1000 + if shape.repack { 500 } else { 0 } + kv
    }

    fn options(shape: Shape, available: u64) -> Vec<String> {
        let remedies = remedies(shape, available, need);
        for remedy in &remedies {
            assert!(remedy.need <= available, "{remedy:?} of {available}");
        }
        remedies.into_iter().map(|r| r.options).collect()
    }

    #[test]
    fn each_change_that_is_enough_is_told() {
        assert_eq!(need(&SHAPE), 2140);
        assert_eq!(
            options(SHAPE, 2000),
            [
                "--repack off",
                "--kv-type q8_0",
                "--parallel 3",
                "--ctx-size 3072"
            ]
        );
        // Neither half of the cache is enough here, the context is.
        assert_eq!(
            options(SHAPE, 1700),
            ["--repack off", "--parallel 1", "--ctx-size 1280"]
        );
    }

    #[test]
    fn where_one_is_not_enough_the_fewest_that_are_stand_together() {
        assert_eq!(options(SHAPE, 1400), ["--repack off --kv-type q8_0"]);
        assert_eq!(
            options(SHAPE, 1090),
            ["--repack off --kv-type q8_0 --parallel 1"]
        );
        assert_eq!(
            options(SHAPE, 1020),
            ["--repack off --kv-type q8_0 --parallel 1 --ctx-size 768"]
        );
    }

    #[test]
    fn nothing_is_told_where_nothing_helps() {
        assert!(options(SHAPE, 1010).is_empty());
        assert!(options(SHAPE, 0).is_empty());
    }

    #[test]
    fn a_context_is_never_shorter_than_what_is_needed() {
        let alone = Shape {
            n_ctx_least: 4000,
            n_seq: 1,
            kv_type: KvType::Q8_0,
            repack: false,
            ..SHAPE
        };
        assert!(options(alone, need(&alone) - 1).is_empty());
        let alone = Shape {
            n_ctx_least: 3000,
            ..alone
        };
        assert_eq!(options(alone, need(&alone) - 1), ["--ctx-size 3840"]);
    }

    #[test]
    fn changes_that_are_not_needed_are_left_out() {
        // The second copy is nothing, so taking it away does not help.
        let need = |shape: &Shape| 1000 + (shape.n_ctx * shape.n_seq) as u64 / 8;
        let shape = Shape {
            kv_type: KvType::Q8_0,
            ..SHAPE
        };
        let found = remedies(shape, 1000 + 4096 / 8 - 1, need);
        let options: Vec<_> = found.iter().map(|r| &r.options[..]).collect();
        assert_eq!(options, ["--ctx-size 768"]);
        let found = remedies(shape, 1000 + 900 / 8, need);
        let options: Vec<_> = found.iter().map(|r| &r.options[..]).collect();
        assert_eq!(options, ["--parallel 1 --ctx-size 768"]);
    }
}
