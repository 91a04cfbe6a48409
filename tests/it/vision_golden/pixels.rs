//! Decoding, resizing and normalising.

use xc2_edge::vision::image::{CLIP_MEAN, CLIP_STD, Preprocessor, RgbImage};

use super::golden::{Golden, PICTURES, picture};

/// The two models differ in the picture's size; the larger one enlarges most of the pictures.
const MODELS: [(&str, u32); 2] = [("tiny-vl", 490), ("tiny-composer", 112)];

/// Largest difference between two decoders of a lossy file after the resize, in levels of 255.
///
/// Measured: see `lossy_pictures_differ_by_a_few_levels`.
const LOSSY_LEVELS: u8 = 4;

/// Largest difference in levels, and how many samples differ.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, usize) {
    assert_eq!(a.dimensions(), b.dimensions());
    let levels = || {
        a.as_raw()
            .iter()
            .zip(b.as_raw())
            .map(|(a, b)| a.abs_diff(*b))
    };
    (levels().max().unwrap(), levels().filter(|&d| d > 0).count())
}

fn preprocessor(size: u32) -> Preprocessor {
    Preprocessor::new(size, CLIP_MEAN, CLIP_STD)
}

#[test]
fn lossless_pictures_are_resized_bit_exactly() {
    let mut failures = Vec::new();
    for (model, size) in MODELS {
        for (name, _) in PICTURES.iter().filter(|(_, lossless)| *lossless) {
            let resized = preprocessor(size).resize(&picture(name));
            let found = difference(&resized, &Golden::read(model, name).resized);
            if found != (0, 0) {
                failures.push((model, name, found));
            }
        }
    }
    assert!(failures.is_empty(), "(levels, samples): {failures:?}");
}

#[test]
fn lossy_pictures_differ_by_a_few_levels() {
    for (model, size) in MODELS {
        for (name, _) in PICTURES.iter().filter(|(_, lossless)| !lossless) {
            let golden = Golden::read(model, name).resized;
            let (levels, samples) = difference(&preprocessor(size).resize(&picture(name)), &golden);
            let share = 100.0 * samples as f64 / golden.as_raw().len() as f64;
            println!("{model} {name}: at most {levels} levels, {share:.2} % of the samples");
            assert!(levels <= LOSSY_LEVELS, "{model} {name}: {levels} levels");
        }
    }
}

#[test]
fn pixel_values_equal_the_original() {
    for (model, size) in MODELS {
        for (name, _) in PICTURES {
            let golden = Golden::read(model, name);
            let pixels = preprocessor(size).normalize(&golden.resized);
            let found = pixels.values().iter().map(|&v| f64::from(v));
            if let Some(expected) = golden.full("pixel_values") {
                assert_eq!(expected.len(), pixels.values().len());
                let close = |f: f64, e: f64| (f - e).abs() <= 1e-6; // false for NaN
                let n_close = found.zip(expected).filter(|(f, e)| close(*f, **e)).count();
                assert_eq!(n_close, expected.len(), "{model} {name}");
            } else {
                assert_eq!(
                    model, "tiny-vl",
                    "{name}: only its recordings are too large"
                );
                let n = found.len() as f64;
                let mean = found.clone().sum::<f64>() / n;
                let rms = (found.map(|v| v * v).sum::<f64>() / n).sqrt();
                assert!(
                    (mean - golden.stat("pixel_values", "mean")).abs() < 1e-6,
                    "{name}"
                );
                assert!(
                    (rms - golden.stat("pixel_values", "rms")).abs() < 1e-6,
                    "{name}"
                );
            }
        }
    }
}
