//! The tower and the projector.

use ndarray::{Array2, ArrayView2};
use xc2_edge::model::quant::GgmlType;
use xc2_edge::vision::image::{CLIP_MEAN, CLIP_STD, PixelValues, Preprocessor};
use xc2_edge::{
    vision::Precision, vision::StageObserver, vision::VisionEncoder, vision::VisionError,
};
use xc2_kernels::attention;

use super::checkpoint::{Checkpoint, config};
use super::golden::{Golden, PICTURES, picture};

/// Rounding of f32 sums in another order, over three layers; variants of the reference differ by 2.4e-6.
const TOLERANCE: f64 = 1e-4;

fn encoder(checkpoint: &Checkpoint) -> VisionEncoder {
    VisionEncoder::new(config(), checkpoint, Precision::Stored).unwrap()
}

fn pixels(golden: &Golden) -> PixelValues {
    Preprocessor::new(490, CLIP_MEAN, CLIP_STD).normalize(&golden.resized)
}

/// Compares every stage with the golden file.
struct Comparison<'a> {
    golden: &'a Golden,
    /// Name, largest and mean difference, in the order of the stages.
    stages: Vec<(String, f64, f64)>,
}

impl StageObserver for Comparison<'_> {
    fn stage(&mut self, name: &str, values: ArrayView2<f32>) {
        let (max, mean) = self.golden.difference(name, &values);
        self.stages.push((name.to_owned(), max, mean));
    }
}

#[test]
fn every_stage_of_every_picture_equals_the_original() {
    const STAGES: [&str; 8] = [
        "patch_embed",
        "embeddings",
        "hidden.0",
        "hidden.1",
        "hidden.2",
        "hidden.3",
        "features",
        "projected",
    ];
    let encoder = encoder(&Checkpoint::tiny_vl());
    for (name, _) in PICTURES {
        let golden = Golden::read("tiny-vl", name);
        let mut seen = Comparison {
            golden: &golden,
            stages: Vec::new(),
        };
        encoder.encode_observed(&pixels(&golden), &mut seen);
        let names: Vec<&str> = seen.stages.iter().map(|s| s.0.as_str()).collect();
        assert_eq!(names, STAGES);
        for (stage, max, mean) in &seen.stages {
            println!("{name} {stage}: at most {max:.1e}, mean {mean:.1e}");
        }
        let departs = |max: f64| max > TOLERANCE || max.is_nan();
        if let Some((stage, max, mean)) = seen.stages.iter().find(|s| departs(s.1)) {
            panic!("{name}: `{stage}` is the first to depart, by {max:.2e} (mean {mean:.2e})");
        }
    }
}

#[test]
fn a_png_is_decoded_resized_and_encoded_like_the_original() {
    let encoder = encoder(&Checkpoint::tiny_vl());
    let preprocessor = Preprocessor::new(490, CLIP_MEAN, CLIP_STD);
    let found = encoder.encode(&preprocessor.pixel_values(&picture("shapes.png")));
    let golden = Golden::read("tiny-vl", "shapes.png");
    let (max, _) = golden.difference("projected", &found.view());
    assert!(max <= TOLERANCE, "{max:e}");
}

#[test]
fn observers_and_threads_do_not_change_the_result() {
    struct Count(usize);
    impl StageObserver for Count {
        fn stage(&mut self, _: &str, _: ArrayView2<f32>) {
            self.0 += 1;
        }
    }
    let encoder = encoder(&Checkpoint::tiny_vl());
    let pixels = pixels(&Golden::read("tiny-vl", "photo.jpg"));
    let with_threads = |n| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap();
        pool.install(|| encoder.encode(&pixels))
    };
    let one = with_threads(1);
    assert_eq!(one, with_threads(3));
    let mut count = Count(0);
    assert_eq!(one, encoder.encode_observed(&pixels, &mut count));
    assert_eq!(count.0, 8);
}

/// Smallest cosine similarity of two rows at the same place.
fn min_cosine(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let rows = a.rows().into_iter().zip(b.rows());
    rows.map(|(a, b)| {
        let (a, b) = (a.to_slice().unwrap(), b.to_slice().unwrap());
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    })
    .fold(1.0, f64::min)
}

#[test]
fn stored_types_add_only_their_own_rounding() {
    let original = Checkpoint::tiny_vl();
    let pixels = pixels(&Golden::read("tiny-vl", "photo.jpg"));
    let exact = encoder(&original).encode(&pixels);
    // Every weight is a bf16 number that f16 also holds.
    let found = encoder(&original.with_matrices(GgmlType::F32)).encode(&pixels);
    assert_eq!(found, exact, "f32");
    let found = encoder(&original.with_matrices(GgmlType::BF16)).encode(&pixels);
    if attention::Precision::fastest() == attention::Precision::F32 {
        assert_eq!(found, exact, "bf16");
    } else {
        // Activations are rounded to 16 bits in attention, on some CPUs before products too.
        let cosine = min_cosine(&found, &exact);
        assert!((0.9999..1.0).contains(&cosine), "bf16: {cosine}");
    }
    let found = encoder(&original.with_matrices(GgmlType::Q8_0)).encode(&pixels);
    let cosine = min_cosine(&found, &exact);
    assert!((0.999..1.0).contains(&cosine), "q8_0: {cosine}");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let tensors = Checkpoint::tiny_vl();
    let error = |change: &dyn Fn(&mut Checkpoint)| {
        let mut changed = tensors.clone();
        change(&mut changed);
        VisionEncoder::new(config(), &changed, Precision::Stored)
            .err()
            .expect("expected an error")
    };
    let missing = error(&|c| drop(c.0.remove("v.blk.2.ffn_up.bias")));
    assert_eq!(
        missing.to_string(),
        "tensor `v.blk.2.ffn_up.bias`: expected [512], found none"
    );
    let shape = error(&|c| c.0.get_mut("v.position_embd.weight").unwrap().shape[1] = 577);
    assert_eq!(
        shape.to_string(),
        "tensor `v.position_embd.weight`: expected shape [128, 1226], found [128, 577]"
    );
    let short = error(&|c| {
        let tensor = c.0.get_mut("mm.2.weight").unwrap();
        tensor.data = bytes::Bytes::copy_from_slice(&tensor.data[..100]);
    });
    assert!(
        matches!(short, VisionError::Data { found: 100, .. }),
        "{short}"
    );
    let bytes = error(&|c| c.0.get_mut("mm.0.bias").unwrap().ty = GgmlType::I8);
    assert!(
        matches!(
            bytes,
            VisionError::Type {
                found: GgmlType::I8,
                ..
            }
        ),
        "{bytes}"
    );
    let blocks = error(&|c| c.0.get_mut("v.patch_embd.weight").unwrap().ty = GgmlType::Q8_0);
    assert!(
        matches!(
            blocks,
            VisionError::Type {
                found: GgmlType::Q8_0,
                ..
            }
        ),
        "{blocks}"
    );
}
