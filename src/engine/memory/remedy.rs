//! Remedies for a run that needs too much memory: changes of its options that make it fit.

use super::MemoryNeed;
use crate::{
    language::llama::KvType,
    model::{container::Container, gguf::TensorInfo},
};

/// The parameters of a run that can be changed to reduce its memory need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunShape {
    /// Positions of each sequence's context.
    pub n_ctx: usize,
    /// The minimum of `n_ctx` for this run.
    pub n_ctx_min: usize,
    /// Parallel sequences, each with a context of its own.
    pub n_seq: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Whether llama.cpp repacks weights for its kernels.
    pub repack: bool,
}

/// A way to make a run fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// Command-line options of `xc2-edge`, or of `xc2-convert` for a smaller model.
    pub options: String,
    /// Bytes that the run needs with these options.
    pub need: u64,
}

/// Context sizes are multiples of this: llama.cpp rounds up to it.
const STEP: usize = 256;

/// Options and the run that they give.
type Change = (String, RunShape);

/// The single changes of `shape` that are sufficient. If none is, one combination of changes; if not even that is,
/// nothing. `need` gives the bytes that a shape needs.
pub fn remedies(shape: RunShape, available: u64, need: impl Fn(&RunShape) -> u64) -> Vec<Remedy> {
    let fits = |shape: &RunShape| need(shape) <= available;
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
    combined(shape, fits).map(remedy).into_iter().collect()
}

fn without_repack(shape: RunShape) -> Option<Change> {
    let less = RunShape {
        repack: false,
        ..shape
    };
    shape.repack.then(|| ("--repack off".to_owned(), less))
}

fn smaller_kv(shape: RunShape) -> Option<Change> {
    let less = RunShape {
        kv_type: KvType::Q8_0,
        ..shape
    };
    (shape.kv_type != KvType::Q8_0).then(|| ("--kv-type q8_0".to_owned(), less))
}

/// The largest number of sequences that fits, or one if none does.
fn fewer_sequences(shape: RunShape, fits: impl Fn(&RunShape) -> bool) -> Option<Change> {
    let with = |n_seq| RunShape { n_seq, ..shape };
    let fitting = (1..shape.n_seq).rev().find(|n| fits(&with(*n)));
    let n_seq = fitting.or((shape.n_seq > 1).then_some(1))?;
    Some((format!("--parallel {n_seq}"), with(n_seq)))
}

/// The longest context that fits, or the shortest permitted one if none does.
fn shorter_context(shape: RunShape, fits: impl Fn(&RunShape) -> bool) -> Option<Change> {
    let with = |n_ctx| RunShape { n_ctx, ..shape };
    let min = shape.n_ctx_min.next_multiple_of(STEP);
    let shorter = (min..shape.n_ctx).step_by(STEP);
    let longest = shorter.clone().rev().find(|n| fits(&with(*n)));
    let n_ctx = longest.or(shorter.clone().next())?;
    Some((format!("--ctx-size {n_ctx}"), with(n_ctx)))
}

/// Adds changes until the run fits, the least harmful first, and then drops those that turn out unnecessary.
fn combined(shape: RunShape, fits: impl Fn(&RunShape) -> bool) -> Option<Change> {
    let step = |kind: usize, shape: RunShape| match kind {
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

/// Presets of `xc2-convert` and their bits per weight of the decoder, the largest first. They mix types, so they take
/// a little more than the type in the name.
const PRESETS: [(&str, f64); 4] = [
    ("--q8_0", 8.5),
    ("--q6_k", 6.6),
    ("--q5_k", 5.7),
    ("--q4_k", 4.9),
];
/// Bits per weight of tower, projector and Partial-LoRA in all of these presets.
const SIDE_BITS: f64 = 8.5;

/// The largest preset with which the model would fit, if that is smaller than the present model. `need` is the need
/// with the present model.
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

    const SHAPE: RunShape = RunShape {
        n_ctx: 4096,
        n_ctx_min: 700,
        n_seq: 4,
        kv_type: KvType::F16,
        repack: true,
    };

    /// 1000 for weights, 500 for repacked copies, 10 per step of context in f16.
    fn need(shape: &RunShape) -> u64 {
        let kv = shape
            .kv_type
            .bytes(10 * 32 * shape.n_seq * shape.n_ctx / STEP) as u64
            / 64;
        1000 + if shape.repack { 500 } else { 0 } + kv
    }

    fn options(shape: RunShape, available: u64) -> Vec<String> {
        let remedies = remedies(shape, available, need);
        for remedy in &remedies {
            assert!(remedy.need <= available, "{remedy:?} of {available}");
        }
        remedies.into_iter().map(|r| r.options).collect()
    }

    #[test]
    fn each_sufficient_change_is_a_remedy() {
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
        // A smaller KV type is not sufficient here.
        assert_eq!(
            options(SHAPE, 1700),
            ["--repack off", "--parallel 1", "--ctx-size 1280"]
        );
    }

    #[test]
    fn the_fewest_changes_are_combined_if_no_single_one_is_sufficient() {
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
    fn there_is_no_remedy_if_no_change_is_sufficient() {
        assert!(options(SHAPE, 1010).is_empty());
        assert!(options(SHAPE, 0).is_empty());
    }

    #[test]
    fn a_context_is_never_shorter_than_its_minimum() {
        let alone = RunShape {
            n_ctx_min: 4000,
            n_seq: 1,
            kv_type: KvType::Q8_0,
            repack: false,
            ..SHAPE
        };
        assert!(options(alone, need(&alone) - 1).is_empty());
        let alone = RunShape {
            n_ctx_min: 3000,
            ..alone
        };
        assert_eq!(options(alone, need(&alone) - 1), ["--ctx-size 3840"]);
    }

    #[test]
    fn unnecessary_changes_are_left_out() {
        // Repacked copies take nothing, so `--repack off` does not help.
        let need = |shape: &RunShape| 1000 + (shape.n_ctx * shape.n_seq) as u64 / 8;
        let shape = RunShape {
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
