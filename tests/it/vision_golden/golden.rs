//! The golden files of a picture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use safetensors::SafeTensors;
use serde_json::Value;
use xc2_edge::vision::image::{Orientation, RgbImage, decode, open};

/// The pictures, and whether their format is lossless, so that all decoders agree.
pub const PICTURES: [(&str, bool); 10] = [
    ("alpha.png", true),
    ("checker.png", true),
    ("exif6.jpg", false),
    ("gray.png", true),
    ("lossy.webp", false),
    ("one.png", true),
    ("palette.png", true),
    ("photo.jpg", false),
    ("shapes.png", true),
    ("tall.webp", true), // lossless
];

pub fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(path)
}

/// A picture as the reference reads it: EXIF orientation ignored.
pub fn picture(name: &str) -> RgbImage {
    open(&reference("images").join(name), Orientation::Ignore).unwrap()
}

/// What the original code computed for one picture.
pub struct Golden {
    /// The picture after the resize.
    pub resized: RgbImage,
    /// Mean, root mean square and largest magnitude of every stage.
    stats: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Golden {
    pub fn read(model: &str, picture: &str) -> Self {
        let stem = picture.replace('.', "_");
        let read = |ending: &str| {
            let path = reference(&format!("golden/{model}/images/{stem}.{ending}"));
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let json: Value = serde_json::from_slice(&read("json")).unwrap();
        Self {
            resized: decode(&read("resized.png"), Orientation::Ignore).unwrap(),
            stats: json["stats"].clone(),
            tensors: numbers(&read("safetensors")),
        }
    }

    /// All values of a stage, if the file has them.
    pub fn full(&self, stage: &str) -> Option<&[f64]> {
        self.tensors.get(stage).map(|(_, values)| values.as_slice())
    }

    /// One of `mean`, `rms` and `absmax` of a stage.
    pub fn stat(&self, stage: &str, which: &str) -> f64 {
        self.stats[stage][which]
            .as_f64()
            .unwrap_or_else(|| panic!("no {which} of `{stage}`"))
    }

    /// The recorded rows of a two-dimensional stage, and their numbers.
    fn rows(&self, stage: &str) -> (Vec<usize>, Array2<f64>) {
        let (rows, at) = match self.tensors.get(stage) {
            Some(rows) => (rows, None),
            None => {
                let sampled = &self.tensors[&format!("{stage}.rows")];
                (sampled, Some(&self.tensors[&format!("{stage}.at")].1))
            }
        };
        let width = *rows.0.last().unwrap();
        let values = Array2::from_shape_vec((rows.1.len() / width, width), rows.1.clone()).unwrap();
        let at = at.map_or_else(
            || (0..values.nrows()).collect(),
            |at| at.iter().map(|&i| i as usize).collect(),
        );
        (at, values)
    }

    /// Largest and mean absolute difference of a stage from the recorded values.
    pub fn difference(&self, stage: &str, found: &ArrayView2<f32>) -> (f64, f64) {
        let (at, expected) = self.rows(stage);
        assert!(at.len() >= 20, "`{stage}`: expected 20 rows or more");
        let (mut max, mut sum) = (0.0_f64, 0.0);
        for (&i, expected) in at.iter().zip(expected.rows()) {
            for (f, e) in found.row(i).iter().zip(expected) {
                let difference = (f64::from(*f) - e).abs();
                // Not `f64::max`, which ignores NaN.
                max = if difference > max || difference.is_nan() {
                    difference
                } else {
                    max
                };
                sum += difference;
            }
        }
        (max, sum / expected.len() as f64)
    }
}

/// Every tensor of a safetensors file, with its shape.
fn numbers(bytes: &[u8]) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensors = file.iter().map(|(name, tensor)| {
        let words = tensor.data().chunks_exact(4).map(|w| w.try_into().unwrap());
        let values = match tensor.dtype() {
            safetensors::Dtype::F32 => words.map(|w| f64::from(f32::from_le_bytes(w))).collect(),
            safetensors::Dtype::I32 => words.map(|w| f64::from(i32::from_le_bytes(w))).collect(),
            other => panic!("`{name}`: {other:?}"),
        };
        (name.to_owned(), (tensor.shape().to_vec(), values))
    });
    tensors.collect()
}
